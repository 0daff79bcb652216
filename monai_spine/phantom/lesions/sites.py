"""The place of a lesion: the column's frame at a disc, and the thecal sac's borders there, measured on T2.

Local coordinates at a level, in mm: *aside* from the canal's middle towards the patient's right, *behind* the canal's centre
(to the back), *up* along the canal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_spine.anatomy import Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point
from monai_spine.levels import LevelPoint, Levels
from monai_spine.phantom.lesions.profiles import (
    ROWS_MM,
    band_centers,
    border_fit,
    borders_outwards,
    contrast_of,
    sac_patch,
    wall_and_csf,
)
from monai_spine.placement import ColumnFrame, column_frames

__all__ = ["LevelSite", "check_column", "find_sites", "frames_of", "measure_site", "site_at"]

Floats = npt.NDArray[np.float64]

_LEAST_SPACING_MM = 8.0
"""Two discs lie farther apart."""
_CANAL_BEHIND_MM = (10.0, 45.0)
_DEPTH_MM = (6.0, 26.0)
_LEAST_ROWS = 9
_LEAST_CONTRAST = 0.05
"""Of CSF over wall, as a share of the brighter one: less is the rounding of an image that is one grey."""
_STEEPEST, _LEAST_DEPTH_MM = 0.7, 4.0
"""Borders that slope more, or come closer, are no sac's; lesions at them would fold tissue."""


@dataclass(frozen=True)
class LevelSite:
    """What is known of one level before a lesion.

    Attributes:
        frame: The column's axes; its origin is the canal's point.
        front_mm, back_mm: Coefficients (1, up, up²) of the sac's front and back border in the midline, in mm behind the origin;
            they hold for 14 mm above and below.
        disc_behind_mm: Where the centre of the disc lies, in mm behind the origin (negative: in front).
        disc_up_mm: Its height above the origin. The disc's plane goes through its centre and the origin, so a disc that is tilted
            against the canal, as L5/S1 is, meets it higher or lower than its centre lies.
        wall, csf: Intensities of dark walls and of CSF on the scan that was measured.
        disc_half_height_mm: Half of the height of the disc, taken as 13 % of the distance of neighbouring discs.
        base_share: How far the sac's front stands back at the disc already, as a share of the sac's depth.
    """

    frame: ColumnFrame
    front_mm: tuple[float, float, float]
    back_mm: tuple[float, float, float]
    disc_behind_mm: float
    disc_up_mm: float
    disc_half_height_mm: float
    wall: float
    csf: float
    base_share: float = 0.0

    @property
    def level(self) -> Level:
        return self.frame.level

    @property
    def margin_up_mm(self) -> float:
        """The height of the disc's back margin above the origin: where its plane meets the sac's front."""
        return float(self.disc_height_at(torch.tensor(self.front_mm[0])))

    def disc_height_at(self, behind_mm: Tensor) -> Tensor:
        """The height of the disc's plane above the origin, in mm, at places along the canal's normal; none behind the origin."""
        return self.disc_up_mm * (behind_mm / min(self.disc_behind_mm, -1.0)).clamp(0.0, 2.0)

    @cached_property
    def steepest(self) -> float:
        """The largest slope of either border against the canal, in mm behind per mm up."""
        return max(abs(linear + 2 * square * up) for _, linear, square in (self.front_mm, self.back_mm) for up in (-14.0, 14.0))

    @cached_property
    def narrowest_up_mm(self) -> float:
        """The height at which the sac is shallowest."""
        front, back = self.borders_at(ROWS_MM)
        return float(ROWS_MM[int((back - front).argmin())])

    @property
    def depth_mm(self) -> float:
        """From the sac's front to its back at the disc's margin."""
        up = self.margin_up_mm
        return float(np.polyval(self.back_mm[::-1], up) - np.polyval(self.front_mm[::-1], up))

    def borders_at(self, up_mm: Tensor) -> tuple[Tensor, Tensor]:
        """The sac's front and back border at some heights, in mm behind the origin; beyond 14 mm as at 14 mm."""
        near = up_mm.clamp(-14.0, 14.0)
        (f0, f1, f2), (b0, b1, b2) = self.front_mm, self.back_mm
        return f0 + near * (f1 + f2 * near), b0 + near * (b1 + b2 * near)


def frames_of(discs: Mapping[Level, Point], canals: Mapping[Level, Point]) -> dict[Level, ColumnFrame]:
    """The column's axes at each level that has both points.

    Raises:
        LevelsNotFoundError: No level has a disc and a canal point, a point is no place, or they are no column (`check_column`).
    """
    for points in (discs, canals):
        check_column(points)
    found = [
        LevelPoint(level, discs[level], canals[level], confidence=1.0) for level in Level if level in discs and level in canals
    ]
    if not found:
        raise LevelsNotFoundError(
            f"No level has both a disc and a canal point ({len(discs)} discs, {len(canals)} canals): a lesion has no place. "
            "Give both, or let find_canals look for the canal on a T2 scan."
        )
    return column_frames(Levels(levels=tuple(found), vertebrae=()))


def check_column(points: Mapping[Level, Point]) -> None:
    """Make sure that points of levels, of discs or of the canal, RAS+ mm, lie below each other.

    Raises:
        LevelsNotFoundError: A point is no place, two lie at one place, or one that is named for a lower level lies above.
    """
    levels = [level for level in Level if level in points]
    for level in levels:
        if not all(map(math.isfinite, points[level])):
            raise LevelsNotFoundError(f"{level.label} is marked at {points[level]}, which is no place. Correct the point.")
    for above, below in itertools.pairwise(levels):
        if math.dist(points[above], points[below]) < _LEAST_SPACING_MM:
            raise LevelsNotFoundError(
                f"{above.label} and {below.label} are marked less than {_LEAST_SPACING_MM:g} mm apart: these are no two discs. "
                "Correct the points."
            )
        if points[below][2] >= points[above][2]:
            raise LevelsNotFoundError(f"{below.label} is marked above {above.label}. Correct the points' names.")


