"""A slice as a picture to draw on: matplotlib's figure without axes, which takes half the time of one with axes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image, ImageColor

from monai_spine.report.views import SliceView, scale_bar_mm

__all__ = ["PIXELS_PER_POINT", "Box", "Sheet", "sheet_of"]

Box = tuple[float, float, float, float]
"""Left, lower, right and upper edge, in pixels from the figure's lower left."""

_DPI = 100
PIXELS_PER_POINT = _DPI / 72
"""How large a letter is drawn: font sizes are points."""
_INK: dict[str, Any] = {"color": "white", "path_effects": [withStroke(linewidth=2.5, foreground="black")]}
_GREYS = 255
_SHADE, _SHADE_EDGE = 0.6, 3.0
_ALONG_EDGE = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82, 0.1, 0.9)


@dataclass(frozen=True)
class Sheet:
    """A figure with a slice on it. Places are millimetres of the slice: across grows to the viewer's left, up to the top.

    Attributes:
        figure: Without axes.
        view: The slice.
        area: Where the slice lies in the figure: left, lower, right and upper edge in pixels.
        border: Colour of the frame, if there is one.
    """

    figure: Figure
    view: SliceView
    area: Box
    border: str | None

    @property
    def _canvas(self) -> FigureCanvasAgg:
        return cast(FigureCanvasAgg, self.figure.canvas)

    def place(self, across: float, up: float) -> tuple[float, float]:
        """Millimetres of the slice as shares of the figure, from its lower left."""
        width, height = self.view.extent_mm
        return self.within(1 - across / width, up / height)

    def within(self, x: float, y: float) -> tuple[float, float]:
        """Shares of the slice, from its lower left, as shares of the figure."""
        left, lower, right, upper = self.area
        return self.at_pixels(left + x * (right - left), lower + y * (upper - lower))

    def at_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the figure's lower left as shares of the figure."""
        return x / float(self.figure.bbox.width), y / float(self.figure.bbox.height)

    def in_pixels(self, place: tuple[float, float]) -> tuple[float, float]:
        """Shares of the figure as pixels from its lower left."""
        return place[0] * float(self.figure.bbox.width), place[1] * float(self.figure.bbox.height)

    def text(self, place: tuple[float, float], text: str, **style: Any) -> Text:
        """Write in white, or another colour, with a black rim."""
        return self.figure.text(*place, text, **{**_INK, **style})

    def box_of(self, drawn: Iterable[Text | Line2D]) -> Box:
        """What texts and signs take up together."""
        renderer = self._canvas.get_renderer()
        edges = np.array([one.get_window_extent(renderer).extents for one in drawn])
        return (*(float(edge) for edge in edges.min(0)[:2]), *(float(edge) for edge in edges.max(0)[2:]))  # type: ignore[return-value]

    def hold(self, text: Text) -> None:
        """Move a text into the slice where it would reach beyond."""
        (left, lower, right, upper), area = self.box_of([text]), self.area
        x, y = self.in_pixels(text.get_position())
        x += max(0.0, area[0] + _SHADE_EDGE - left) - max(0.0, right + _SHADE_EDGE - area[2])
        y += max(0.0, area[1] + _SHADE_EDGE - lower) - max(0.0, upper + _SHADE_EDGE - area[3])
        text.set_position(self.at_pixels(x, y))

    def shade(self, box: Box) -> None:
        """Darken what lies behind the texts of a box, so that they can be read on bright fat."""
        left, lower, right, upper = box
        width, height = right - left + 2 * _SHADE_EDGE, upper - lower + 2 * _SHADE_EDGE
        style: dict[str, Any] = {"facecolor": "black", "alpha": _SHADE, "edgecolor": "none", "zorder": 1.5}
        self.figure.add_artist(Rectangle((left - _SHADE_EDGE, lower - _SHADE_EDGE), width, height, transform=None, **style))

    def line(self, points: npt.ArrayLike, **style: Any) -> None:
        """Draw through places of the slice in mm, shape (N, 2)."""
        x, y = zip(*(self.place(*point) for point in np.asarray(points, dtype=float)), strict=True)
        self.figure.add_artist(Line2D(x, y, transform=self.figure.transFigure, **style))

    def stroke(self, places_px: npt.ArrayLike, **style: Any) -> None:
        """Draw through places of the figure in pixels from its lower left, shape (N, 2)."""
        x, y = np.asarray(places_px, dtype=float).T
        self.figure.add_artist(Line2D(x, y, transform=None, **style))

    def marks(self, *, size: int) -> None:
        """A scale bar in mm, and the letters of the four directions: in the middle of their edges where that is free."""
        self._scale_bar(size)
        left, right, top, bottom = self.view.letters
        taken = self._taken()
        for letter, horizontal, vertical, places in (
            (left, "left", "center", [(0.02, share) for share in _ALONG_EDGE]),
            (right, "right", "center", [(0.98, share) for share in _ALONG_EDGE]),
            (top, "center", "top", [(share, 0.975) for share in _ALONG_EDGE]),
            (bottom, "center", "bottom", [(share, 0.03) for share in _ALONG_EDGE]),
        ):
            written = self.text((0.0, 0.0), letter, fontsize=size + 1, fontweight="bold", ha=horizontal, va=vertical)
            taken.append(self._put(written, places, taken))
            self.shade(taken[-1])

    def _taken(self) -> list[Box]:
        """Where texts and signs stand."""
        signs = [artist for artist in self.figure.artists if isinstance(artist, Line2D) and artist.get_linestyle() == "None"]
        drawn: list[Text | Line2D] = [*self.figure.texts, *signs]
        return [self.box_of([one]) for one in drawn]

    def _put(self, text: Text, places: Sequence[tuple[float, float]], taken: Sequence[Box]) -> Box:
        """Move a text to the first place that is free, to the first of all where none is; gives what it then takes up."""
        for place in (*places, places[0]):
            text.set_position(self.within(*place))
            box = self.box_of([text])
            if not any(_meet(box, other) for other in taken):
                break
        return box

    def _scale_bar(self, size: int) -> None:
        width, height = self.view.extent_mm
        length, start = scale_bar_mm(width), 0.97 * width
        for colour, thickness in (("black", 5), ("white", 2.5)):
            ends = [(start, 0.03 * height), (start - length, 0.03 * height)]
            self.line(ends, color=colour, linewidth=thickness, solid_capstyle="butt")
        self.text(self.place(start, 0.045 * height), f"{length:g} mm", fontsize=size - 1, ha="left", va="bottom")

    def png(self, *, grey: bool) -> bytes:
        """The picture as PNG with a palette.

        Args:
            grey: Nothing but the frame has a colour, so that the palette is known beforehand.
        """
        self._canvas.draw()
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        picture = self._grey_picture(pixels) if grey else Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _grey_picture(self, pixels: npt.NDArray[np.uint8]) -> Image.Image:
        """255 greys and one more entry for the frame."""
        frame = ImageColor.getrgb(self.border or "black")
        grey = np.minimum(pixels[..., 1], _GREYS - 1)
        index = np.where((pixels == frame).all(axis=-1), np.uint8(_GREYS), grey)
        picture = Image.fromarray(index.astype(np.uint8)).convert("P")
        picture.putpalette([value for level in range(_GREYS) for value in (level, level, level)] + list(frame))
        return picture


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def sheet_of(
    view: SliceView, *, long_side: int, border: str | None = None, border_pixels: int = 0, beside: tuple[int, int] = (0, 0)
) -> Sheet:
    """Draw a slice in its own proportions, with an optional frame or black strips beside it.

    Args:
        view: The slice.
        long_side: Pixels of the longer side, frame included, strips not.
        border: Colour of the frame.
        border_pixels: Its width.
        beside: Width of a strip at the viewer's right and height of one below the slice, in pixels.
    """
    extent = np.asarray(view.extent_mm)
    inner = np.maximum(np.round(extent * (long_side - 2 * border_pixels) / extent.max()), 40).astype(int)
    figure = Figure(figsize=tuple((inner + 2 * border_pixels + beside) / _DPI), dpi=_DPI, facecolor=border or "black")
    FigureCanvasAgg(figure)
    left, lower = border_pixels, border_pixels + beside[1]
    figure.figimage(_picture(view, inner), xo=left, yo=lower, cmap="gray", vmin=0, vmax=255, origin="upper")
    return Sheet(figure, view, area=(left, lower, float(left + inner[0]), float(lower + inner[1])), border=border)


def _picture(view: SliceView, size: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The slice in 256 greys, as the viewer sees it: half a turn from storage, where both axes grow the other way."""
    low, high = _window(view.pixels)
    greys = np.clip((np.nan_to_num(view.pixels, nan=low, posinf=high, neginf=low) - low) * (255 / (high - low)), 0, 255).astype(
        np.uint8
    )
    picture = Image.fromarray(np.ascontiguousarray(greys.T)).transpose(Image.Transpose.ROTATE_180)
    return np.asarray(picture.resize((int(size[0]), int(size[1])), Image.Resampling.BICUBIC))


def _window(pixels: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Grey window from the 1st to the 99.5th percentile, never empty."""
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (1, 99.5)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
