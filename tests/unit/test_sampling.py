"""Slice-wise sampling is quicker and gives what sampling anywhere gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from monai_spine.geometry import apply_affine
from monai_spine.sampling import sample_linear

SHAPE = (8, 20, 24)


def turned(axis: int, degrees: float) -> np.ndarray:
    """Grid to array: a turn about one axis of the grid, another step on each axis, axes in another order."""
    angle = np.radians(degrees)
    first, second = (at for at in range(3) if at != axis)
    turn = np.eye(4)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    order = np.eye(4)[[2, 1, 0, 3]]
    result = order @ turn @ np.diag([0.6, 1.2, 0.9, 1.0])
    result[:3, 3] = (2.3, 7.1, 1.4)
    return result


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [0.0, 9.0, -31.0])
def test_samples_are_those_of_scipy(axis: int, degrees: float) -> None:
    array = np.random.default_rng(1).normal(size=(30, 34, 7)).astype(np.float32)
    to_array = turned(axis, degrees)
    places = apply_affine(to_array, np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), axis=-1))
    expected = map_coordinates(array, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    np.testing.assert_allclose(sample_linear(array, to_array, SHAPE), expected, atol=2e-4)


def test_a_grid_that_is_turned_about_two_axes_is_sampled_too() -> None:
    array = np.random.default_rng(2).normal(size=(30, 34, 17)).astype(np.float32)
    to_array = turned(0, 20.0) @ turned(1, 15.0) * 0.7
    to_array[3] = (0, 0, 0, 1)
    places = apply_affine(to_array, np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), axis=-1))
    expected = map_coordinates(array, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    np.testing.assert_allclose(sample_linear(array, to_array, SHAPE), expected, atol=2e-4)


def test_a_single_slice_is_repeated() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    sampled = sample_linear(array, np.eye(4), (3, 4, 5))
    np.testing.assert_allclose(sampled, np.repeat(array, 5, axis=2))
