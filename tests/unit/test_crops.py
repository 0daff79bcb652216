"""Crops are blocks in millimetres that follow the scan's own axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monai_spine.anatomy import Level
from monai_spine.crops import CropSpec, best_block, crop_affine, crop_block, neighbourhood, project_to_slice
from monai_spine.errors import OutsideFieldOfViewError, WeightsError
from monai_spine.geometry import Affine, apply_affine, flip_axis
from monai_spine.volume import Volume

SIZE = (24.0, 40.0, 40.0)
SHAPE = (12, 40, 40)


def sagittal_affine(tilt_deg: float = 0.0) -> Affine:
    """Slices as a sagittal series stores them: columns run to the back, rows to the foot, slices to the left."""
    affine = np.zeros((4, 4))
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (0, -0.8, 0), (0, 0, -0.8), (-4.0, 0, 0)
    affine[:, 3] = (30.0, 60.0, 80.0, 1.0)
    angle = np.radians(tilt_deg)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def ramp(affine: Affine, shape: tuple[int, int, int] = (120, 140, 16)) -> Volume:
    """A scan whose voxels hold R + 10 A + 100 S of their own place."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    return Volume(array=(apply_affine(affine, index) @ [1.0, 10.0, 100.0]).astype(np.float32), affine=affine)


@pytest.mark.parametrize("tilt_deg", [0.0, 12.0, -20.0])
def test_every_voxel_of_a_crop_holds_what_the_scan_shows_at_its_place(tilt_deg: float) -> None:
    volume = ramp(sagittal_affine(tilt_deg))
    center = tuple(apply_affine(volume.affine, (62, 75, 8)))
    crop = crop_block(volume, center, size_mm=SIZE, shape=SHAPE)
    places = apply_affine(crop.affine, np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1))
    assert crop.coverage == 1.0
    np.testing.assert_allclose(crop.array, places @ [1.0, 10.0, 100.0], atol=0.05)


def test_axes_grow_to_the_right_to_the_front_and_to_the_head() -> None:
    crop = crop_block(ramp(sagittal_affine()), (0.0, 0.0, 0.0), size_mm=SIZE, shape=SHAPE)
    steps = [float(np.diff(crop.array, axis=axis).mean()) for axis in range(3)]
    np.testing.assert_allclose(steps, [2.0, 10.0, 100.0], rtol=1e-3)


def test_the_middle_of_a_crop_is_its_point() -> None:
    affine = crop_affine(sagittal_affine(17.0), (3.0, -4.0, 5.0), size_mm=SIZE, shape=SHAPE)
    np.testing.assert_allclose(apply_affine(affine, (np.array(SHAPE) - 1) / 2), (3.0, -4.0, 5.0), atol=1e-9)


