"""From the localiser's maps to candidates: places that may be discs, each with the evidence for every name it could bear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from monai_spine.geometry import Affine, Point, apply_affine, invert_affine, spacing_of

__all__ = ["Candidate", "LocalizerMaps", "find_candidates", "maximum_around", "peak_near"]

Maps = npt.NDArray[np.float32]

_SEPARATION_MM = 12.0
_CENTROID_RADIUS_MM = 12.0
_EVIDENCE_RADIUS_MM = 6.0
_MOST_SUMMITS = 100


@dataclass(frozen=True)
class LocalizerMaps:
    """The localiser's answer for one volume, as probabilities.

    Attributes:
        discs: (6, i, j, k), T12/L1 … L5/S1.
        canals: (6, i, j, k), T12/L1 … L5/S1.
        bodies: (6, i, j, k), L1 … L5, S1.
        affine: 4 × 4, voxel centre (i, j, k) to RAS+ mm.
        scan: Affine and voxels of the scan, where the maps' grid is not the scan's own; None: it ends where they end.
    """

    discs: Maps
    canals: Maps
    bodies: Maps
    affine: Affine
    scan: tuple[Affine, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Candidate:
    """A place that may be a disc.

    Attributes:
        point_ras_mm: Its centre, finer than a voxel.
        evidence: For each level of `DISCS`, the probability seen there, 0 to 1.
    """

    point_ras_mm: Point
    evidence: tuple[float, ...]


def find_candidates(maps: LocalizerMaps, *, threshold: float = 0.08, limit: int = 12) -> tuple[Candidate, ...]:
    """Peaks of the disc maps added up, from the head down: a disc that could bear two names is a disc all the same.

    Args:
        maps: The localiser's answer.
        threshold: Peaks below this probability are left out.
        limit: At most so many, the strongest ones.
    """
    any_disc = maps.discs.sum(axis=0)  # above 1 where names compete; cut there, a disc would be a plateau without a peak
    peaks = _peaks(any_disc, spacing_of(maps.affine), threshold)[:limit]
    found = []
    for peak in peaks:
        center = _centroid(any_disc, peak, maps.affine)
        place = _as_point(apply_affine(maps.affine, peak))
        evidence = maximum_around(maps.discs, maps.affine, around_ras_mm=place, reach_mm=_EVIDENCE_RADIUS_MM)
        found.append(Candidate(center, tuple(float(value) for value in evidence)))
    return tuple(sorted(found, key=lambda candidate: -candidate.point_ras_mm[2]))


def peak_near(channel: npt.NDArray[np.float32], affine: Affine, *, around_ras_mm: Point, reach_mm: float) -> tuple[Point, float]:
    """The strongest place of one map within a distance of a point, and its value; value 0 where the ball lies outside the map."""
    box, distance = _ball(around_ras_mm, affine, channel.shape, reach_mm)
    part = np.where(distance <= reach_mm, channel[box], 0.0)
    if part.size == 0 or part.max() <= 0:
        return around_ras_mm, 0.0
    offset = np.array([axis.start for axis in box])
    peak = np.asarray(np.unravel_index(int(part.argmax()), part.shape)) + offset
    return _centroid(channel, peak, affine), float(part.max())


def maximum_around(maps: Maps, affine: Affine, *, around_ras_mm: Point, reach_mm: float) -> npt.NDArray[np.float32]:
    """The largest value of each map (N, i, j, k) within a distance of a point; 0 where the ball lies outside."""
    box, distance = _ball(around_ras_mm, affine, maps.shape[1:], reach_mm)
    part = maps[:, box[0], box[1], box[2]]
    return np.asarray(np.where(distance <= reach_mm, part, 0.0).max((1, 2, 3), initial=0.0))


def _peaks(
    volume: npt.NDArray[np.float32], spacing_mm: tuple[float, float, float], threshold: float
) -> list[npt.NDArray[np.int64]]:
    """Voxels that are the largest within a box and above a threshold, strongest first; of two too near, the weaker goes."""
    above = np.argwhere(volume > threshold)
    if len(above) == 0:
        return []
    low, high = above.min(0), above.max(0) + 1
    part = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    size = tuple(2 * max(1, round(_SEPARATION_MM / 2 / edge)) + 1 for edge in spacing_mm)
    summits = np.argwhere((part > threshold) & (part == maximum_filter(part, size=size, mode="constant"))) + low
    summits = summits[np.argsort(-volume[tuple(summits.T)], kind="stable")][:_MOST_SUMMITS]
    kept: list[npt.NDArray[np.int64]] = []
    for summit in summits:
        if all(np.linalg.norm((summit - other) * np.asarray(spacing_mm)) > _SEPARATION_MM for other in kept):
            kept.append(summit)
    return kept


def _centroid(volume: npt.NDArray[np.float32], peak: npt.NDArray[np.int64], affine: Affine) -> Point:
    """Centre of mass of the squared values around a peak, of what exceeds a fifth of its height.

    The neighbourhood is an ellipsoid of 8 mm, wider along axes whose voxels are long, so that it holds at least three of them.
    """
    reach = np.maximum(_CENTROID_RADIUS_MM / np.asarray(spacing_of(affine)), 1.5)
    low = np.maximum(np.ceil(peak - reach), 0).astype(int)
    high = np.minimum(np.floor(peak + reach) + 1, volume.shape).astype(int)
    part = volume[tuple(slice(first, last) for first, last in zip(low, high, strict=True))]
    indices = np.stack(np.meshgrid(*(np.arange(first, last) for first, last in zip(low, high, strict=True)), indexing="ij"), -1)
    near = (((indices - peak) / reach) ** 2).sum(-1) <= 1
    weight = np.where(near & (part > 0.2 * volume[tuple(peak)]), part, 0.0).astype(float) ** 2
    return _as_point(apply_affine(affine, (indices * weight[..., None]).sum((0, 1, 2)) / weight.sum()))


def _as_point(values: npt.NDArray[np.float64]) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s


def _ball(
    center_ras_mm: Point, affine: Affine, shape: tuple[int, ...], radius_mm: float
) -> tuple[tuple[slice, slice, slice], npt.NDArray[np.float64]]:
    """The box of voxels around a point, and each voxel's distance from it in mm."""
    middle = apply_affine(invert_affine(affine), center_ras_mm)
    reach = radius_mm / np.asarray(spacing_of(affine))
    low = np.clip(np.ceil(middle - reach), 0, np.asarray(shape)).astype(int)
    high = np.clip(np.floor(middle + reach) + 1, low, np.asarray(shape)).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    indices = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    return (i, j, k), np.linalg.norm(apply_affine(affine, indices) - np.asarray(center_ras_mm), axis=-1)
