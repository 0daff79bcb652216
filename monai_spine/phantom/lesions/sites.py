"""The place of a lesion: the column's frame at a disc, and the thecal sac's borders there, measured on T2.

Local coordinates at a level, in mm: *aside* from the canal's middle towards the patient's right, *behind* the canal's centre
(to the back), *up* along the canal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_spine.anatomy import Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point
from monai_spine.levels import LevelPoint, Levels
from monai_spine.phantom.lesions.profiles import (
    BEHIND_MM,
    ROWS_MM,
    band_centers,
    band_score,
    border_fit,
    borders_outwards,
    contrast_of,
    sac_patch,
    wall_and_csf,
)
from monai_spine.placement import ColumnFrame, column_frames

__all__ = ["LevelSite", "find_canals", "find_sites", "frames_of", "measure_site", "site_at"]

Floats = npt.NDArray[np.float64]

_DEPTH_MM = (6.0, 26.0)
_LEAST_ROWS = 9
_CANAL_BEHIND_DISC_MM = 24.0


@dataclass(frozen=True)
class LevelSite:
    """What is known of one level before a lesion.

    Attributes:
        frame: The column's axes; its origin is the canal's point.
        front_mm, back_mm: Coefficients (1, up, up²) of the sac's front and back border in the midline, in mm behind the origin;
            they hold for 14 mm above and below.
        disc_behind_mm: Where the centre of the disc lies, in mm behind the origin (negative: in front).
        disc_up_mm: Its height above the origin.
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
    def depth_mm(self) -> float:
        """From the sac's front to its back at the disc's height."""
        up = self.disc_up_mm
        return float(np.polyval(self.back_mm[::-1], up) - np.polyval(self.front_mm[::-1], up))

    def borders_at(self, up_mm: Tensor) -> tuple[Tensor, Tensor]:
        """The sac's front and back border at some heights, in mm behind the origin; beyond 14 mm as at 14 mm."""
        near = up_mm.clamp(-14.0, 14.0)
        (f0, f1, f2), (b0, b1, b2) = self.front_mm, self.back_mm
        return f0 + near * (f1 + f2 * near), b0 + near * (b1 + b2 * near)


def frames_of(discs: Mapping[Level, Point], canals: Mapping[Level, Point]) -> dict[Level, ColumnFrame]:
    """The column's axes at each level that has both points.

    Raises:
        LevelsNotFoundError: No level has a disc and a canal point.
    """
    found = [
        LevelPoint(level, discs[level], canals[level], confidence=1.0) for level in Level if level in discs and level in canals
    ]
    if not found:
        raise LevelsNotFoundError(
            f"No level has both a disc and a canal point ({len(discs)} discs, {len(canals)} canals): a lesion has no place. "
            "Give both, or let find_canals look for the canal on a T2 scan."
        )
    return column_frames(Levels(levels=tuple(found), vertebrae=()))


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
    patch = sac_patch(image, affine, frame)[0]
    wall, csf = wall_and_csf(patch)
    contrast = contrast_of(patch, wall, csf)
    centers = band_centers(contrast)
    front, back = borders_outwards(contrast, centers)
    depth = back - front
    plausible = (depth > _DEPTH_MM[0]) & (depth < _DEPTH_MM[1]) & (front > -15.9) & (back < 13.9)
    if int(plausible.sum()) < _LEAST_ROWS:
        raise LevelsNotFoundError(_no_sac(frame.level, f"on {int(plausible.sum())} of {len(ROWS_MM)} lines across the canal"))
    _, ahead, up = frame.offset_mm(disc_ras_mm, None)
    rows = ROWS_MM[plausible].double().numpy()
    fits = [border_fit(rows, line[plausible].double().cpu().numpy(), beyond) for line, beyond in ((front, 1.0), (back, 0.15))]
    site = LevelSite(frame, fits[0], fits[1], -ahead, up, 0.13 * spacing_mm, wall, csf)
    if not _DEPTH_MM[0] < site.depth_mm < _DEPTH_MM[1]:
        raise LevelsNotFoundError(_no_sac(frame.level, f"beside the disc, but {site.depth_mm:.1f} mm at its height"))
    return replace(site, base_share=_base_share(front, plausible, depth_mm=site.depth_mm, up_mm=up))


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


def find_canals(image: Tensor, affine: Affine, discs: Mapping[Level, Point]) -> dict[Level, Point]:
    """Look for the canal behind discs on a T2 scan: the bright band, 10–40 mm behind them, that is smooth along the column.

    Args:
        image: (i, j, k).
        affine: 4 × 4 to RAS+ mm.
        discs: Centres of two discs at least.

    Raises:
        LevelsNotFoundError: There are fewer than two discs.
    """
    levels = [level for level in Level if level in discs]
    if len(levels) < 2:
        raise LevelsNotFoundError(
            f"{len(levels)} disc is marked: the column has no direction, and the canal cannot be looked for. Mark two at least."
        )
    centers = np.array([discs[level] for level in levels], dtype=float)
    fronts = _fronts(centers)
    guesses = centers - _CANAL_BEHIND_DISC_MM * fronts
    frames = frames_of(discs, {level: _point(guess) for level, guess in zip(levels, guesses, strict=True)})
    patches = [sac_patch(image, affine, frames[level])[0] for level in levels]
    scores = torch.stack([band_score(contrast_of(patch, *wall_and_csf(patch))) for patch in patches])
    behind = [float(BEHIND_MM[index]) for index in _smooth_path(scores)]
    return {
        level: _point(np.asarray(guess) - shift * frames[level].front)
        for level, guess, shift in zip(levels, guesses, behind, strict=True)
    }


def _point(values: Floats) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s


def _fronts(centers: Floats) -> Floats:
    """Towards the patient's front, perpendicular to the column, at each disc."""
    ups = -np.gradient(centers, axis=0)
    ups /= np.linalg.norm(ups, axis=1, keepdims=True)
    fronts = np.array([0.0, 1.0, 0.0]) - ups[:, 1:2] * ups
    return np.asarray(fronts / np.linalg.norm(fronts, axis=1, keepdims=True))


def _smooth_path(scores: Tensor) -> list[int]:
    """Viterbi: one place per level, each 2 mm of change between neighbours costs as much as a tenth of the contrast."""
    jump = 0.05 * (BEHIND_MM[:, None] - BEHIND_MM[None]).abs()
    total, back = scores[0], []
    for row in scores[1:]:
        best = (total[None] - jump).max(1)
        back.append(best.indices)
        total = best.values + row
    path = [int(total.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1]
