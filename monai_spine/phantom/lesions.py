"""Lesions simulated on real or simulated anatomy: tissue is pushed into the canal by millimetres, and what the sac loses is measured.

    sites = find_sites(image, affine, discs, canals)                     where the sac is, on sagittal T2
    plan = [LevelLesions(sites[Level.L4_L5], (Protrusion(6.0), FlavumThickening(2.0)))]
    result = simulate_lesions(image, affine, plan)                       result.losses[Level.L4_L5].share
    axial = apply_lesions(axial_image, axial_affine, plan)               the same lesions on another series

These are simulations. No reader has seen them; nothing says that they look, or mean, what a patient's disease does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from monai_spine.anatomy import Level, Severity
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point, check_affine, invert_affine, lies_inside
from monai_spine.phantom.lesion_fields import Local, canal_walls
from monai_spine.phantom.lesion_kinds import Lesion, Moved
from monai_spine.phantom.lesion_signal import faded, painted, tissue_levels
from monai_spine.phantom.lesion_sites import (
    ASIDE_MM,
    BEHIND_MM,
    ROWS_MM,
    LevelSite,
    frames_of,
    measure_site,
    sac_borders,
)
from monai_spine.placement import ColumnFrame

__all__ = [
    "CanalLoss",
    "LevelLesions",
    "SimulatedScan",
    "apply_lesions",
    "find_sites",
    "measure_losses",
    "pull_points",
    "severity_of_share",
    "simulate_lesions",
]

Floats = npt.NDArray[np.float64]

_REACH_MM = ((-46.0, -50.0, -48.0), (46.0, 30.0, 48.0))
_SLIP_REACH_MM = ((-70.0, -80.0, -48.0), (70.0, 60.0, 84.0))
_NEAR_DISC_MM = 10.0
_LEAST_DEPTH_MM = 3.0


@dataclass(frozen=True)
class LevelLesions:
    """The lesions of one level, in whatever order."""

    site: LevelSite
    lesions: tuple[Lesion, ...]

    @property
    def in_order(self) -> tuple[Lesion, ...]:
        """As they come about."""
        return tuple(sorted(self.lesions, key=lambda lesion: lesion.order))


@dataclass(frozen=True)
class CanalLoss:
    """What the sac lost at one level, measured on the image before and after.

    Attributes:
        share: Of the sac's section at its narrowest, against the same place before; of its midline depth where one plane shows it.
        midline_share: Of its depth in the midline.
        planes: Sagittal planes of 3 mm in which the sac was measured.
        depth_before_mm, depth_after_mm: In the midline, where it is narrowest afterwards.
    """

    share: float
    midline_share: float
    planes: int
    depth_before_mm: float
    depth_after_mm: float

    @property
    def latent(self) -> float:
        """The phantom's latent of this share: 0 at a third, 1 at two thirds, held within a share of 0.02 and 0.98."""
        held = min(max(self.share, 0.02), 0.98)
        return 0.5 + math.log(held / (1 - held)) / math.log(4)

    @property
    def severity(self) -> Severity:
        return severity_of_share(self.share)


@dataclass(frozen=True)
class SimulatedScan:
    """An image with lesions, and what each level's sac lost."""

    image: Tensor
    losses: Mapping[Level, CanalLoss]


def severity_of_share(share: float) -> Severity:
    """The grade of a lost share of the sac: moderate from a third on, severe above two thirds.

    Raises:
        ValueError: The share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"A lost share must be in [0, 1], got {share:g}.")
    return (Severity.NORMAL_MILD, Severity.MODERATE, Severity.SEVERE)[(share >= 1 / 3) + (share > 2 / 3)]


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
    gaps = [float(np.linalg.norm(below - above)) for above, below in zip(known, known[1:], strict=False)]
    spacing = float(np.clip(np.median(gaps), 24.0, 46.0)) if gaps else 35.0
    return measure_site(image, affine, frame, discs[frame.level], spacing_mm=spacing)


def simulate_lesions(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> SimulatedScan:
    """Put lesions into a sagittal T2 scan, and measure what the sac loses at each of their levels.

    The loss is measured once tissue has moved and before CSF between crowded roots is dimmed, which follows from the loss.

    Args:
        image: (i, j, k), any numeric type; it is not changed.
        affine: 4 × 4 to RAS+ mm.
        plan: Lesions by level.

    Returns:
        The image as float32 on its own device, and the losses.
    """
    moved, fade = _moved(image, affine, plan)
    losses = measure_losses(image, moved, affine, plan)
    return SimulatedScan(faded(moved, fade), losses)


def apply_lesions(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> Tensor:
    """Put the same lesions into any series of the same study: T1, axial T2. Tissues take this series' own brightness."""
    moved, fade = _moved(image, affine, plan)
    return faded(moved, fade)