def test_a_crop_is_cut_along_the_slices_of_a_tilted_scan() -> None:
    volume_affine = sagittal_affine(15.0)
    affine = crop_affine(volume_affine, (0.0, 0.0, 0.0), size_mm=SIZE, shape=SHAPE)
    along_slices = -volume_affine[:3, 2] / np.linalg.norm(volume_affine[:3, 2])
    np.testing.assert_allclose(affine[:3, 0] / np.linalg.norm(affine[:3, 0]), along_slices, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_storage_order_does_not_change_a_crop(axis: int) -> None:
    volume = ramp(sagittal_affine(9.0))
    array, affine = flip_axis(volume.array, volume.affine, axis)
    stored_otherwise = Volume(array=np.asarray(array, np.float32), affine=affine)
    first = crop_block(volume, (1.0, 2.0, 3.0), size_mm=SIZE, shape=SHAPE)
    second = crop_block(stored_otherwise, (1.0, 2.0, 3.0), size_mm=SIZE, shape=SHAPE)
    np.testing.assert_allclose(first.array, second.array, atol=0.02)


def test_a_mirrored_crop_reverses_left_and_right_and_keeps_each_voxel_in_its_place() -> None:
    crop = crop_block(ramp(sagittal_affine()), (1.0, 2.0, 3.0), size_mm=SIZE, shape=SHAPE)
    mirrored = crop.mirrored()
    np.testing.assert_array_equal(mirrored.array, crop.array[::-1])
    np.testing.assert_allclose(apply_affine(mirrored.affine, (0, 5, 7)), apply_affine(crop.affine, (SHAPE[0] - 1, 5, 7)))


def test_a_crop_half_outside_is_refused_with_the_share_that_is_inside() -> None:
    volume = ramp(sagittal_affine())
    with pytest.raises(OutsideFieldOfViewError, match=r"only \d+ % of its 24 × 40 × 40 mm block lies inside"):
        crop_block(volume, (45.0, 0.0, 0.0), size_mm=SIZE, shape=SHAPE)


def test_outside_of_the_scan_the_nearest_voxel_is_repeated() -> None:
    volume = Volume(array=np.full((120, 140, 16), 7.0, np.float32), affine=sagittal_affine())
    crop = crop_block(volume, (26.0, 0.0, 0.0), size_mm=SIZE, shape=SHAPE)
    assert 0.5 < crop.coverage < 1.0
    np.testing.assert_allclose(crop.array, 7.0, rtol=1e-6)


def test_fine_scans_are_averaged_before_they_are_sampled() -> None:
    noise = np.random.default_rng(0).normal(size=(160, 160, 30)).astype(np.float32)
    volume = Volume(array=noise, affine=np.diag([0.25, 0.25, 1.0, 1.0]))
    crop = crop_block(volume, (20.0, 20.0, 15.0), size_mm=(30.0, 30.0, 20.0), shape=(30, 30, 20))
    assert float(crop.array.std()) < 0.4


def test_fine_scans_are_averaged_without_a_shift() -> None:
    affine = np.diag([0.25, 0.25, 1.0, 1.0])
    crop = crop_block(ramp(affine, (160, 160, 30)), (20.0, 20.0, 15.0), size_mm=(30.0, 30.0, 20.0), shape=(30, 30, 20))
    places = apply_affine(crop.affine, np.stack(np.meshgrid(*(np.arange(n) for n in (30, 30, 20)), indexing="ij"), axis=-1))
    np.testing.assert_allclose(crop.array, places @ [1.0, 10.0, 100.0], atol=0.05)


def test_a_neighbourhood_gives_the_same_crop_as_the_whole_scan() -> None:
    volume = ramp(sagittal_affine(9.0))
    near = neighbourhood(volume, (1.0, 2.0, 3.0), radius_mm=(14.0, 24.0, 24.0))
    assert near.array.size < volume.array.size / 2
    whole = crop_block(volume, (1.0, 2.0, 3.0), size_mm=SIZE, shape=SHAPE)
    part = crop_block(near, (1.0, 2.0, 3.0), size_mm=SIZE, shape=SHAPE)
    np.testing.assert_allclose(part.array, whole.array, atol=0.02)


def test_what_lies_around_several_points_gives_the_crops_at_each_of_a_tilted_scan() -> None:
    volume = ramp(sagittal_affine(20.0))
    centers = [tuple(apply_affine(volume.affine, index)) for index in ((55, 50, 8), (70, 90, 8))]
    near = neighbourhood(volume, *centers, radius_mm=(14.0, 24.0, 24.0))
    assert near.array.size < volume.array.size
    for center in centers:
        whole, part = (crop_block(scan, center, size_mm=SIZE, shape=SHAPE) for scan in (volume, near))
        np.testing.assert_allclose(part.array, whole.array, atol=0.02)


def test_a_point_moves_along_the_normal_onto_the_nearest_slice() -> None:
    volume = ramp(sagittal_affine())
    assert project_to_slice((3.0, 1.0, 2.0), volume) == pytest.approx((2.0, 1.0, 2.0))


def test_the_best_block_is_the_one_that_covers_most() -> None:
    upper = Volume(array=np.zeros((50, 50, 5), np.float32), affine=np.diag([1.0, 1.0, 4.0, 1.0]))
    shifted = np.diag([1.0, 1.0, 4.0, 1.0])
    shifted[2, 3] = -30.0
    lower = Volume(array=np.zeros((50, 50, 5), np.float32), affine=shifted)
    assert best_block([upper, lower], (25.0, 25.0, -22.0), size_mm=(20.0, 20.0, 16.0)) is lower
    with pytest.raises(OutsideFieldOfViewError, match="no block"):
        best_block([], (0.0, 0.0, 0.0), size_mm=SIZE)


def test_a_crop_section_without_a_size_is_refused() -> None:
    with pytest.raises(WeightsError, match="needs role, size_mm"):
        CropSpec.from_config({"role": "sagittal_t2", "offset_mm": {}, "shape": [1, 2, 3]})


def test_a_crop_section_is_read_by_level() -> None:
    spec = CropSpec.from_config(
        {"role": "axial_t2", "size_mm": [1, 2, 3], "shape": [4, 5, 6], "mirror_right": True, "offset_mm": {"L4/L5": [9, 0, 0]}}
    )
    assert spec.offset_mm == {Level.L4_L5: (9.0, 0.0, 0.0)}
    assert spec.shape == (4, 5, 6)


def test_a_single_slice_stands_for_what_lies_beside_it() -> None:
    slice_of = ramp(sagittal_affine(), (120, 140, 1))
    on_it, beside_it = (apply_affine(slice_of.affine, (62, 75, place)) for place in (0.4, 0.6))
    crop = crop_block(slice_of, tuple(on_it), size_mm=SIZE, shape=SHAPE)
    assert crop.coverage == 1.0
    np.testing.assert_array_equal(crop.array, np.broadcast_to(crop.array[:1], SHAPE))
    with pytest.raises(OutsideFieldOfViewError):
        crop_block(slice_of, tuple(beside_it), size_mm=SIZE, shape=SHAPE)


@pytest.mark.parametrize(("slices", "chosen"), [(4, "slices"), (2, "slice")])
def test_several_slices_go_before_a_single_one_where_they_show_half_of_the_crop(slices: int, chosen: str) -> None:
    few = replace(ramp(sagittal_affine(), (120, 140, slices)), series_instance_uid="slices")
    alone = replace(ramp(sagittal_affine(), (120, 140, 1)), series_instance_uid="slice")
    center = tuple(apply_affine(few.affine, (62, 75, 0)))
    assert best_block([alone, few], center, size_mm=SIZE).series_instance_uid == chosen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": [0, 32, 32]}, r"shape is \[0, 32, 32\], not 1 voxel or more"),
        ({"size_mm": [0, 0, 0]}, r"size_mm is \[0.0, 0.0, 0.0\], not above 0"),
        ({"size_mm": [-1, 2, 3]}, r"size_mm is \[-1.0, 2.0, 3.0\], not above 0"),
        ({"size_mm": ["inf", 2, 3]}, r"size_mm is \[inf, 2.0, 3.0\], not above 0"),
        ({"min_coverage": 50}, r"min_coverage is 50, no share from 0 to 1"),
    ],
)
def test_a_crop_of_nothing_is_refused(changes: dict[str, object], said: str) -> None:
    section = {"role": "sagittal_t2", "size_mm": [28, 40, 40], "shape": [16, 56, 56], "mirror_right": False, "offset_mm": {}}
    with pytest.raises(WeightsError, match=said):
        CropSpec.from_config({**section, **changes})
