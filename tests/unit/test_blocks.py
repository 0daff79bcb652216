"""Sorting slices into blocks by their positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_cases import AXIAL, SAGITTAL, normal_of, tilted_axial
from hypothesis import given
from hypothesis import strategies as st

from monai_spine.blocks import Block, plan_blocks
from monai_spine.errors import VolumeGeometryError
from monai_spine.instances import Frame


def _frame(
    place: float, orientation: tuple[float, ...] = AXIAL, *, shift: tuple[float, ...] = (0, 0, 0), **more: object
) -> Frame:
    position = tuple(float(x) for x in np.asarray(shift) + place * normal_of(orientation))
    facts = {"sop_instance_uid": f"{place}", "index": 0, "rows": 4, "columns": 4, "pixel_spacing_mm": (1.0, 1.0), **more}
    return Frame(path=Path("x.dcm"), position_lps_mm=position, orientation=orientation, **facts)  # type: ignore[arg-type]


def _stack(places: list[float], **more: object) -> list[Frame]:
    return [_frame(place, **more) for place in places]  # type: ignore[arg-type]


def _places(block: Block) -> list[float]:
    return [round(float(frame.center_lps_mm @ normal_of(frame.orientation or AXIAL)), 3) for frame in block.frames]


def _step(block: Block) -> float:
    return round(float(np.linalg.norm(block.step_lps_mm)), 3)


@given(st.permutations(range(9)), st.floats(0.5, 8), st.floats(-300, 300))
def test_the_order_of_files_never_matters(order: list[int], gap: float, start: float) -> None:
    (block,) = plan_blocks([_frame(start + gap * k, SAGITTAL) for k in order])
    places = [frame.position_lps_mm[0] for frame in block.frames if frame.position_lps_mm]
    assert np.allclose(np.diff(places) / gap, np.sign(places[-1] - places[0]), atol=0.02)
    assert np.linalg.norm(block.step_lps_mm) == pytest.approx(gap, rel=1e-6)
    assert block.flags == ()


def test_angled_blocks_are_parted_by_orientation() -> None:
    frames = [frame for tilt in (-10, 5, 25) for frame in _stack([0, 4, 8, 12], orientation=tilted_axial(tilt))]
    blocks = plan_blocks(frames[::-1])
    assert [len(block.frames) for block in blocks] == [4, 4, 4]
    assert all("3 orientations" in block.flags[0] for block in blocks)


def test_rounded_directions_stay_in_one_block() -> None:
    frames = [_frame(4.0 * k, (1.0, 0.0, 0.0, 0.0, 1.0, 1e-4 * k)) for k in range(5)]
    assert len(plan_blocks(frames)) == 1


def test_parallel_blocks_are_parted_at_the_gap_between_them_and_the_gap_is_named() -> None:
    blocks = plan_blocks(_stack([0, 4, 8, 30, 34, 38]))
    assert [_places(block) for block in blocks] == [[0, 4, 8], [30, 34, 38]]
    assert all(
        "22.00 mm between the slices at 8.00 and 30.00 mm, where others lie 4.00 mm apart" in block.flags[0] for block in blocks
    )


def test_a_missing_slice_splits_and_a_lone_slice_takes_its_neighbours_distance() -> None:
    blocks = plan_blocks(_stack([0, 10, 15, 20]))
    assert [_places(block) for block in blocks] == [[0], [10, 15, 20]]
    assert _step(blocks[0]) == 5
    assert "one slice stands alone" in blocks[0].flags[-1]


def test_stacks_of_different_spacing_become_blocks_of_their_own() -> None:
    blocks = plan_blocks(_stack([0, 4, 8, 30, 35, 40]))
    assert [(_places(block), _step(block)) for block in blocks] == [([0, 4, 8], 4), ([30, 35, 40], 5)]


def test_distances_that_form_no_grid_are_refused_and_named() -> None:
    with pytest.raises(
        VolumeGeometryError, match=r"uneven.*4.00 mm between the slices at 3.00 and 7.00 mm.*where others lie 3.00"
    ):
        plan_blocks(_stack([0, 3, 7, 12]))


def test_shifted_parallel_stacks_are_parted() -> None:
    frames = [*_stack([0, 4, 8]), *_stack([6, 10, 14], shift=(0, 12, 0)), *_stack([30, 34, 38], shift=(0, 5, 0))]
    assert [_places(block) for block in plan_blocks(frames)] == [[0, 4, 8], [6, 10, 14], [30, 34, 38]]


def test_overlapping_parallel_stacks_are_parted_by_acquisition() -> None:
    blocks = plan_blocks([*_stack([0, 4, 8, 12], acquisition="1"), *_stack([10, 14, 18], acquisition="2")])
    assert [_places(block) for block in blocks] == [[0, 4, 8, 12], [10, 14, 18]]
    assert "parted by acquisition" in blocks[0].flags[-1]


def test_a_sheared_stack_is_refused_with_its_shift() -> None:
    frames = [_frame(5.0 * k, shift=(0, 1.2 * k, 0)) for k in range(5)]
    with pytest.raises(VolumeGeometryError, match=r"sheared: each lies 0.240 mm aside .*13.5 degrees, 4.8 mm over the stack"):
        plan_blocks(frames)


def test_slices_at_one_position_are_no_volume() -> None:
    with pytest.raises(VolumeGeometryError, match=r"All 4 slices of one orientation lie at one position \(5.00 mm"):
        plan_blocks(_stack([5, 5, 5, 5]))


def test_a_position_taken_twice_is_resolved_and_flagged() -> None:
    frames = [*_stack([0, 4, 8], acquisition="1"), _frame(4, acquisition="2")]
    (block,) = plan_blocks(frames[::-1])
    assert [frame.acquisition for frame in block.frames] == ["1", "1", "1"]
    assert block.flags == ("1 of 4 slices left out: their positions are taken twice (at 4.0 mm along the normal)",)


def test_repeats_of_all_positions_become_volumes_by_echo() -> None:
    frames = [_frame(place, echo_time_ms=echo) for echo in (90.0, 20.0) for place in (0, 4, 8)]
    blocks = plan_blocks(frames)
    assert [{frame.echo_time_ms for frame in block.frames} for block in blocks] == [{20.0}, {90.0}]
    assert "volume 2 of 2" in blocks[1].flags[0]


def test_a_single_slice_has_its_stated_thickness_or_none() -> None:
    (stated,), (unstated,) = plan_blocks([_frame(0, slice_thickness_mm=3.5)]), plan_blocks([_frame(0)])
    assert (_step(stated), _step(unstated)) == (3.5, 1)
    assert stated.flags == ("one slice: its height is SliceThickness, 3.5 mm",)
    assert "one slice of unknown thickness" in unstated.flags[0]


def test_thickness_never_stands_in_for_a_distance() -> None:
    (block,) = plan_blocks(_stack([0, 4.4, 8.8], slice_thickness_mm=4.0))
    assert _step(block) == 4.4


def test_two_slices_are_flagged() -> None:
    (block,) = plan_blocks(_stack([0, 4]))
    assert block.flags == ("only 2 slices: their distance of 4.00 mm is confirmed by no third",)


def test_slices_without_a_position_are_left_out_or_refused() -> None:
    lost = Frame(Path("x.dcm"), "1", 0, 4, 4, None, None, None)
    (block,) = plan_blocks([*_stack([0, 4, 8]), lost])
    assert block.flags[0].startswith("1 of 4 slices left out")
    with pytest.raises(VolumeGeometryError, match="None of 1 slices says where it lies"):
        plan_blocks([lost])


def test_directions_that_are_no_unit_vectors_are_refused() -> None:
    with pytest.raises(VolumeGeometryError, match="no pair of perpendicular unit vectors"):
        plan_blocks(_stack([0, 4], orientation=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)))


def test_another_matrix_size_over_the_same_field_of_view_stays_in_the_block() -> None:
    fine = [_frame(place, rows=8, columns=8, pixel_spacing_mm=(0.5, 0.5), shift=(-0.25, -0.25, 0)) for place in (4, 12)]
    (block,) = plan_blocks([*_stack([0, 8]), *fine])
    assert _places(block) == [0, 4, 8, 12]
