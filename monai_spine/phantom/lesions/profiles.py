"""The canal in profile: intensities on lines across it, and where on them the thecal sac begins and ends.

Lines run along the canal's normal, from front to back, one above the other, in planes beside one another; arrays are (planes,
rows, places). What lies grey or dark within the sac, roots and cord, belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, grid_sample, max_pool1d, pad

from monai_spine.geometry import Affine, invert_affine
from monai_spine.placement import ColumnFrame

__all__ = [
    "ASIDE_MM",
    "BEHIND_MM",
    "ROWS_MM",
    "band_centers",
    "band_score",
    "border_fit",
    "borders_outwards",
    "contrast_of",
    "csf_within",
    "first_and_last",
    "sac_patch",
    "sample_points",
    "wall_and_csf",
]

Floats = npt.NDArray[np.float64]

ROWS_MM = torch.arange(-14.0, 14.5, 1.0)
"""Heights at which the sac is measured."""
BEHIND_MM = torch.arange(-16.0, 14.25, 0.5)
"""Places along the canal's normal, behind its centre."""
ASIDE_MM = (-8.0, -4.0, 0.0, 4.0, 8.0)
"""Sagittal planes in which the sac's section is measured."""
WALL = 0.4
"""Share of the way from dark wall to CSF at which the sac ends: below a half, since roots lie grey at the sac's back."""
_WALL_MM = 1.5
"""What is dark over less than this is a root and no wall."""
_TOLERANCE_MM = 0.75
_STIFFNESS = 600.0
"""How much a border's curvature (1/mm) costs, against millimetres off a line."""


