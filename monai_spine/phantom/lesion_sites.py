"""The place of a lesion: the column's frame at a disc, and the borders of the thecal sac, measured on T2 along the canal's normal.

Local coordinates at a level, in mm: *aside* from the canal's middle towards the patient's right, *behind* the canal's centre
(to the back), *up* along the canal. Nothing here moves a voxel; that is done in `lesion_fields.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from monai_spine.anatomy import Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point, invert_affine
from monai_spine.levels import LevelPoint, Levels
from monai_spine.placement import ColumnFrame, column_frames

__all__ = ["LevelSite", "find_canals", "frames_of", "measure_site", "sac_borders", "sac_patch", "sample_points"]

Floats = npt.NDArray[np.float64]

ROWS_MM = torch.arange(-14.0, 14.5, 1.0)
"""Heights at which the sac is measured."""
BEHIND_MM = torch.arange(-16.0, 14.25, 0.5)
"""Places along the canal's normal, behind its centre."""
ASIDE_MM = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
"""Sagittal planes in which the sac's section is measured."""
_WALL = 0.4
"""Share of the way from dark wall to CSF at which the sac ends: below a half, since roots lie grey at the sac's back."""
_WALL_MM = 1.5
"""What is dark over less than this is a root and no wall."""
_DEPTH_MM = (6.0, 26.0)
_LEAST_ROWS = 9
_TOLERANCE_MM = 1.5
_CANAL_BEHIND_DISC_MM = 24.0
_STIFFNESS = 600.0
"""How much a border's curvature (1/mm) costs, against millimetres off a line."""


@dataclass(frozen=True)
class LevelSite:
    """What is known of one level before a lesion.

    Attributes:
        frame: The column's axes; its origin is the canal's point.
        front_mm, back_mm: Coefficients (1, up, up²) of the sac's front and back border in the midline, in mm behind the origin;
            they hold for 14 mm above and below.
        disc_behind_mm: Where the centre of the disc lies, in mm behind the origin (negative: in front).
        disc_up_mm: Its height above the origin.
        disc_half_height_mm: Half of the height of the disc, taken as 13 % of the distance of neighbouring discs.
        base_share: How far the sac's front stands back at the disc already, as a share of the sac's depth.
    """

    frame: ColumnFrame
    front_mm: tuple[float, float, float]
    back_mm: tuple[float, float, float]
    disc_behind_mm: float
    disc_up_mm: float
    disc_half_height_mm: float
    base_share: float

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
    found = [LevelPoint(level, discs[level], canals[level], confidence=1.0) for level in Level if level in discs and level in canals]
    if not found:
        raise LevelsNotFoundError(
            f"No level has both a disc and a canal point ({len(discs)} discs, {len(canals)} canals): a lesion has no place. "
            "Give both, or let find_canals look for the canal on a T2 scan."
        )
    return column_frames(Levels(levels=tuple(found), vertebrae=()))


def measure_site(
    image: Tensor, affine: Affine, frame: ColumnFrame, disc_ras_mm: Point, *, spacing_mm: float = 35.0
) -> LevelSite:
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
    contrast = _contrast(_patch(image, affine, frame, (0.0,))[0])
    centers = _centers(contrast)
    front, back = _borders(contrast, centers)
    depth = back - front
    plausible = (depth > _DEPTH_MM[0]) & (depth < _DEPTH_MM[1]) & (front > -15.9) & (back < 13.9)
    if int(plausible.sum()) < _LEAST_ROWS:
        raise LevelsNotFoundError(
            f"{frame.level.label} shows no thecal sac: {int(plausible.sum())} of {len(ROWS_MM)} lines across the canal have "
            "something bright of 6–26 mm between dark walls. Give a T2 scan whose level points lie in the canal, or leave the level out."
        )
    _, ahead, up = frame.offset_mm(disc_ras_mm, None)
    rows = ROWS_MM[plausible].double().numpy()
    fits = [_robust_fit(rows, line[plausible].double().cpu().numpy(), beyond) for line, beyond in ((front, 1.0), (back, 0.15))]
    site = LevelSite(frame, fits[0], fits[1], -ahead, up, 0.13 * spacing_mm, base_share=0.0)
    return replace(site, base_share=_base_share(front, plausible, depth_mm=site.depth_mm, up_mm=up))


