"""PNG pictures: the spine from the side with its levels, and the crop behind each finding.

Every picture carries the letters of its directions (R/L/A/P/H/F) and a scale bar in mm. At the viewer's left lies the patient's
right in axial pictures, the front in sagittal ones.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from monai_spine.anatomy import Condition, Severity
from monai_spine.geometry import PlaneOrientation, Point
from monai_spine.report.images import ReportImages
from monai_spine.report.palette import BORDERS
from monai_spine.report.views import SliceView, scale_bar_mm, slice_view

if TYPE_CHECKING:
    from monai_spine.crops import Crop
    from monai_spine.grades import Grade
    from monai_spine.levels import Levels
    from monai_spine.result import StudyResult
    from monai_spine.volume import Volume

__all__ = ["crop_figure", "draw_figures", "sagittal_figure"]

_DPI = 100
_CROP_PIXELS = 300
_SAGITTAL_PIXELS = 860
_BORDER_PIXELS = 7
_CROP_TEXT = 13
_SAGITTAL_TEXT = 18
_INK = {"color": "white", "path_effects": [withStroke(linewidth=2.5, foreground="black")]}
_POINT = "#ffd54a"
_OUTLINE = "#58c7f3"


def draw_figures(result: StudyResult, images: ReportImages) -> dict[str, bytes]:
    """Every picture of a report, by file name without folder.

    Returns:
        `sagittal_<role>.png` for each scan, `crop_<target slug>.png` for each graded finding whose crop is there.
    """
    picture = result.picture_affine is not None
    figures = {
        f"sagittal_{role.value}.png": sagittal_figure(volume, result.levels, has_mm=not picture)
        for role, volume in images.sagittal.items()
    }
    for grade in result.grades:
        crop = images.crops.get(grade.target.slug)
        if crop is not None and grade.severity is not None:
            figures[f"crop_{grade.target.slug}.png"] = crop_figure(grade, crop, has_mm=not picture)
    return figures


def sagittal_figure(volume: Volume, levels: Levels, *, has_mm: bool = True) -> bytes:
    """The slice nearest to the canal as PNG: discs (circles), canal points (crosses), names, confidences, outlines of bodies.

    Points more than one slice away are drawn fainter: they were found, but on another slice.

    Args:
        volume: A sagittal scan.
        levels: What was found, RAS+ mm.
        has_mm: False for a picture without geometry: no letters and no scale are claimed.
    """
    middle = _middle_of(levels)
    view = slice_view(volume.array, volume.affine, PlaneOrientation.SAGITTAL, at_ras_mm=middle)
    figure, axes = _canvas(view, long_side=_SAGITTAL_PIXELS)
    if levels.bodies is not None:
        _draw_outlines(
            axes, view, slice_view(levels.bodies.array, levels.bodies.affine, PlaneOrientation.SAGITTAL, at_ras_mm=middle)
        )
    _draw_levels(axes, view, levels)
    if has_mm:
        _draw_marks(axes, view, text=_SAGITTAL_TEXT)
    return _png(figure)


def crop_figure(grade: Grade, crop: Crop, *, has_mm: bool = True) -> bytes:
    """The middle slice of what was graded, framed in the colour of its severity, as PNG."""
    axial = grade.target.condition is Condition.SUBARTICULAR_STENOSIS
    view = slice_view(crop.array, crop.affine, PlaneOrientation.AXIAL if axial else PlaneOrientation.SAGITTAL)
    border = BORDERS[grade.severity or Severity.NORMAL_MILD]
    figure, axes = _canvas(view, long_side=_CROP_PIXELS, border=border)
    if has_mm:
        _draw_marks(axes, view, text=_CROP_TEXT)
    side = grade.target.side
    if side is not None and not axial:
        axes.text(
            0.98, 0.03, f"{side.value} side", transform=axes.transAxes, ha="right", va="bottom", fontsize=_CROP_TEXT, **_INK
        )
    return _png(figure)


def _middle_of(levels: Levels) -> Point | None:
    """The median of the canal points, of the discs where no canal was seen; None where no level was found."""
    points = [level.canal_ras_mm for level in levels.levels if level.canal_ras_mm is not None]
    points = points or [level.disc_ras_mm for level in levels.levels]
    if not points:
        return None
    r, a, s = np.median(points, axis=0)
    return float(r), float(a), float(s)


def _canvas(view: SliceView, *, long_side: int, border: str | None = None) -> tuple[Figure, Any]:
    """A figure in the slice's own proportions, with the slice drawn on it; across grows to the viewer's left, in mm."""
    width, height = view.extent_mm
    margin = 0 if border is None else _BORDER_PIXELS
    scale = (long_side - 2 * margin) / max(width, height)
    across, up = max(width * scale, 40), max(height * scale, 40)
    total = np.array([across, up]) + 2 * margin
    figure = Figure(figsize=tuple(total / _DPI), dpi=_DPI, facecolor=border or "black")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((margin / total[0], margin / total[1], across / total[0], up / total[1]))
    axes.set_axis_off()
    low, high = _window(view.pixels)
    axes.imshow(view.pixels.T, cmap="gray", vmin=low, vmax=high, origin="lower", extent=(0, width, 0, height),
                interpolation="bicubic", aspect="auto")  # fmt: skip
    axes.set_xlim(width, 0)
    axes.set_ylim(0, height)
    return figure, axes


def _window(pixels: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Grey window from the 1st to the 99.5th percentile, never empty."""
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (1, 99.5)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _draw_marks(axes: Any, view: SliceView, *, text: int) -> None:
    """The four letters and the scale bar."""
    left, right, top, bottom = view.letters
    places = ((0.02, 0.5, left, "left"), (0.98, 0.5, right, "right"), (0.5, 0.97, top, "center"), (0.5, 0.03, bottom, "center"))
    for across, up, letter, align in places:
        vertical = {0.97: "top", 0.03: "bottom"}.get(up, "center")
        axes.text(
            across, up, letter, transform=axes.transAxes, ha=align, va=vertical, fontsize=text + 1, fontweight="bold", **_INK
        )
    width, height = view.extent_mm
    length = scale_bar_mm(width)
    start = 0.97 * width
    for colour, line in (("black", 5), ("white", 2.5)):
        axes.plot([start, start - length], [0.03 * height] * 2, color=colour, linewidth=line, solid_capstyle="butt")
    axes.text(start, 0.045 * height, f"{length:g} mm", fontsize=text - 1, ha="left", va="bottom", **_INK)