def sample_points(image: Tensor, affine: Affine, points_ras_mm: Tensor) -> Tensor:
    """Linear values of an image (i, j, k) at points (..., 3); beyond it its nearest voxel is repeated."""
    to_voxel = torch.as_tensor(invert_affine(affine), dtype=torch.float32, device=image.device)
    index = points_ras_mm.to(image.device, torch.float32) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    size = torch.tensor(image.shape, dtype=torch.float32, device=image.device)
    grid = ((2 * index + 1) / size - 1).flip(-1).reshape(1, 1, 1, -1, 3)
    values = grid_sample(image[None, None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.reshape(points_ras_mm.shape[:-1])


def sac_patch(image: Tensor, affine: Affine, frame: ColumnFrame, aside_mm: Sequence[float] = (0.0,)) -> Tensor:
    """Values (planes, rows, places) around the canal, on the processor."""
    right, front, up = (torch.as_tensor(axis, dtype=torch.float32) for axis in (frame.right, frame.front, frame.up))
    origin = torch.tensor(frame.origin_ras_mm)
    planes = origin + torch.tensor(tuple(aside_mm))[:, None, None, None] * right
    points = planes + ROWS_MM[:, None, None] * up - BEHIND_MM[:, None] * front
    return sample_points(image, affine, points).cpu()


def wall_and_csf(patch: Tensor) -> tuple[float, float]:
    """Intensity of the darkest tissue around the canal, and of what is bright within it."""
    inside = patch[:, BEHIND_MM.abs() <= 7].flatten().sort().values
    around = patch.flatten().sort().values
    return float(around[int(0.05 * len(around))]), float(inside[int(0.92 * len(inside))])


def contrast_of(values: Tensor, wall: float, csf: float) -> Tensor:
    """0 at the darkest tissue around the canal, 1 at CSF; averaged over 3 mm along the canal. Shape (…, rows, places)."""
    scaled = (values - wall) / max(csf - wall, 1e-6)
    lines = scaled.reshape(-1, *scaled.shape[-2:])
    padded = torch.cat([lines[:, :1], lines, lines[:, -1:]], dim=1)
    return ((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3).reshape(scaled.shape)


def band_score(contrast: Tensor) -> Tensor:
    """How bright a band of 11 mm is around each place (rows, places), over all rows; places near the origin are preferred."""
    rows = contrast.clamp(0, 1).mean(0)
    band = avg_pool1d(rows[None, None], 23, stride=1, padding=11, count_include_pad=False)[0, 0]
    return band - 0.004 * BEHIND_MM**2


def band_centers(contrast: Tensor) -> Tensor:
    """Per row the middle of the brightest band of 9 mm, not far from the origin and smooth along the rows."""
    band = avg_pool1d(contrast.clamp(0, 1)[:, None], 19, stride=1, padding=9, count_include_pad=False)[:, 0]
    return (band - 0.006 * BEHIND_MM**2).argmax(-1)


def borders_outwards(contrast: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """First wall in front of and behind a place on each line (..., columns), to a fraction of a step."""
    step = float(BEHIND_MM[1] - BEHIND_MM[0])
    run = round(_WALL_MM / step)
    dark = contrast < WALL
    walls = pad(dark, (0, run - 1), value=True).unfold(-1, run, 1).all(-1)
    ahead = pad(dark, (run - 1, 0), value=True).unfold(-1, run, 1).all(-1)
    front = _first_wall(ahead.flip(-1), contrast.flip(-1), len(BEHIND_MM) - 1 - centers)
    back = _first_wall(walls | _valleys(contrast), contrast, centers)
    nothing = torch.gather(contrast, -1, centers[..., None])[..., 0] < WALL
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
    fraction = ((WALL - before) / (here - before - 1e-6)).clamp(0, 1)
    return found - 1 + fraction


def _valleys(contrast: Tensor) -> Tensor:
    """Where a wall too thin to be dark parts CSF from brighter fat behind it."""
    reach = 4
    lowest = -max_pool1d(-contrast, 2 * reach + 1, stride=1, padding=reach)
    behind = pad(contrast, (0, 2 * reach), value=0.0).unfold(-1, 2 * reach + 1, 1).amax(-1)
    return (contrast <= lowest) & (contrast < 0.65) & (behind > 1.1)


def csf_within(contrast: Tensor, expected_mm: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Where CSF begins and ends on lines (..., places), looked for inwards from where it should.

    Args:
        contrast: Of `contrast_of`.
        expected_mm: Front and back (...) where they should be, in mm behind the origin; what is bright more than
            0.75 mm outside belongs to disc or fat.

    Returns:
        Front and back (...) in mm behind the origin, to a fraction of a step; both 0 where nothing bright lies between.
    """
    front, back = (border.cpu()[..., None] for border in expected_mm)
    bright = (contrast >= WALL) & (front - _TOLERANCE_MM <= BEHIND_MM) & (back + _TOLERANCE_MM >= BEHIND_MM)
    empty = ~bright.any(-1)
    places, step = torch.arange(len(BEHIND_MM)), float(BEHIND_MM[1] - BEHIND_MM[0])
    ends = []
    for index, outwards in ((places.where(bright, 999).amin(-1), -1), (places.where(bright, -1).amax(-1), 1)):
        index = index.clamp(0, len(BEHIND_MM) - 1)
        beyond = (index + outwards).clamp(0, len(BEHIND_MM) - 1)
        here, dark = (contrast.gather(-1, at[..., None])[..., 0] for at in (index, beyond))
        fraction = ((here - WALL) / (here - dark).clamp_min(1e-6)).clamp(0.0, 1.0)
        ends.append((BEHIND_MM[index] + outwards * step * fraction).masked_fill(empty, 0.0))
    return ends[0], ends[1]


def first_and_last(inside: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place of a mask (..., places) on each line, reaching half a step beyond; 0 twice where there is none."""
    empty = ~inside.any(-1)
    half = float(places[1] - places[0]) / 2
    low = torch.where(inside, places, torch.tensor(1e3)).amin(-1) - half
    high = torch.where(inside, places, torch.tensor(-1e3)).amax(-1) + half
    return low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)


def border_fit(rows: Floats, values: Floats, beyond: float) -> tuple[float, float, float]:
    """A stiff parabola through points, outliers (Tukey's biweight) left aside.

    What lies farther behind than the curve weighs `beyond`: epidural fat, as bright as CSF, stands in bays behind the sac.
    """
    design = np.stack([np.ones_like(rows), rows, rows**2], axis=1)
    penalty = np.diag([1e-6, 1e-3, _STIFFNESS**2])
    weights = (np.abs(values - np.quantile(values, 0.5, method="lower")) < 4).astype(float)
    fit = np.zeros(3)
    for _ in range(6):
        weighted = design * weights[:, None]
        fit = np.linalg.solve(weighted.T @ design + penalty, weighted.T @ values)
        residual = values - design @ fit
        off = np.abs(residual)
        scale = max(4.7 * 1.48 * float(np.median(off)), 1.0)
        weights = np.clip(1 - (off / scale) ** 2, 0, 1) ** 2 * np.where(residual > 0, beyond, 1.0)
    c0, c1, c2 = (float(value) for value in fit)
    return c0, c1, c2