def find_sites(
    image: Tensor, affine: Affine, discs: Mapping[Level, Point], canals: Mapping[Level, Point]
) -> dict[Level, LevelSite]:
    """Measure the sac at each level of a sagittal T2 scan that has both points; levels whose sac is not seen are left out.

    Args:
        image: (i, j, k), in any orientation; a picture is a scan of one slice.
        affine: 4 × 4 to RAS+ mm.
        discs, canals: Centres of discs, and of the canal at their height.

    Raises:
        LevelsNotFoundError: No level has both points, or no sac is seen at any.
    """
    frames = frames_of(discs, canals)
    sites: dict[Level, LevelSite] = {}
    reasons = []
    for level, frame in frames.items():
        try:
            sites[level] = site_at(image, affine, frame, discs)
        except LevelsNotFoundError as error:
            reasons.append(str(error))
    if not sites:
        raise LevelsNotFoundError(f"No level shows a sac to narrow. {reasons[0]}")
    return sites


def site_at(image: Tensor, affine: Affine, frame: ColumnFrame, discs: Mapping[Level, Point]) -> LevelSite:
    """Measure one level, as `find_sites` does.

    Raises:
        LevelsNotFoundError: No sac is seen there.
    """
    known = [np.asarray(discs[level], dtype=float) for level in Level if level in discs]
    gaps = [float(np.linalg.norm(below - above)) for above, below in itertools.pairwise(known)]
    spacing = float(np.clip(np.median(gaps), 24.0, 46.0)) if gaps else 35.0
    return measure_site(image, affine, frame, discs[frame.level], spacing_mm=spacing)


def measure_site(image: Tensor, affine: Affine, frame: ColumnFrame, disc_ras_mm: Point, *, spacing_mm: float = 35.0) -> LevelSite:
    """Measure the sac at one level of a T2 scan.

    Args:
        image: (i, j, k), any float type and device.
        affine: 4 × 4 to RAS+ mm.
        frame: The column's axes there.
        disc_ras_mm: Centre of the disc.
        spacing_mm: Distance of neighbouring discs.

    Raises:
        LevelsNotFoundError: No sac is seen there: nothing bright of 6–26 mm depth between darker walls.
    """
    _, ahead, up = frame.offset_mm(disc_ras_mm, None)
    if not _CANAL_BEHIND_MM[0] < ahead < _CANAL_BEHIND_MM[1]:
        raise LevelsNotFoundError(_no_sac(frame.level, f"at its canal's point, {ahead:.0f} mm behind its disc"))
    patch = sac_patch(image, affine, frame)[0]
    wall, csf = wall_and_csf(patch)
    if not csf - wall > _LEAST_CONTRAST * max(abs(csf), abs(wall)):
        raise LevelsNotFoundError(_no_sac(frame.level, f"nowhere: all there is as bright as {csf:g}"))
    contrast = contrast_of(patch, wall, csf)
    centers = band_centers(contrast)
    front, back = borders_outwards(contrast, centers)
    depth = back - front
    plausible = (depth > _DEPTH_MM[0]) & (depth < _DEPTH_MM[1]) & (front > -15.9) & (back < 13.9)
    if int(plausible.sum()) < _LEAST_ROWS:
        raise LevelsNotFoundError(_no_sac(frame.level, f"on {int(plausible.sum())} of {len(ROWS_MM)} lines across the canal"))
    rows = ROWS_MM[plausible].double().numpy()
    fits = [border_fit(rows, line[plausible].double().cpu().numpy(), beyond) for line, beyond in ((front, 1.0), (back, 0.15))]
    site = LevelSite(frame, fits[0], fits[1], -ahead, up, 0.13 * spacing_mm, wall, csf)
    front_mm, back_mm = site.borders_at(torch.tensor(site.narrowest_up_mm))
    if site.steepest > _STEEPEST or float(back_mm - front_mm) < _LEAST_DEPTH_MM:
        raise LevelsNotFoundError(_no_sac(frame.level, "where its borders cross or lie aslant"))
    if not _DEPTH_MM[0] < site.depth_mm < _DEPTH_MM[1]:
        raise LevelsNotFoundError(_no_sac(frame.level, f"beside the disc, but {site.depth_mm:.1f} mm at its height"))
    return replace(site, base_share=_base_share(front, plausible, depth_mm=site.depth_mm, up_mm=site.margin_up_mm))


def _no_sac(level: Level, where: str) -> str:
    return (
        f"{level.label} shows no thecal sac: something bright, 6–26 mm deep, lies between dark walls {where}. "
        "Give a T2 scan whose level points lie in the canal, or leave the level out."
    )


def _base_share(front: Tensor, seen: Tensor, *, depth_mm: float, up_mm: float) -> float:
    """How far the sac's front at the disc stands behind the line through its front beside the disc, as a share of its depth."""
    away = (ROWS_MM - up_mm).abs()
    beside, here = seen & (away > 7), seen & (away < 3)
    if int(beside.sum()) < 6 or int(here.sum()) < 3:
        return 0.0
    line = np.polyfit(ROWS_MM[beside].numpy(), front[beside].numpy(), 1)
    return float(np.clip((float(front[here].median()) - np.polyval(line, up_mm)) / depth_mm, 0, 1))