def _draw_levels(axes: Any, view: SliceView, levels: Levels) -> None:
    aside = 0.05 * view.extent_mm[0]
    for level in levels.levels:
        beside = level.disc_ras_mm if level.canal_ras_mm is None else level.canal_ras_mm
        _draw_sign(axes, view.locate(level.disc_ras_mm), "o")
        if level.canal_ras_mm is not None:
            _draw_sign(axes, view.locate(level.canal_ras_mm), "+")
        across, up, _ = view.locate(beside)
        name = f"{level.level.label}  {100 * level.confidence:.0f} %" + (" !" if level.flags else "")
        axes.text(across - aside, up, name, fontsize=_SAGITTAL_TEXT, ha="left", va="center", **_INK)
    for vertebra in levels.vertebrae:
        across, up, away = view.locate(vertebra.point_ras_mm)
        axes.text(
            across, up, vertebra.vertebra.value, fontsize=_SAGITTAL_TEXT - 2, ha="center", va="center", alpha=_alpha(away), **_INK
        )


def _draw_sign(axes: Any, place: tuple[float, float, float], sign: str) -> None:
    across, up, away = place
    for colour, width in (("black", 4.0), (_POINT, 2.0)):
        axes.plot(
            across, up, sign, markersize=12, markerfacecolor="none", color=colour, markeredgewidth=width, alpha=_alpha(away)
        )


def _draw_outlines(axes: Any, view: SliceView, bodies: SliceView) -> None:
    """Outlines of a label map that has a grid of its own."""
    if min(bodies.pixels.shape) < 2:
        return
    across, up = bodies.pixel_places_on(view)
    for label in np.unique(bodies.pixels[bodies.pixels > 0]):
        axes.contour(across, up, np.equal(bodies.pixels, label), levels=[0.5], colors=_OUTLINE, linewidths=0.9)


def _alpha(slices_away: float) -> float:
    return 1.0 if slices_away <= 1 else 0.55


def _png(figure: Figure) -> bytes:
    """The figure with 256 colours, which halves the file and cannot be told apart."""
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
