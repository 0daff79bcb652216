"""Crops: one block of a scan in millimetres around a point. Training and inference both cut them here and nowhere else.

A crop follows the scan's own axes, in their order nearest to R, A, S, so that angled axial blocks are cut along their slices and
not across. Index 0 grows from the patient's left to the right, 1 from back to front, 2 from foot to head. Where points lie in
relation to a level is in `placement.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Level
from monai_spine.errors import OutsideFieldOfViewError, WeightsError
from monai_spine.geometry import Affine, Plane, Point, Triple, apply_affine, flip_axis, invert_affine, to_ras_axes
from monai_spine.sampling import sample_linear
from monai_spine.volume import Volume

__all__ = [
    "Crop",
    "CropSpec",
    "Shape",
    "best_block",
    "coverage_of",
    "crop_affine",
    "crop_block",
    "local_grid",
    "neighbourhood",
    "project_to_slice",
    "resample_block",
]

Shape = tuple[int, int, int]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CropSpec:
    """What a grading bundle wants to see, as its `inference.json` says under `crop`.

    Attributes:
        role: The kind of series it is cut from, such as `sagittal_t2`.
        size_mm: Edges along R, A, S.
        shape: Voxels along R, A, S.
        mirror_right: The right side is shown as a left one.
        offset_mm: Per level, where the crop lies seen from the canal's centre: outwards, to the front, to the head, along the
            column's own axes (`placement.py`).
        min_coverage: Share of the crop that must lie inside the scan.
        on_slice: In inference the centre is moved along the slice normal onto the nearest slice, where readers set their points.
        at_foramen: In inference the crop lies as far outwards as the localiser saw the foramen. How far to the front and to
            the head readers set their points there, `offset_mm` says, and all three where no foramen was seen.
    """

    role: str
    size_mm: Triple
    shape: Shape
    mirror_right: bool
    offset_mm: Mapping[Level, Triple]
    min_coverage: float = 0.5
    on_slice: bool = False
    at_foramen: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CropSpec:
        """Read the `crop` section of a bundle's `inference.json`.

        Raises:
            WeightsError: An entry is missing, has no three values, or makes no crop.
        """
        try:
            offsets = {Level.parse(name): _triple(values) for name, values in config["offset_mm"].items()}
            i, j, k = (int(number) for number in config["shape"])
            spec = cls(
                role=str(config["role"]),
                size_mm=_triple(config["size_mm"]),
                shape=(i, j, k),
                mirror_right=bool(config["mirror_right"]),
                offset_mm=offsets,
                min_coverage=float(config.get("min_coverage", 0.5)),
                on_slice=bool(config.get("on_slice", False)),
                at_foramen=bool(config.get("at_foramen", False)),
            )
            spec._check()
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The crop section of the bundle's config cannot be used ({type(error).__name__}: {error}). "
                "It needs role, size_mm, shape, mirror_right and offset_mm per level."
            ) from error
        return spec

    def _check(self) -> None:
        if not all(count >= 1 for count in self.shape):
            raise ValueError(f"shape is {list(self.shape)}, not 1 voxel or more along each axis")
        if not all(0 < edge < np.inf for edge in self.size_mm):
            raise ValueError(f"size_mm is {list(self.size_mm)}, not above 0 along each axis")
        if not 0 <= self.min_coverage <= 1:
            raise ValueError(f"min_coverage is {self.min_coverage:g}, no share from 0 to 1")


@dataclass(frozen=True)
class Crop:
    """A resampled block.

    Attributes:
        array: Voxels (R, A, S), float32, in the scan's own intensities.
        affine: 4 × 4, voxel centre to RAS+ mm.
        coverage: Share of the block that lies inside the scan, 0 to 1.
    """

    array: npt.NDArray[np.float32]
    affine: Affine
    coverage: float

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """Voxels (1, R, A, S), as a network takes them before normalisation."""
        return self.array[None]

    def mirrored(self) -> Crop:
        """The same voxels with index 0 reversed: a right side that looks like a left one. Each voxel keeps its place in space."""
        array, affine = flip_axis(self.array, self.affine, 0)
        return replace(self, array=np.ascontiguousarray(array, np.float32), affine=affine)


def crop_block(volume: Volume, center_ras_mm: Point, *, size_mm: Triple, shape: Shape, min_coverage: float = 0.5) -> Crop:
    """Resample one block of a scan around a point, along the scan's own axes.

    Linear interpolation; where the scan is at least twice as fine as the crop, its voxels are averaged first. Outside of the scan
    the nearest voxel is repeated. Nothing is mirrored.

    Args:
        volume: Scan to sample, in any orientation and spacing.
        center_ras_mm: Centre of the block, RAS+ mm.
        size_mm: Edges of the block along R, A, S.
        shape: Voxels along R, A, S.
        min_coverage: Share of the block that must lie inside the scan.

    Raises:
        OutsideFieldOfViewError: Less than `min_coverage` of the block lies inside the scan.
    """
    affine = crop_affine(volume.affine, center_ras_mm, size_mm=size_mm, shape=shape)
    coverage = _coverage(volume, affine, shape)
    if coverage < min_coverage:
        edges = " × ".join(f"{edge:g}" for edge in size_mm)
        raise OutsideFieldOfViewError(
            f"only {100 * coverage:.0f} % of its {edges} mm block lies inside the scan "
            f"(at least {100 * min_coverage:.0f} % is needed). "
            "Choose a series that covers this level with --series, or leave it out with --levels."
        )
    return Crop(array=resample_block(volume, affine, shape), affine=affine, coverage=coverage)


def crop_affine(volume_affine: Affine, center_ras_mm: Point, *, size_mm: Triple, shape: Shape) -> Affine:
    """Affine of a block around a point whose axes are the scan's, made perpendicular, in the order nearest to R, A, S."""
    _, affine = to_ras_axes(np.empty((1, 1, 1)), volume_affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    result = np.eye(4)
    result[:3, :3] = left @ right * (np.asarray(size_mm) / np.asarray(shape))
    result[:3, 3] = np.asarray(center_ras_mm) - result[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return result


def resample_block(volume: Volume, affine: Affine, shape: Shape) -> npt.NDArray[np.float32]:
    """Sample a scan at the voxels of a grid, however it lies, as `crop_block` does, whatever the coverage.

    Args:
        volume: Scan to sample.
        affine: 4 × 4 of the grid, voxel to RAS+ mm.
        shape: Voxels of the grid.
    """
    to_voxel = invert_affine(volume.affine) @ affine
    array, to_array = _local_array(volume.array, to_voxel, shape)
    return sample_linear(array, to_array, shape)


def coverage_of(volume: Volume, center_ras_mm: Point, *, size_mm: Triple) -> float:
    """Share of a block around a point that lies inside the scan, to about 1 %. Voxels end half an edge beyond their centre."""
    shape = (16, 16, 16)
    return _coverage(volume, crop_affine(volume.affine, center_ras_mm, size_mm=size_mm, shape=shape), shape)


def best_block(volumes: Sequence[Volume], center_ras_mm: Point, *, size_mm: Triple) -> Volume:
    """The block that covers most of a crop; among equals the one with a slice nearest to the point. A single slice counts half.

    Raises:
        OutsideFieldOfViewError: There is no block at all.
    """
    if not volumes:
        raise OutsideFieldOfViewError("There is no block to cut from: the series is empty. Choose another one with --series.")

    def rank(volume: Volume) -> tuple[float, float]:
        covered = coverage_of(volume, center_ras_mm, size_mm=size_mm) / (2 if volume.is_single_slice else 1)
        return -round(covered, 2), _distance_to_slice_mm(volume, center_ras_mm)

    return min(volumes, key=rank)


def project_to_slice(point_ras_mm: Point, volume: Volume) -> Point:
    """Move a point along the slice normal onto the nearest slice (its plane goes on beyond the stack)."""
    r, a, s = _nearest_slice(volume, point_ras_mm).project(point_ras_mm)
    return float(r), float(a), float(s)


def neighbourhood(volume: Volume, *centers_ras_mm: Point, radius_mm: Triple) -> Volume:
    """A copy of the stored voxels around a point, or around all of several, so that crops near them can be cut without the rest.

    Args:
        volume: Scan, its array of any type or memory-mapped; the type is kept.
        centers_ras_mm: Centres, RAS+ mm.
        radius_mm: How far it reaches at least from each along the scan's own axes nearest to R, A, S.
    """
    size_mm = _triple(4 * np.asarray(radius_mm))
    blocks = np.stack([crop_affine(volume.affine, center, size_mm=size_mm, shape=(2, 2, 2)) for center in centers_ras_mm])
    ends = _bounds(invert_affine(volume.affine) @ blocks, (2, 2, 2), margin=1.5, array_shape=volume.array.shape)
    low, high = ends[0].min(axis=0), ends[1].max(axis=0)
    affine = volume.affine.copy()
    affine[:3, 3] = apply_affine(volume.affine, low)
    cut = np.array(volume.array[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))], order="C")
    return Volume(array=cut, affine=affine, series_instance_uid=volume.series_instance_uid, slice_axis=volume.slice_axis)


