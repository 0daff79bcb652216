"""What a radiographer plans: three series per study, with the spread of slices and matrices of real lumbar studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS
from monai_spine.geometry import Triple
from monai_spine.phantom.scanner import Exposure, SliceStack
from monai_spine.phantom.spine import Spine
from monai_spine.phantom.tissues import (
    Sequence,
    sample_axial_t2,
    sample_sagittal_t1,
    sample_sagittal_t2,
    sample_stir,
    sample_water,
)

__all__ = ["PlannedSeries", "plan_study", "plan_water_image", "sample_exposure"]

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PlannedSeries:
    """One series: its role and description, its sequence and one or more stacks of slices."""

    role: str
    description: str
    sequence: Sequence
    exposure: Exposure
    stacks: tuple[SliceStack, ...]


def plan_study(spine: Spine, rng: np.random.Generator, *, max_matrix: int = 640) -> tuple[PlannedSeries, ...]:
    """Plan sagittal T1, sagittal T2 or STIR, and axial T2."""
    sagittal = _plan_sagittal(spine, rng, max_matrix)
    stir = rng.random() < 0.15
    fluid = sample_stir(rng) if stir else sample_sagittal_t2(rng)
    t1_stack = sagittal if rng.random() < 0.7 else _plan_sagittal(spine, rng, max_matrix)
    return (
        PlannedSeries("sagittal_t1", "Sagittal T1", sample_sagittal_t1(rng), sample_exposure(rng), (t1_stack,)),
        PlannedSeries("sagittal_t2", "Sagittal T2/STIR", fluid, sample_exposure(rng), (sagittal,)),
        PlannedSeries("axial_t2", "Axial T2", sample_axial_t2(rng), sample_exposure(rng), _plan_axial(spine, rng, max_matrix)),
    )


def plan_water_image(spine: Spine, rng: np.random.Generator, *, max_matrix: int = 640) -> tuple[PlannedSeries, ...]:
    """Plan one sagittal series with dark fat and dark marrow, as a localiser may meet it in other studies."""
    stack = _plan_sagittal(spine, rng, max_matrix)
    return (PlannedSeries("sagittal_t2", "Sagittal water image", sample_water(rng), sample_exposure(rng), (stack,)),)


def sample_exposure(rng: np.random.Generator) -> Exposure:
    """Noise, coil, shading, blur and brightness of one series."""
    return Exposure(
        noise=float(rng.uniform(0.004, 0.032)),
        coil_depth_mm=float(rng.uniform(55, 170)),
        shading=float(rng.uniform(0.0, 0.25)),
        blur_px=float(rng.uniform(0.4, 0.8)),
        peak=float(rng.uniform(250, 1600)),
    )


def _matrix(rng: np.random.Generator, field_mm: float, pixel_mm: float, max_matrix: int) -> tuple[int, int]:
    """Acquired and stored size along one edge of a square picture."""
    acquired = int(field_mm / pixel_mm) // 8 * 8
    stored = int(acquired * rng.choice([1.0, 1.25, 1.6])) // 8 * 8
    return min(acquired, max_matrix), min(max(stored, 192), max_matrix)


def _plan_sagittal(spine: Spine, rng: np.random.Generator, max_matrix: int) -> SliceStack:
    """A stack across the column, middle near L3/L4, slices from right to left or the other way."""
    step = 3.3 + 3.3 * float(rng.beta(2, 3.5))
    count = int(np.clip(np.round(rng.uniform(54, 96) / step), 8, 29))
    field = float(rng.uniform(240, 330))
    acquired, stored = _matrix(rng, field, float(rng.uniform(0.75, 1.05)), max_matrix)
    turn, nod = np.deg2rad(rng.normal(0, 2.0, 2))
    normal = np.array([np.cos(turn), np.sin(turn), np.sin(nod)])
    normal /= np.linalg.norm(normal)
    column = -np.array([0, 0, 1.0]) + normal * normal[2]
    column /= np.linalg.norm(column)
    row = np.cross(normal, column)  # towards the back
    row *= -np.sign(row[1])
    target = np.mean([spine.disc_point(level) for level in LEVELS], axis=0)
    middle = target + rng.normal([0, 5, 5], [2.5, 10, 12])
    offsets = (np.arange(count) - (count - 1) / 2) * step * rng.choice([-1, 1])
    return SliceStack(
        middle + offsets[:, None] * normal, _triple(row), _triple(column), (field, field), (acquired, acquired), (stored, stored),
        step * float(rng.uniform(0.8, 0.95)),
    )  # fmt: skip


def _plan_axial(spine: Spine, rng: np.random.Generator, max_matrix: int) -> tuple[SliceStack, ...]:
    """Half of the studies one straight stack from L1 to S1, the other half a block along each disc."""
    field = float(rng.uniform(160, 220))
    acquired, stored = _matrix(rng, field, float(rng.uniform(0.62, 0.85)), max_matrix)
    step = float(rng.uniform(3.6, 5.0))
    shape = ((field, field), (acquired, acquired), (stored, stored), step * float(rng.uniform(0.8, 0.95)))
    direction = int(rng.choice([-1, 1]))
    if rng.random() < 0.5:
        top, bottom = spine.canal_point(LEVELS[0])[2] + 16, spine.canal_point(LEVELS[-1])[2] - 14
        tilt = float(np.deg2rad(rng.normal(6, 4)))
        return (_axial_stack(np.asarray(spine.canal_point(LEVELS[2])), tilt, np.arange(bottom, top, step), shape, direction),)
    blocks = []
    for level in LEVELS:
        _, axes = spine.curve.frame_at(spine.disc_s_mm(level))
        tilt = float(np.arctan2(axes[2, 1], axes[2, 2])) + float(np.deg2rad(rng.normal(0, 3)))
        count = int(rng.integers(4, 7))
        center = np.asarray(spine.canal_point(level))
        heights = center[2] + (np.arange(count) - (count - 1) / 2) * step + rng.normal(0, 1.0)
        blocks.append(_axial_stack(center, tilt, heights, shape, direction))
    return tuple(blocks)


def _axial_stack(
    center: Floats,
    tilt_rad: float,
    heights_mm: Floats,
    shape: tuple[Any, ...],
    direction: int,
) -> SliceStack:
    """Slices whose normal leans forward by `tilt_rad`; patient's left is at the right of the picture."""
    normal = np.array([0, np.sin(tilt_rad), np.cos(tilt_rad)])
    column = np.array([0, -np.cos(tilt_rad), np.sin(tilt_rad)])
    middle = center + np.array([0, 12.0, 0])
    offsets = (heights_mm - center[2])[::direction]
    centers = middle + offsets[:, None] * normal
    return SliceStack(centers, (-1.0, 0.0, 0.0), _triple(column), *shape)


def _triple(vector: Floats) -> Triple:
    x, y, z = vector
    return float(x), float(y), float(z)
