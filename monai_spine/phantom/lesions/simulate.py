"""Lesions moved and painted into images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from monai_spine.anatomy import Level
from monai_spine.geometry import Affine, apply_affine, check_affine, invert_affine
from monai_spine.phantom.lesions.fields import Local, canal_walls
from monai_spine.phantom.lesions.losses import CanalLoss, measure_losses
from monai_spine.phantom.lesions.plans import LevelLesions, along, between, from_local, to_local, turned
from monai_spine.phantom.lesions.signal import faded, grain, painted, tissue_levels

__all__ = ["SimulatedScan", "apply_lesions", "simulate_lesions"]

Floats = npt.NDArray[np.float64]
Fade = tuple[tuple[slice, ...], Tensor, float]

REACH_MM = ((-46.0, -50.0, -48.0), (46.0, 16.0, 48.0))
SLIP_REACH_MM = ((-70.0, -80.0, -48.0), (70.0, 60.0, 84.0))


@dataclass(frozen=True)
class SimulatedScan:
    """An image with lesions, and what each level's sac lost."""

    image: Tensor
    losses: Mapping[Level, CanalLoss]


def simulate_lesions(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> SimulatedScan:
    """Put lesions into a sagittal T2 scan, and measure what the sac loses at each of their levels.

    The loss is measured once tissue has moved and before CSF between crowded roots is dimmed, which follows from the loss.

    Args:
        image: (i, j, k), any numeric type; it is not changed.
        affine: 4 × 4 to RAS+ mm.
        plan: Lesions by level.

    Returns:
        The image as float32 on its own device, and the losses.

    Raises:
        ValueError: The image is not (i, j, k) or not finite, or a level of the plan lies outside it.
    """
    _check(image, affine, plan)
    moved, fade = _moved(image, affine, plan)
    losses = measure_losses(image, moved, affine, plan)
    return SimulatedScan(faded(moved, fade), losses)


def _check(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> None:
    if image.dim() != 3 or not bool(torch.isfinite(image).all()):
        raise ValueError(f"Lesions need an image (i, j, k) of finite values, got the shape {tuple(image.shape)}, or NaN.")
    to_voxel, size = invert_affine(affine), np.array(image.shape)
    for site in (entry.site for entry in plan):
        place = apply_affine(to_voxel, np.asarray(site.frame.origin_ras_mm))
        if (((place < -0.5) | (place > size - 0.5)) & (size > 1)).any():
            raise ValueError(f"{site.level.label} of the plan lies outside the image, on which its loss is to be measured.")


def apply_lesions(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> Tensor:
    """Put the same lesions into any series of the same study: T1, axial T2. Tissues take this series' own brightness."""
    moved, fade = _moved(image, affine, plan)
    return faded(moved, fade)


def _moved(image: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> tuple[Tensor, list[Fade]]:
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
    at = _grid(to_local(active[0].site.frame) @ to_ras, shape, image.device)
    frame, texture = active[0].site.frame, grain(at)
    for entry in active:
        at, frame = turned(at, between(frame, entry.site.frame)), entry.site.frame
        tissues = tissue_levels(result, affine, entry.site)
        taken = torch.zeros(shape, device=image.device)
        for lesion in entry.in_order[::-1]:
            moved = lesion.move(at, entry.site)
            if moved.paint is not None:
                strokes.append((moved.paint, tissues))
            if moved.taken_mm is not None:
                taken = taken + moved.taken_mm
            at = moved.source
        if tissues.shows_csf and bool((taken > 0).any()):
            front, depth = canal_walls(at, entry.site)
            within = torch.sigmoid((at.behind - front) / 0.4) * torch.sigmoid((front + depth - at.behind) / 0.4)
            fades.append((box, within * ((taken / depth - 0.4) / 0.5).clamp(0.0, 1.0), tissues.root))
    values = _sampled(result, invert_affine(affine) @ from_local(frame), at)
    for paint, tissues in strokes[::-1]:
        values = painted(values, paint, tissues, texture)
    result[box] = values
    return result, fades


def _box(shape: Sequence[int], affine: Affine, plan: Sequence[LevelLesions]) -> tuple[slice, ...]:
    """The voxels that lesions may reach."""
    corners = []
    for entry in plan:
        slips = any(lesion.order == 2 for lesion in entry.lesions)
        ends = np.array(SLIP_REACH_MM if slips else REACH_MM)
        lean = 2 * entry.site.disc_up_mm
        ends[:, 2] += min(lean, 0.0), max(lean, 0.0)
        box = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
        corners.append(box @ from_local(entry.site.frame)[:3, :3].T + from_local(entry.site.frame)[:3, 3])
    to_voxel = invert_affine(affine)
    index = np.concatenate(corners) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    low = np.clip(np.floor(index.min(0)), 0, None).astype(int)
    high = np.minimum(np.ceil(index.max(0)) + 1, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _grid(matrix: Floats, shape: tuple[int, ...], device: torch.device) -> Local:
    """Local coordinates of a grid's voxels."""
    i, j, k = (torch.arange(size, dtype=torch.float32, device=device) for size in shape)
    axes = i[:, None, None], j[:, None], k
    return Local(*(along(row, axes).expand(shape) for row in matrix[:3]))


def _sampled(image: Tensor, to_voxel: Floats, at: Local) -> Tensor:
    """Linear values of an image at local points; beyond it its nearest voxel is repeated."""
    rows = []
    for row, size in zip(to_voxel, image.shape, strict=False):
        scaled = row * 2 / size
        scaled[3] = (2 * row[3] + 1) / size - 1
        rows.append(along(scaled, (at.aside, at.behind, at.up)))
    grid = torch.stack(rows[::-1], dim=-1)[None]
    return grid_sample(image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