def _triple(values: Any) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


def local_grid(
    to_voxel: Floats, shape: Shape, *, array_shape: tuple[int, ...] | Indices
) -> tuple[Indices, Indices, Indices, Floats]:
    """Which stored voxels a grid needs, and how many become one before sampling, where they are finer than half of its step.

    Args:
        to_voxel: From the grid to stored voxels, (..., 4, 4): of one grid or of many at once.
        shape: Voxels of the grid.
        array_shape: Stored voxels, (..., 3).

    Returns:
        The first voxel, the box of voxels that become one, and how many boxes there are, (..., 3) each; then the affine from the
        grid to boxes, (..., 4, 4).
    """
    factors = _averaging(to_voxel)
    low, high = _bounds(to_voxel, shape, margin=1.0 + factors.max(axis=-1), array_shape=array_shape)
    factors = np.minimum(factors, high - low)
    to_local = np.zeros(to_voxel.shape)
    to_local[..., [0, 1, 2], [0, 1, 2]] = 1 / factors
    to_local[..., :3, 3] = -(low + (factors - 1) / 2) / factors
    to_local[..., 3, 3] = 1.0
    return low, factors, (high - low) // factors, to_local @ to_voxel


def _bounds(
    to_voxel: Floats, shape: Shape, *, margin: float | Floats, array_shape: tuple[int, ...] | Indices
) -> tuple[Indices, Indices]:
    """First voxel that a grid reaches and the one after its last, widened by a margin in voxels, within the array."""
    corners = np.stack(np.meshgrid(*([0, size - 1] for size in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    reached = corners @ np.swapaxes(to_voxel[..., :3, :3], -1, -2) + to_voxel[..., None, :3, 3]
    last = np.asarray(array_shape) - 1
    widened = np.asarray(margin)[..., None]
    low = np.clip(np.round(reached.min(axis=-2) - widened), 0, last).astype(np.int64)
    high = np.clip(np.round(reached.max(axis=-2) + widened), 0, last).astype(np.int64)
    return low, high + 1


def _local_array(array: npt.NDArray[Any], to_voxel: Affine, shape: Shape) -> tuple[npt.NDArray[np.float32], Affine]:
    """The voxels that a grid needs, averaged where they are finer than half of its step, and the affine from the grid to them."""
    low, factors, counts, to_local = local_grid(to_voxel, shape, array_shape=array.shape)
    high = low + counts * factors
    return _averaged(array[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))], factors), to_local


def _averaged(array: npt.NDArray[Any], factors: Indices) -> npt.NDArray[np.float32]:
    """Means of boxes of so many voxels, which divide the array evenly. Sums of strided views: ten times as fast as `mean`."""
    for axis, factor in enumerate(factors):
        start, *others = (array[(slice(None),) * axis + (slice(offset, None, factor),)] for offset in range(factor))
        total = start.astype(np.float32)
        for other in others:
            total += other
        array = total / factor if factor > 1 else total
    return np.asarray(array, dtype=np.float32)


def _averaging(to_voxel: Floats) -> Indices:
    """How many stored voxels along each axis become one before sampling: as many as fit into a step of the grid."""
    steps = np.abs(to_voxel[..., :3, :3]).max(axis=-1)
    return np.asarray(np.maximum(1, np.floor(steps + 1e-6)), dtype=np.int64)


def _coverage(volume: Volume, affine: Affine, shape: Shape) -> float:
    """Share of a grid's voxels inside the scan, counted on at most 16 of them along each axis.

    A scan of one slice stands for what lies beside it: where the grid's middle lies on the slice, its plane alone counts.
    """
    few = np.minimum(shape, 16)
    axes = [(np.arange(count) + 0.5) * size / count - 0.5 for count, size in zip(few, shape, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    index = apply_affine(invert_affine(volume.affine) @ affine, grid)
    inside = (index >= -0.5) & (index <= np.asarray(volume.array.shape) - 0.5)
    if volume.is_single_slice:
        inside[..., volume.slice_axis] |= abs(index[..., volume.slice_axis].mean()) <= 0.5
    return float(inside.all(axis=-1).mean())


def _nearest_slice(volume: Volume, point_ras_mm: Point) -> Plane:
    index = np.zeros(3)
    index[volume.slice_axis] = np.round(apply_affine(invert_affine(volume.affine), point_ras_mm)[volume.slice_axis])
    first, second = (volume.affine[:3, axis] for axis in range(3) if axis != volume.slice_axis)
    normal = np.cross(first, second)
    return Plane(_triple(apply_affine(volume.affine, index)), _triple(normal / np.linalg.norm(normal)))


def _distance_to_slice_mm(volume: Volume, point_ras_mm: Point) -> float:
    """Distance to the nearest slice that is there."""
    axis = volume.slice_axis
    index = apply_affine(invert_affine(volume.affine), point_ras_mm)[axis]
    return float(abs(index - np.clip(np.round(index), 0, volume.array.shape[axis] - 1)) * volume.spacing_mm[axis])