def _base_share(front: Tensor, seen: Tensor, *, depth_mm: float, up_mm: float) -> float:
    """How far the sac's front at the disc stands behind the line through its front beside the disc, as a share of its depth."""
    away = (ROWS_MM - up_mm).abs()
    beside, here = seen & (away > 7), seen & (away < 3)
    if int(beside.sum()) < 6 or int(here.sum()) < 3:
        return 0.0
    line = np.polyfit(ROWS_MM[beside].numpy(), front[beside].numpy(), 1)
    return float(np.clip((float(front[here].median()) - np.polyval(line, up_mm)) / depth_mm, 0, 1))


def sac_borders(
    image: Tensor, affine: Affine, site: LevelSite, *, expected_mm: tuple[Tensor, Tensor], aside_mm: Sequence[float] = ASIDE_MM
) -> tuple[Tensor, Tensor]:
    """The sac's borders on lines across the canal: walls are looked for outwards from the middle of where the sac should be.

    Args:
        image: (i, j, k).
        affine: 4 × 4 to RAS+ mm.
        site: The level as measured before.
        expected_mm: Front and back (planes, rows) where they should be, in mm behind the origin; what is found farther than
            `_TOLERANCE_MM` outside is not the sac's wall, and is brought back.
        aside_mm: The sagittal planes.

    Returns:
        Front and back (planes, rows) in mm behind the origin, equal where nothing bright lies between.
    """
    patches = _patch(image, affine, site.frame, aside_mm)
    middle_plane = min(range(len(aside_mm)), key=lambda plane: abs(aside_mm[plane]))
    contrast = _contrast(patches[middle_plane], patches)
    front, back = (border.cpu() for border in expected_mm)
    middle, half = (front + back) / 2, ((back - front) / 2).clamp_min(0.75)
    near = (BEHIND_MM - middle[..., None]).abs() <= half[..., None]
    centers = torch.where(near, contrast, contrast.new_tensor(-1.0)).argmax(-1)
    found_front, found_back = _borders(contrast, centers)
    low, high = front - _TOLERANCE_MM, back + _TOLERANCE_MM
    return found_front.clamp(low, high), found_back.clamp(low, high)