def pull_points(points: Local, chain: Sequence[LevelLesions], *, frame: ColumnFrame) -> Local:
    """Where the tissue at points came from, all in the frame of one level."""
    for entry in chain:
        points = _turned(points, _between(frame, entry.site.frame))
        for lesion in entry.in_order[::-1]:
            points = lesion.move(points, entry.site).source
        points = _turned(points, _between(entry.site.frame, frame))
    return points


def measure_losses(before: Tensor, after: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> dict[Level, CanalLoss]:
    """Measure what the sac lost at each level of a plan between two images on one grid."""
    return {entry.site.level: _loss(before, after, affine, entry.site, plan) for entry in plan}


def _loss(before: Tensor, after: Tensor, affine: Affine, site: LevelSite, plan: Sequence[LevelLesions]) -> CanalLoss:
    frame = site.frame
    points = np.asarray(frame.origin_ras_mm) + np.outer(ASIDE_MM, frame.right)
    planes = [aside for aside, inside in zip(ASIDE_MM, lies_inside(points, affine, before.shape), strict=True) if inside]
    aside = torch.tensor(planes or [0.0])
    grid = torch.meshgrid(aside, ROWS_MM, BEHIND_MM, indexing="ij")
    at = Local(grid[0], grid[2], grid[1])
    widths = []
    for image, chain in ((before, ()), (after, plan)):
        pulled = pull_points(at, chain, frame=frame)
        front, depth = canal_walls(pulled, site)
        expected = _inside(at.behind, (pulled.behind > front) & (pulled.behind < front + depth))
        found = sac_borders(image, affine, site, expected_mm=expected, aside_mm=aside.tolist())
        widths.append(_smoothed((found[1] - found[0]).clamp_min(0.0)))
    near = (ROWS_MM - site.disc_up_mm).abs() <= _NEAR_DISC_MM
    middle = int(aside.abs().argmin())
    full = widths[0][:, near].mean(1) >= _LEAST_DEPTH_MM
    full[middle] = True
    section = [width[full][:, near].sum(0) for width in widths]
    midline = [width[middle, near] for width in widths]
    narrowest = int((midline[1] / midline[0].clamp_min(1.0)).argmin())
    return CanalLoss(
        share=_lost(*section),
        midline_share=_lost(*midline),
        planes=int(full.sum()),
        depth_before_mm=float(midline[0][narrowest]),
        depth_after_mm=float(midline[1][narrowest]),
    )


def _lost(before: Tensor, after: Tensor) -> float:
    return float((1 - (after / before.clamp_min(1.0)).min()).clamp(0.0, 1.0))


def _inside(behind: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place of a mask on each line; the middle of the line twice where there is none."""
    empty = ~inside.any(-1)
    low = behind.masked_fill(~inside, 1e3).amin(-1)
    high = behind.masked_fill(~inside, -1e3).amax(-1)
    return low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)


def _smoothed(lines: Tensor) -> Tensor:
    """Means of three rows (planes, rows)."""
    return torch.nn.functional.avg_pool1d(lines[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]


def _moved(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> tuple[Tensor, list[tuple[tuple[slice, ...], Tensor, float]]]:
    """The image with tissues moved and painted, and what is to be dimmed: where, how much, and towards which value."""
    check_affine(affine)
    result = image.float().clone()
    active = [entry for entry in plan if entry.lesions]
    if not active:
        return result, []
    box = _box(image.shape, affine, active)
    if any(part.start >= part.stop for part in box):
        return result, []
    start = np.eye(4)
    start[:3, 3] = [part.start for part in box]
    shape = tuple(part.stop - part.start for part in box)
    to_ras, strokes, fades = affine @ start, [], []
    at = _grid(_to_local(active[0].site.frame) @ to_ras, shape, image.device)
    frame = active[0].site.frame
    for entry in active:
        at, frame = _turned(at, _between(frame, entry.site.frame)), entry.site.frame
        tissues = tissue_levels(result, affine, entry.site)
        taken = torch.zeros(shape, device=image.device)
        for lesion in entry.in_order[::-1]:
            moved: Moved = lesion.move(at, entry.site)
            if moved.paint is not None:
                strokes.append((moved.paint, at, tissues))
            if moved.taken_mm is not None:
                taken = taken + moved.taken_mm
            at = moved.source
        if tissues.shows_csf and bool((taken > 0).any()):
            front, depth = canal_walls(at, entry.site)
            within = torch.sigmoid((at.behind - front) / 0.4) * torch.sigmoid((front + depth - at.behind) / 0.4)
            fades.append((box, within * ((taken / depth - 0.4) / 0.5).clamp(0.0, 1.0), tissues.root))
    values = _sampled(result, invert_affine(affine) @ _from_local(frame), at)
    for paint, where, tissues in strokes[::-1]:
        values = painted(values, paint, where, tissues)
    result[box] = values
    return result, fades


def _box(shape: Sequence[int], affine: Affine, plan: Sequence[LevelLesions]) -> tuple[slice, ...]:
    """The voxels that lesions may reach."""
    corners = []
    for entry in plan:
        slips = any(lesion.order == 2 for lesion in entry.lesions)
        ends = np.array(_SLIP_REACH_MM if slips else _REACH_MM) + [0.0, 0.0, entry.site.disc_up_mm]
        box = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
        corners.append(box @ _from_local(entry.site.frame)[:3, :3].T + _from_local(entry.site.frame)[:3, 3])
    to_voxel = invert_affine(affine)
    index = np.concatenate(corners) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    low = np.clip(np.floor(index.min(0)), 0, None).astype(int)
    high = np.minimum(np.ceil(index.max(0)) + 1, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _from_local(frame: ColumnFrame) -> Floats:
    """4 × 4 from (aside, behind, up) to RAS+ mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([frame.right, -frame.front, frame.up], axis=1)
    matrix[:3, 3] = frame.origin_ras_mm
    return matrix


def _to_local(frame: ColumnFrame) -> Floats:
    return np.asarray(np.linalg.inv(_from_local(frame)))


def _between(start: ColumnFrame, end: ColumnFrame) -> Floats | None:
    return None if start is end else _to_local(end) @ _from_local(start)


def _turned(at: Local, matrix: Floats | None) -> Local:
    if matrix is None:
        return at
    return Local(*(_along(row, (at.aside, at.behind, at.up)) for row in matrix[:3]))


def _along(row: Floats, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    first, second, third, constant = (float(value) for value in row)
    return first * axes[0] + second * axes[1] + (third * axes[2] + constant)


def _grid(matrix: Floats, shape: tuple[int, ...], device: torch.device) -> Local:
    """Local coordinates of a grid's voxels."""
    i, j, k = (torch.arange(size, dtype=torch.float32, device=device) for size in shape)
    axes = i[:, None, None], j[:, None], k
    return Local(*(_along(row, axes).expand(shape) for row in matrix[:3]))


def _sampled(image: Tensor, to_voxel: Floats, at: Local) -> Tensor:
    """Linear values of an image at local points; beyond it its nearest voxel is repeated."""
    rows = []
    for row, size in zip(to_voxel, image.shape, strict=False):
        scaled = row * 2 / size
        scaled[3] = (2 * row[3] + 1) / size - 1
        rows.append(_along(scaled, (at.aside, at.behind, at.up)))
    grid = torch.stack(rows[::-1], dim=-1)[None]
    return grid_sample(image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
