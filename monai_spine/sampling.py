"""Linear interpolation of a stored array on a turned grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.geometry import Affine

__all__ = ["sample_linear"]

Floats32 = npt.NDArray[np.float32]
Shape = tuple[int, int, int]


def sample_linear(array: Floats32, to_array: Affine, shape: Shape) -> Floats32:
    """Sample an array at the points of a grid; beyond the array its nearest voxel is repeated.

    Where one axis of the grid runs along one axis of the array (slices that a crop is cut along), each slice is sampled in its
    plane with the same weights and the slices are then blended, which is several times quicker and the same but for rounding.

    Args:
        array: (i, j, k) float32.
        to_array: 4 × 4, from grid indices to array indices.
        shape: Points of the grid.
    """
    pair = _own_axis(to_array, shape)
    return _sample_anywhere(array, to_array, shape) if pair is None else _sample_by_slice(array, to_array, shape, *pair)


def _own_axis(to_array: Affine, shape: Shape) -> tuple[int, int] | None:
    """The array's axis with the fewest voxels that one axis of the grid moves along, and moves along alone; with the grid's."""
    reach = np.abs(to_array[:3, :3]) * np.asarray(shape)
    for stored in np.argsort(reach.max(axis=1)):
        grid = int(np.argmax(reach[stored]))
        elsewhere = reach[stored].sum() + reach[:, grid].sum() - 2 * reach[stored, grid]
        if elsewhere < 1e-3:
            return int(stored), grid
    return None


def _sample_anywhere(array: Floats32, to_array: Affine, shape: Shape) -> Floats32:
    i, j, k = (torch.arange(size, dtype=torch.float32) for size in shape)
    positions = []
    for row in _normalised(to_array, array.shape):
        positions.append(row[0] * i[:, None, None] + (row[1] * j[:, None] + (row[2] * k + row[3])))
    grid = torch.stack(positions[::-1], dim=-1)[None]
    return np.asarray(_grid_sample(torch.from_numpy(np.ascontiguousarray(array))[None, None], grid)[0, 0].numpy())


def _sample_by_slice(array: Floats32, to_array: Affine, shape: Shape, stored: int, grid: int) -> Floats32:
    """Sample every slice of the axis `stored` in its plane, then blend slices along the axis `grid`."""
    rows = [axis for axis in range(3) if axis != stored]
    columns = [axis for axis in range(3) if axis != grid]
    first, second = (torch.arange(shape[axis], dtype=torch.float32) for axis in columns)
    weights = _normalised(to_array, array.shape)
    plane = [weights[row][columns[0]] * first[:, None] + (weights[row][columns[1]] * second + weights[row][3]) for row in rows]
    slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, stored, 0)))[None]
    in_plane = _grid_sample(slices, torch.stack(plane[::-1], dim=-1)[None])[0]
    last = array.shape[stored] - 1
    at = np.clip(to_array[stored, grid] * np.arange(shape[grid]) + to_array[stored, 3], 0, last)
    below = np.minimum(np.floor(at).astype(np.int64), max(last - 1, 0))
    share = torch.from_numpy((at - below).astype(np.float32))[:, None, None]
    upper = in_plane[torch.from_numpy(np.minimum(below + 1, last))]
    blended = torch.lerp(in_plane[torch.from_numpy(below)], upper, share)
    return np.ascontiguousarray(np.moveaxis(blended.numpy(), 0, grid))


def _normalised(to_array: Affine, array_shape: tuple[int, ...]) -> list[list[float]]:
    """Rows of the affine as `grid_sample` counts: from -1 to 1 between the outer edges of an axis."""
    return [
        [*(2 * float(value) / size for value in row[:3]), (2 * float(row[3]) + 1) / size - 1]
        for row, size in zip(to_array, array_shape, strict=False)
    ]


def _grid_sample(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Images (1, C, …) at a grid whose last axis counts the image's axes from the last to the first."""
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
