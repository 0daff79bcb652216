"""Space: round trips for any affine, and mirroring that swaps sides, points and targets together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Severity, Side, Target
from monai_spine.errors import AnatomyError, VolumeGeometryError
from monai_spine.geometry import (
    Affine,
    Plane,
    PlaneOrientation,
    affine_from_spacing,
    apply_affine,
    check_affine,
    flip_axis,
    invert_affine,
    lies_inside,
    lps_from_ras,
    mirror_point,
    normal_of,
    plane_orientation,
    ras_from_lps,
    slice_affine,
    spacing_of,
    to_ras_axes,
)

ROUND_TRIP_MM = 1e-4

millimetres = st.floats(-1000, 1000)
points = st.tuples(millimetres, millimetres, millimetres)
spacings = st.tuples(*[st.floats(0.2, 10)] * 3)
indices = st.tuples(*[st.floats(-600, 600)] * 3)


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    """Any proper or improper rotation, from a quaternion and a permutation of signs."""
    w, x, y, z = draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
    w, x, y, z = np.array([w, x, y, z]) / np.linalg.norm([w, x, y, z])
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rotation * draw(st.sampled_from([(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]))


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Any placement of a grid: rotated, mirrored, anisotropic, slightly sheared, far from the origin."""
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = (draw(st.floats(-0.2, 0.2)) for _ in range(3))
    affine = np.eye(4)
    affine[:3, :3] = draw(rotations()) @ shear @ np.diag(draw(spacings))
    affine[:3, 3] = draw(points)
    return affine


@given(affines(), points)
def test_a_point_comes_back_from_voxels_within_a_ten_thousandth_of_a_millimetre(affine: Affine, point: tuple[float, ...]) -> None:
    back = apply_affine(affine, apply_affine(invert_affine(affine), point))
    assert np.abs(back - point).max() < ROUND_TRIP_MM


@given(affines(), indices)
def test_a_voxel_comes_back_from_millimetres(affine: Affine, index: tuple[float, ...]) -> None:
    back = apply_affine(invert_affine(affine), apply_affine(affine, index))
    assert np.linalg.norm(affine[:3, :3] @ (back - index)) < ROUND_TRIP_MM


@given(points)
def test_lps_and_ras_undo_each_other_exactly(point: tuple[float, ...]) -> None:
    assert tuple(lps_from_ras(ras_from_lps(point))) == point
    assert tuple(ras_from_lps(point) * (-1, -1, 1)) == point


@given(affines(), st.tuples(*[st.integers(1, 5)] * 3))
def test_reordered_axes_run_nearest_to_right_front_and_head_and_every_voxel_keeps_its_place(
    affine: Affine, shape: tuple[int, int, int]
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    turned, turned_affine = to_ras_axes(array, affine)
    for index in np.ndindex(turned.shape):
        stored = np.argwhere(array == turned[index])[0]
        assert np.abs(apply_affine(turned_affine, index) - apply_affine(affine, stored)).max() < ROUND_TRIP_MM
    directions = turned_affine[:3, :3] / np.linalg.norm(turned_affine[:3, :3], axis=0)
    assert (np.diag(directions) >= 0).all()


@given(affines(), st.tuples(*[st.integers(1, 4)] * 3))
def test_reordering_twice_changes_nothing_more(affine: Affine, shape: tuple[int, int, int]) -> None:
    once = to_ras_axes(np.zeros(shape), affine)
    twice = to_ras_axes(*once)
    assert twice[0].shape == once[0].shape
    assert np.allclose(twice[1], once[1])


@given(affines(), st.integers(0, 2))
def test_flipping_an_axis_twice_restores_array_and_affine(affine: Affine, axis: int) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    back, back_affine = flip_axis(*flip_axis(array, affine, axis), axis)
    assert np.array_equal(back, array)
    assert np.allclose(back_affine, affine, atol=1e-9)


@given(
    rotations(), points, st.tuples(st.floats(0.2, 2), st.floats(0.2, 2)), st.floats(0.5, 10), st.floats(0, 600), st.floats(0, 600)
)
def test_a_dicom_pixel_lies_where_the_standard_says(
    rotation: np.ndarray, corner: tuple[float, ...], spacing: tuple[float, float], gap: float, column: float, row: float
) -> None:
    across, down = rotation[:, 0], rotation[:, 1]
    normal = normal_of([*across, *down])
    affine = slice_affine(corner, [*across, *down], pixel_spacing_mm=spacing, step_lps_mm=normal * gap)
    expected = np.array(corner) + across * spacing[1] * column + down * spacing[0] * row + normal * gap * 3
    assert np.abs(lps_from_ras(apply_affine(affine, (column, row, 3))) - expected).max() < ROUND_TRIP_MM
    assert np.allclose(spacing_of(affine), (spacing[1], spacing[0], gap))


@given(points, spacings, st.tuples(*[st.integers(1, 64)] * 3))
def test_a_grid_is_centred_where_it_was_asked_for(
    center: tuple[float, ...], spacing: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    affine = affine_from_spacing(spacing, center_ras_mm=center, shape=shape)  # type: ignore[arg-type]
    assert np.abs(apply_affine(affine, (np.array(shape) - 1) / 2) - center).max() < ROUND_TRIP_MM


@given(rotations(), points, points)
def test_a_projected_point_lies_in_the_plane_and_nearest(
    rotation: np.ndarray, origin: tuple[float, float, float], point: tuple[float, ...]
) -> None:
    plane = Plane(origin, tuple(float(x) for x in rotation[:, 2]))  # type: ignore[arg-type]
    projected = plane.project(point)
    assert abs(plane.distance_mm(projected)) < ROUND_TRIP_MM
    assert np.linalg.norm(projected - point) == pytest.approx(abs(float(plane.distance_mm(point))), abs=ROUND_TRIP_MM)


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.full((4, 4), np.nan), np.eye(3), np.ones((4, 4))]
)
def test_an_affine_that_places_nothing_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(VolumeGeometryError, match=r"affine (is singular|holds values|has shape)"):
        check_affine(matrix)