def sample_points(image: Tensor, affine: Affine, points_ras_mm: Tensor) -> Tensor:
    """Linear values of an image (i, j, k) at points (..., 3); beyond it its nearest voxel is repeated."""
    to_voxel = torch.as_tensor(invert_affine(affine), dtype=torch.float32, device=image.device)
    index = points_ras_mm.to(image.device, torch.float32) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    size = torch.tensor(image.shape, dtype=torch.float32, device=image.device)
    grid = ((2 * index + 1) / size - 1).flip(-1).reshape(1, 1, 1, -1, 3)
    values = grid_sample(image[None, None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.reshape(points_ras_mm.shape[:-1])


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
    scores = torch.stack([_band_score(image, affine, frames[level]) for level in levels])
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


def _band_score(image: Tensor, affine: Affine, frame: ColumnFrame) -> Tensor:
    """How bright a band of 11 mm is around each place behind, the usual place preferred."""
    rows = _contrast(_patch(image, affine, frame, (0.0,))[0]).clamp(0, 1).mean(0)
    width = 23
    band = torch.nn.functional.avg_pool1d(rows[None, None], width, stride=1, padding=width // 2, count_include_pad=False)[0, 0]
    return band - 0.004 * BEHIND_MM**2


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


def sac_patch(image: Tensor, affine: Affine, frame: ColumnFrame) -> Tensor:
    """Values (rows, places behind) in the midline around the canal, on the processor."""
    return _patch(image, affine, frame, (0.0,))[0]


def _patch(image: Tensor, affine: Affine, frame: ColumnFrame, aside_mm: Sequence[float]) -> Tensor:
    """Values (planes, rows, places behind) around the canal."""
    right, front, up = (torch.as_tensor(axis, dtype=torch.float32) for axis in (frame.right, frame.front, frame.up))
    origin = torch.tensor(frame.origin_ras_mm)
    planes = origin + torch.tensor(aside_mm)[:, None, None, None] * right
    points = planes + ROWS_MM[:, None, None] * up - BEHIND_MM[:, None] * front
    return sample_points(image, affine, points).cpu()


def _contrast(reference: Tensor, values: Tensor | None = None) -> Tensor:
    """0 at the darkest tissue around the canal, 1 at CSF; averaged over 3 mm along the canal."""
    inside = reference[:, BEHIND_MM.abs() <= 7]
    bright, dark = inside.quantile(0.92), reference.quantile(0.05)
    scaled = ((reference if values is None else values) - dark) / (bright - dark).clamp_min(1e-6)
    lines = scaled.reshape(-1, *scaled.shape[-2:])
    padded = torch.cat([lines[:, :1], lines, lines[:, -1:]], dim=1)
    return ((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3).reshape(scaled.shape)


def _centers(contrast: Tensor) -> Tensor:
    """Per row the middle of the brightest band of 9 mm, not far from the origin and smooth along the rows."""
    band = torch.nn.functional.avg_pool1d(contrast.clamp(0, 1)[:, None], 19, stride=1, padding=9, count_include_pad=False)[:, 0]
    return (band - 0.006 * BEHIND_MM**2).argmax(-1)


def _borders(contrast: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """First wall in front of and behind a place on each line (..., columns), to a fraction of a step."""
    step = float(BEHIND_MM[1] - BEHIND_MM[0])
    run = round(_WALL_MM / step)
    dark = contrast < _WALL
    walls = torch.nn.functional.pad(dark, (0, run - 1), value=True).unfold(-1, run, 1).all(-1)
    ahead = torch.nn.functional.pad(dark, (run - 1, 0), value=True).unfold(-1, run, 1).all(-1)
    front = _first_wall(ahead.flip(-1), contrast.flip(-1), len(BEHIND_MM) - 1 - centers)
    back = _first_wall(walls | _valleys(contrast), contrast, centers)
    nothing = torch.gather(contrast, -1, centers[..., None])[..., 0] < _WALL
    middle = BEHIND_MM[centers]
    front_mm, back_mm = -step * front - float(BEHIND_MM[0]), step * back + float(BEHIND_MM[0])
    front_mm = float(BEHIND_MM[-1]) + float(BEHIND_MM[0]) + front_mm
    return torch.where(nothing, middle, front_mm), torch.where(nothing, middle, back_mm)


def _first_wall(walls: Tensor, contrast: Tensor, centers: Tensor) -> Tensor:
    """Index, with its fraction, where the first wall beyond a place begins; the last index where there is none."""
    count = walls.shape[-1]
    places = torch.arange(count)
    beyond = walls & (places >= centers[..., None])
    found = torch.where(beyond, places, torch.tensor(count - 1)).min(-1).values.clamp_min(1)
    here, before = (torch.gather(contrast, -1, (found - shift)[..., None])[..., 0] for shift in (0, 1))
    fraction = ((_WALL - before) / (here - before - 1e-6)).clamp(0, 1)
    return found - 1 + fraction


def _valleys(contrast: Tensor) -> Tensor:
    """Where a wall too thin to be dark parts CSF from brighter fat behind it."""
    reach = 4
    lowest = -torch.nn.functional.max_pool1d(-contrast, 2 * reach + 1, stride=1, padding=reach)
    behind = torch.nn.functional.pad(contrast, (0, 2 * reach), value=0.0).unfold(-1, 2 * reach + 1, 1).amax(-1)
    return (contrast <= lowest) & (contrast < 0.65) & (behind > 1.1)


def _robust_fit(rows: Floats, values: Floats, beyond: float) -> tuple[float, float, float]:
    """A stiff parabola through points, outliers (Tukey's biweight) left aside.

    What lies farther behind than the curve weighs `beyond`: epidural fat, as bright as CSF, stands in bays behind the sac.
    """
    design = np.stack([np.ones_like(rows), rows, rows**2], axis=1)
    weights = (np.abs(values - np.median(values)) < 4).astype(float)
    fit = np.zeros(3)
    for _ in range(6):
        root = np.sqrt(weights)[:, None]
        penalty = np.diag([0.0, 0.0, _STIFFNESS])
        fit = np.linalg.lstsq(np.vstack([design * root, penalty]), np.concatenate([values * root[:, 0], np.zeros(3)]), rcond=None)[0]
        residual = values - design @ fit
        off = np.abs(residual)
        scale = max(4.7 * 1.48 * float(np.median(off)), 1.0)
        weights = np.clip(1 - (off / scale) ** 2, 0, 1) ** 2 * np.where(residual > 0, beyond, 1.0)
    c0, c1, c2 = (float(value) for value in fit)
    return c0, c1, c2
