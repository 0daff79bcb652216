"""Targets lie where the column's own axes put them, however the patient lies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from monai_spine.anatomy import LEVELS, Condition, Level, Side, Target
from monai_spine.errors import LevelsNotFoundError
from monai_spine.levels import LevelPoint, Levels
from monai_spine.placement import FORAMINAL_OFFSET_MM, SUBARTICULAR_OFFSET_MM, column_frames, target_point

LEFT = Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, Level.L3_L4)
RIGHT = LEFT.mirrored


def column(turn: Rotation | None = None, *, leave_out: tuple[Level, ...] = ()) -> Levels:
    """A lordotic column, turned about the origin."""
    turn = turn or Rotation.identity()
    points = []
    for at, level in enumerate(LEVELS):
        canal = np.array([0.0, -0.004 * (35.0 * (at - 2)) ** 2, -35.0 * (at - 2)])
        disc = canal + np.array([0.0, 24.0, 0.0])
        points.append(LevelPoint(level, tuple(turn.apply(disc)), tuple(turn.apply(canal)), 0.9))
    return Levels(levels=tuple(point for point in points if point.level not in leave_out), vertebrae=())


def test_left_lies_on_the_patients_left_and_right_on_the_right() -> None:
    left = target_point(LEFT, column(), offsets_mm=SUBARTICULAR_OFFSET_MM)
    right = target_point(RIGHT, column(), offsets_mm=SUBARTICULAR_OFFSET_MM)
    assert left == pytest.approx((-9.0, 0.0, 0.0), abs=1e-6)
    assert right == pytest.approx((9.0, 0.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("angles", [(0, 0, 25), (0, 30, 0), (15, 0, 0), (10, -20, 15)])
def test_points_turn_with_the_patient(angles: tuple[float, float, float]) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True)
    for target in (LEFT, RIGHT):
        straight = target_point(target, column(), offsets_mm=FORAMINAL_OFFSET_MM)
        turned = target_point(target, column(turn), offsets_mm=FORAMINAL_OFFSET_MM)
        np.testing.assert_allclose(turned, turn.apply(straight), atol=1e-6)


def test_foramina_lie_in_front_of_the_canal_and_above_the_disc() -> None:
    r, a, s = target_point(RIGHT, column(), offsets_mm=FORAMINAL_OFFSET_MM)
    assert 14 < r < 20
    assert 2 < a < 8
    assert 6 < s < 11


def test_an_offset_is_read_back() -> None:
    frame = column_frames(column())[Level.L4_L5]
    for side in Side:
        assert frame.offset_mm(frame.point((17.0, 5.0, 8.0), side), side) == pytest.approx((17.0, 5.0, 8.0))


def test_a_single_level_is_enough() -> None:
    others = tuple(level for level in LEVELS if level is not Level.L3_L4)
    left = target_point(LEFT, column(leave_out=others), offsets_mm=SUBARTICULAR_OFFSET_MM)
    assert left == pytest.approx((-9.0, 0.0, 0.0), abs=1e-6)


def test_a_level_that_was_not_found_is_named() -> None:
    with pytest.raises(LevelsNotFoundError, match="L3/L4 was not found"):
        target_point(LEFT, column(leave_out=(Level.L3_L4,)), offsets_mm=SUBARTICULAR_OFFSET_MM)


def test_a_level_without_a_canal_has_no_frame() -> None:
    levels = column()
    unseen = LevelPoint(Level.L3_L4, (0.0, 24.0, 0.0), None, 0.9)
    levels = Levels(tuple(unseen if point.level is Level.L3_L4 else point for point in levels.levels), ())
    assert Level.L3_L4 not in column_frames(levels)
