"""PNG pictures: the spine from the side with its levels, and the crop behind each finding.

Every picture carries the letters of its directions (R/L/A/P/H/F) and a scale bar in mm. At the viewer's left lies the patient's
right in axial pictures, the front in sagittal ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from contourpy import contour_generator

from monai_spine.anatomy import Condition, Severity
from monai_spine.geometry import PlaneOrientation, Point
from monai_spine.report.images import ReportImages
from monai_spine.report.labels import color_of, doubt_lines, draw_doubts, draw_labels, label_room_px, strip_px
from monai_spine.report.palette import BORDERS
from monai_spine.report.sheet import Sheet, sheet_of
from monai_spine.report.views import SliceView, slice_view

if TYPE_CHECKING:
    from monai_spine.crops import Crop
    from monai_spine.grades import Grade
    from monai_spine.levels import Levels
    from monai_spine.result import StudyResult
    from monai_spine.volume import Volume

__all__ = ["crop_figure", "draw_figures", "sagittal_figure"]

_CROP_PIXELS = 300
_CROP_TEXT = 13
_BORDER_PIXELS = 7
_SAGITTAL_PIXELS = 860
_SAGITTAL_TEXT = 18
_BEFORE_MM, _BEHIND_MM = 50.0, 60.0
"""How far the picture of the spine reaches before the foremost point and behind the hindmost."""
_OUTLINE = "#58c7f3"


def draw_figures(result: StudyResult, images: ReportImages) -> dict[str, bytes]:
    """Every picture of a report, by file name without folder.

    Returns:
        `sagittal_<role>.png` for each scan, `crop_<target slug>.png` for each graded finding whose crop is there.
    """
    has_mm = result.picture_affine is None
    figures = {}
    for role, volume in images.sagittal.items():
        figures[f"sagittal_{role.value}.png"] = sagittal_figure(volume, result.levels, has_mm=has_mm)
    for grade in result.grades:
        crop = images.crops.get(grade.target.slug)
        if crop is not None and grade.severity is not None:
            figures[f"crop_{grade.target.slug}.png"] = crop_figure(grade, crop, has_mm=has_mm)
    return figures


def sagittal_figure(volume: Volume, levels: Levels, *, has_mm: bool = True) -> bytes:
    """The spine on the slice nearest to the canal, as PNG.

    It shows discs as circles, canal points as crosses, names, confidences, and outlines of the bodies. A level with a flag is
    amber and bears the flag's words; the column's doubts stand below the slice. Points more than one slice away are drawn
    fainter: they were found, but on another slice.

    Args:
        volume: A sagittal scan.
        levels: What was found, RAS+ mm.
        has_mm: False for a picture without geometry: no letters and no scale are claimed.
    """
    middle = _middle_of(levels)
    whole = slice_view(volume.array, volume.affine, PlaneOrientation.SAGITTAL, at_ras_mm=middle)
    view, strip = _around_levels(whole, levels)
    lines = doubt_lines(levels, view.extent_mm[0] * _SAGITTAL_PIXELS / max(view.extent_mm) + strip)
    sheet = sheet_of(view, long_side=_SAGITTAL_PIXELS, beside=(strip, strip_px(lines)))
    if levels.bodies is not None:
        _draw_outlines(sheet, slice_view(levels.bodies.array, levels.bodies.affine, PlaneOrientation.SAGITTAL, at_ras_mm=middle))
    _draw_points(sheet, levels)
    draw_labels(sheet, levels)
    draw_doubts(sheet, lines)
    if has_mm:
        sheet.marks(size=_SAGITTAL_TEXT)
    return sheet.png(grey=False)


def crop_figure(grade: Grade, crop: Crop, *, has_mm: bool = True) -> bytes:
    """The middle slice of what was graded, framed in the colour of its severity, as PNG."""
    axial = grade.target.condition is Condition.SUBARTICULAR_STENOSIS or int(np.argmin(crop.array.shape)) == 2
    view = slice_view(crop.array, crop.affine, PlaneOrientation.AXIAL if axial else PlaneOrientation.SAGITTAL)
    border = BORDERS[grade.severity or Severity.NORMAL_MILD]
    sheet = sheet_of(view, long_side=_CROP_PIXELS, border=border, border_pixels=_BORDER_PIXELS)
    if has_mm:
        sheet.marks(size=_CROP_TEXT)
    side = grade.target.side
    if side is not None and not axial:
        sheet.text(sheet.within(0.98, 0.03), f"{side.value} side", ha="right", va="bottom", fontsize=_CROP_TEXT)
    return sheet.png(grey=True)


def _middle_of(levels: Levels) -> Point | None:
    """The median of the canal points, of the discs where no canal was seen; None where no level was found."""
    points = [level.canal_ras_mm for level in levels.levels if level.canal_ras_mm is not None]
    points = points or [level.disc_ras_mm for level in levels.levels]
    if not points:
        return None
    r, a, s = np.median(points, axis=0)
    return float(r), float(a), float(s)


def _around_levels(view: SliceView, levels: Levels) -> tuple[SliceView, int]:
    """The slice in its whole height, but no wider than the spine and the names beside it need.

    Returns:
        The slice, and how many pixels the names need beyond its end.
    """
    points = [point for level in levels.levels for point in (level.disc_ras_mm, level.canal_ras_mm) if point is not None]
    if not points:
        return view, 0
    across = [view.locate(point)[0] for point in points]
    pixels_per_mm = _SAGITTAL_PIXELS / view.extent_mm[1]
    behind = min(across) - max(_BEHIND_MM, label_room_px(levels) / pixels_per_mm)
    return view.narrowed(behind, max(across) + _BEFORE_MM), max(0, round(-behind * pixels_per_mm))


def _draw_points(sheet: Sheet, levels: Levels) -> None:
    for level in levels.levels:
        _draw_sign(sheet, level.disc_ras_mm, "o", color_of(level))
        if level.canal_ras_mm is not None:
            _draw_sign(sheet, level.canal_ras_mm, "+", color_of(level))
    for vertebra in levels.vertebrae:
        across, up, away = sheet.view.locate(vertebra.point_ras_mm)
        style = {"fontsize": _SAGITTAL_TEXT - 2, "ha": "center", "va": "center", "alpha": _alpha(away)}
        name = sheet.text(sheet.place(across, up), vertebra.vertebra.value, **style)
        sheet.hold(name)
        sheet.shade(sheet.box_of([name]))


def _draw_sign(sheet: Sheet, point_ras_mm: Point, sign: str, color: str) -> None:
    across, up, away = sheet.view.locate(point_ras_mm)
    for colour, width in (("black", 4.0), (color, 2.0)):
        style = {"marker": sign, "markersize": 12, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": width}
        sheet.line([(across, up)], linestyle="none", alpha=_alpha(away), **style)


def _draw_outlines(sheet: Sheet, bodies: SliceView) -> None:
    """Outlines of a label map that has a grid of its own."""
    if min(bodies.pixels.shape) < 2:
        return
    across, up = bodies.pixel_places_on(sheet.view)
    for label in np.unique(bodies.pixels[bodies.pixels > 0]):
        inside = np.equal(bodies.pixels, label).astype(float)
        for outline in contour_generator(across, up, inside).lines(0.5):
            sheet.line(np.asarray(outline), color=_OUTLINE, linewidth=1.2)


def _alpha(slices_away: float) -> float:
    return 1.0 if slices_away <= 1 else 0.55