@pytest.mark.parametrize(
    ("normal", "plane"),
    [
        ((-1, 0.1, 0), PlaneOrientation.SAGITTAL),
        ((0, 1, 0.5), PlaneOrientation.CORONAL),
        ((0, 0.6, -0.8), PlaneOrientation.AXIAL),
    ],
)
def test_a_slice_belongs_to_the_nearest_plane(normal: tuple[float, ...], plane: PlaneOrientation) -> None:
    assert plane_orientation(normal) is plane


@given(points, millimetres)
def test_mirroring_a_point_twice_restores_it(point: tuple[float, float, float], plane: float) -> None:
    assert np.allclose(mirror_point(mirror_point(point, plane_r_mm=plane), plane_r_mm=plane), point, atol=1e-9)


@given(st.sampled_from(TARGETS), points.filter(lambda point: abs(point[0]) > 1e-3))
def test_mirroring_swaps_side_point_and_target_together(target: Target, point: tuple[float, float, float]) -> None:
    mirrored, moved = target.mirrored, mirror_point(point)
    assert mirrored.mirrored == target
    assert (mirrored.condition, mirrored.level) == (target.condition, target.level)
    assert (moved[0] > 0) != (point[0] > 0)
    assert moved[1:] == point[1:]
    if target.side is None:
        assert mirrored == target
    else:
        assert mirrored.side is target.side.mirrored
        assert {target.slug.split("_")[0], mirrored.slug.split("_")[0]} == {"left", "right"}


def test_mirroring_permutes_the_targets() -> None:
    assert sorted((target.mirrored for target in TARGETS), key=lambda target: target.slug) == list(TARGETS)
    assert len(set(TARGETS)) == 25


def test_targets_stand_in_the_official_order() -> None:
    slugs = [target.slug for target in TARGETS]
    assert slugs == sorted(slugs)
    assert (slugs[0], slugs[-1]) == ("left_neural_foraminal_narrowing_l1_l2", "spinal_canal_stenosis_l5_s1")


@given(st.sampled_from(TARGETS))
def test_a_target_reads_back_from_its_slug(target: Target) -> None:
    assert Target.parse(target.slug.upper()) == target


@given(st.sampled_from([*Level, *Severity, *Side, *Condition]))
def test_every_name_reads_back_from_its_value_and_slug(name: Level | Severity | Side | Condition) -> None:
    assert type(name).parse(name.value) is name
    assert type(name).parse(name.slug) is name


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(AnatomyError, match=r"Unknown level 'L4L5'. Did you mean 'L4/L5'"):
        Level.parse("L4L5")


def test_a_target_outside_the_five_levels_or_without_its_side_is_refused() -> None:
    with pytest.raises(AnatomyError, match="T12/L1 is not graded"):
        Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.T12_L1)
    with pytest.raises(AnatomyError, match="subarticular stenosis has no side None"):
        Target(Condition.SUBARTICULAR_STENOSIS, None, LEVELS[0])


def test_severities_weigh_one_two_and_four() -> None:
    assert [(severity.index, severity.weight) for severity in Severity] == [(0, 1), (1, 2), (2, 4)]


@given(affines(), st.tuples(*[st.floats(-3, 12).filter(lambda value: abs(value % 1 - 0.5) > 1e-3)] * 3))
def test_a_point_lies_inside_a_grid_where_its_nearest_voxel_is_one_of_the_grids(affine: Affine, index: tuple[float, ...]) -> None:
    inside = all(0 <= round(value) < size for value, size in zip(index, (4, 6, 9), strict=True))
    assert lies_inside(apply_affine(affine, index), affine, (4, 6, 9)) == inside
    assert not lies_inside((np.nan, 0.0, 0.0), affine, (4, 6, 9))
