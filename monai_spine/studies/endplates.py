"""Disc and canal points from masks of vertebral bodies, for sets that label bodies only.

Bodies are given as clouds of voxel centres, (N, 3) RAS+ mm. The column runs from head to foot; "down" is the direction from one
body to the next, "back" the direction in the sagittal plane perpendicular to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, Delaunay

from monai_spine.geometry import Affine, Point, apply_affine

__all__ = ["HALF_CANAL_DEPTH_MM", "HALF_L5_S1_HEIGHT_MM", "canal_behind", "disc_below", "disc_between", "mask_points"]

Cloud = npt.NDArray[np.float64]

HALF_L5_S1_HEIGHT_MM = 5.0
"""Half the mean height of L5/S1 in adults (10 mm; usual range 4–14, so that a point derived from it is off by up to 3 mm)."""

HALF_CANAL_DEPTH_MM = 8.5
"""Half the mean depth of the lumbar canal in adults (17 mm; 13–22)."""

_MIDLINE_HALF_WIDTH_MM = 10.0
_CORE_SHARE = 0.7


def mask_points(mask: npt.NDArray[np.bool_], affine: Affine) -> Cloud:
    """Centres of the voxels of a mask, (N, 3) RAS+ mm."""
    return np.asarray(apply_affine(affine, np.argwhere(mask)))


def disc_between(upper: Cloud, lower: Cloud) -> Cloud:
    """The gap between two neighbouring bodies: what their common convex hull holds beyond the hull of each.

    Returns:
        Points of the gap on a 2 mm grid, (M, 3) RAS+ mm; their mean is the disc's centre, midway between the facing endplates.

    Raises:
        ValueError: The bodies touch or are flat, so that there is no gap.
    """
    both = np.concatenate([upper, lower])
    low, high = (np.stack([upper.mean(0), lower.mean(0)]).min(0) - 25, np.stack([upper.mean(0), lower.mean(0)]).max(0) + 25)
    grid = np.stack(np.meshgrid(*(np.arange(a, b, 2.0) for a, b in zip(low, high, strict=True)), indexing="ij"), -1).reshape(
        -1, 3
    )
    gap = grid[_inside(both, grid)]
    gap = gap[~_inside(upper, gap)]
    gap = gap[~_inside(lower, gap)]
    down = _unit(lower.mean(0) - upper.mean(0))
    along = gap @ down
    gap = gap[(along > upper.mean(0) @ down) & (along < lower.mean(0) @ down)]
    if len(gap) < 10:
        raise ValueError(f"no gap between bodies centred at {upper.mean(0).round(1)} and {lower.mean(0).round(1)} mm")
    return np.asarray(gap)


def disc_below(body: Cloud, above_ras_mm: Point | Cloud) -> Point:
    """Where the centre of L5/S1 should lie when S1 is not labelled: half a mean disc height below the lower endplate of L5.

    Args:
        body: Voxel centres of L5.
        above_ras_mm: Centre of the disc above it.
    """
    down = _unit(body.mean(0) - np.asarray(above_ras_mm))
    for _ in range(4):
        endplate, down = _lower_endplate(body, down)
    return _as_point(endplate + HALF_L5_S1_HEIGHT_MM * down)


def _lower_endplate(body: Cloud, down: Cloud) -> tuple[Cloud, Cloud]:
    """Centre and outward normal of the lower surface, as seen along a first guess of its normal."""
    axes = np.stack([*_frame(down), down], 1)
    local = (body - body.mean(0)) @ axes
    columns, which = np.unique(np.round(local[:, :2] / 4).astype(int), axis=0, return_inverse=True)
    lowest = np.full(len(columns), -np.inf)
    np.maximum.at(lowest, which.ravel(), local[:, 2])
    places = columns * 4.0
    middle = (places.max(0) + places.min(0)) / 2
    core = (np.abs(places - middle) < _CORE_SHARE * (places.max(0) - places.min(0)) / 2).all(1)
    offset = places[core] - middle
    tilt_r, tilt_b, height = np.linalg.lstsq(np.column_stack([offset, np.ones(len(offset))]), lowest[core], rcond=None)[0]
    center = body.mean(0) + axes @ np.array([*middle, height])
    return center, _unit(axes @ np.array([-tilt_r, -tilt_b, 1.0]))


def canal_behind(disc_ras_mm: Point | Cloud, tissue: Cloud, down: Cloud) -> Point:
    """Where the centre of the canal should lie: half a mean canal depth behind the posterior margin at the disc's height.

    Args:
        disc_ras_mm: Centre of the disc.
        tissue: Voxel centres of the neighbouring bodies, (N, 3) RAS+ mm.
        down: Direction of the column at the disc.
    """
    disc = np.asarray(disc_ras_mm, dtype=float)
    right, back = _frame(_unit(down))
    offset = tissue - disc
    near = (np.abs(offset @ _unit(down)) < 16) & (np.abs(offset @ right) < _MIDLINE_HALF_WIDTH_MM)
    margin = np.quantile((offset @ back)[near], 0.98)
    return _as_point(disc + back * (margin + HALF_CANAL_DEPTH_MM))


def _inside(cloud: Cloud, points: Cloud) -> npt.NDArray[np.bool_]:
    hull = cloud[ConvexHull(cloud).vertices]
    return np.asarray(Delaunay(hull).find_simplex(points) >= 0)


def _frame(down: Cloud) -> tuple[Cloud, Cloud]:
    """Right and back, perpendicular to the column; `right` stays nearest to the patient's right."""
    back = _unit(np.cross(down, [1.0, 0.0, 0.0]))
    back = back if back[1] < 0 else -back
    right = _unit(np.cross(down, back))
    return (right if right[0] > 0 else -right), back


def _unit(vector: Cloud) -> Cloud:
    return np.asarray(vector / np.linalg.norm(vector))


def _as_point(values: Cloud) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s
