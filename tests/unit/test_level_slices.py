"""Which sagittal slice shows a canal or a foramen, counted in the patient."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.anatomy import Level, Side
from monai_spine.geometry import affine_from_spacing, flip_axis
from monai_spine.level_slices import on_slices, slices_from_json, slices_json
from monai_spine.levels import LevelPoint, Levels, SagittalSlice
from monai_spine.volume import Volume

SHAPE = (9, 20, 30)
AFFINE = affine_from_spacing((4.0, 1.0, 1.0), center_ras_mm=(2.0, 0.0, 0.0), shape=SHAPE)
"""Slices at R -14, -10, … 18 mm."""
FORAMINA = {Side.LEFT: (-9.0, 0.0, 5.0), Side.RIGHT: (17.0, 0.0, 5.0)}
FOUND = LevelPoint(Level.L4_L5, (2.5, 4.0, 0.0), (2.5, -5.0, 0.0), 0.9, foramina_ras_mm=FORAMINA)


def slices_of(volume: Volume, found: LevelPoint = FOUND) -> dict[str, SagittalSlice]:
    return dict(on_slices(Levels((found,), ()), volume).levels[0].slices)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (0, 1, 2)])
def test_slices_count_from_the_patients_right_however_the_scan_is_stored(order, flips) -> None:
    array, affine = np.zeros(SHAPE, np.float32), AFFINE
    uids = [f"1.{step}" for step in range(9)]
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
        uids = uids[::-1] if axis == 0 else uids
    turn = np.zeros((4, 4))
    turn[[*order, 3], [0, 1, 2, 3]] = 1
    volume = Volume(np.transpose(array, order), affine @ turn, "1", tuple(uids), slice_axis=order.index(0))
    assert slices_of(volume) == {
        "canal": SagittalSlice(4, "1.4"), "left_foramen": SagittalSlice(7, "1.1"), "right_foramen": SagittalSlice(0, "1.8")
    }  # fmt: skip


def test_without_dicom_slices_have_a_number_alone() -> None:
    assert slices_of(Volume(np.zeros(SHAPE), AFFINE, slice_axis=0))["canal"] == SagittalSlice(4)


def test_slices_of_another_direction_lend_no_uid() -> None:
    """A scan acquired in axial slices can be cut into sagittal ones, which have no file of their own."""
    axial = Volume(np.zeros(SHAPE), AFFINE, "1", tuple(f"1.{step}" for step in range(30)), slice_axis=2)
    assert slices_of(axial)["canal"] == SagittalSlice(4)


def test_only_what_was_seen_has_a_slice() -> None:
    disc_alone = LevelPoint(Level.L4_L5, (2.5, 4.0, 0.0), None, 0.9)
    assert slices_of(Volume(np.zeros(SHAPE), AFFINE, slice_axis=0), disc_alone) == {}


def test_a_point_half_a_slice_beyond_the_last_one_lies_on_it() -> None:
    edge = LevelPoint(Level.L4_L5, (0.0, 4.0, 0.0), (19.9, 0.0, 0.0), 0.9)
    assert slices_of(Volume(np.zeros(SHAPE), AFFINE, slice_axis=0), edge)["canal"].number == 0


@pytest.mark.parametrize("uid", [None, "1.2.3"])
def test_slices_read_back_from_json(uid) -> None:
    found = LevelPoint(Level.L4_L5, (0.0, 0.0, 0.0), None, 0.9, slices={"canal": SagittalSlice(3, uid)})
    assert slices_from_json(slices_json(found)) == found.slices
    assert ("sagittal_sop_instance_uids" in slices_json(found)) is (uid is not None)
    assert slices_json(LevelPoint(Level.L4_L5, (0.0, 0.0, 0.0), None, 0.9)) == {}
