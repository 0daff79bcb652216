"""A slice as a picture to draw on: matplotlib's figure without axes, which takes half the time of one with axes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image, ImageColor

from monai_spine.report.views import SliceView, scale_bar_mm

__all__ = ["Sheet", "sheet_of"]

_DPI = 100
_INK: dict[str, Any] = {"color": "white", "path_effects": [withStroke(linewidth=2.5, foreground="black")]}
_GREYS = 255


@dataclass(frozen=True)
class Sheet:
    """A figure with a slice on it. Places are millimetres of the slice: across grows to the viewer's left, up to the top.

    Attributes:
        figure: Without axes.
        view: The slice.
        margin: Share of the figure that the frame takes on each side, (across, up).
        border: Colour of the frame, if there is one.
    """

    figure: Figure
    view: SliceView
    margin: tuple[float, float]
    border: str | None

    def place(self, across: float, up: float) -> tuple[float, float]:
        """Millimetres of the slice as shares of the figure, from its lower left."""
        width, height = self.view.extent_mm
        return self.within(1 - across / width, up / height)

    def within(self, x: float, y: float) -> tuple[float, float]:
        """Shares of the slice, from its lower left, as shares of the figure."""
        return tuple(edge + share * (1 - 2 * edge) for edge, share in zip(self.margin, (x, y), strict=True))  # type: ignore[return-value]

    def text(self, place: tuple[float, float], text: str, **style: Any) -> None:
        """Write in white with a black rim."""
        x, y = place
        self.figure.text(x, y, text, **_INK, **style)

    def line(self, points: npt.ArrayLike, **style: Any) -> None:
        """Draw through places of the slice in mm, shape (N, 2)."""
        x, y = zip(*(self.place(*point) for point in np.asarray(points, dtype=float)), strict=True)
        self.figure.add_artist(Line2D(x, y, transform=self.figure.transFigure, **style))

    def marks(self, *, size: int) -> None:
        """The letters of the four directions, and a scale bar in mm."""
        left, right, top, bottom = self.view.letters
        style = {"fontsize": size + 1, "fontweight": "bold"}
        self.text(self.within(0.02, 0.5), left, ha="left", va="center", **style)
        self.text(self.within(0.98, 0.5), right, ha="right", va="center", **style)
        self.text(self.within(0.5, 0.975), top, ha="center", va="top", **style)
        self.text(self.within(0.5, 0.03), bottom, ha="center", va="bottom", **style)
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
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
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


def sheet_of(view: SliceView, *, long_side: int, border: str | None = None, border_pixels: int = 0) -> Sheet:
    """Draw a slice in its own proportions, with an optional frame.

    Args:
        view: The slice.
        long_side: Pixels of the longer side, frame included.
        border: Colour of the frame.
        border_pixels: Its width.
    """
    extent = np.asarray(view.extent_mm)
    inner = np.maximum(np.round(extent * (long_side - 2 * border_pixels) / extent.max()), 40).astype(int)
    total = inner + 2 * border_pixels
    figure = Figure(figsize=tuple(total / _DPI), dpi=_DPI, facecolor=border or "black")
    figure.figimage(_picture(view, inner), xo=border_pixels, yo=border_pixels, cmap="gray", vmin=0, vmax=255, origin="upper")
    return Sheet(figure, view, margin=(border_pixels / total[0], border_pixels / total[1]), border=border)


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
