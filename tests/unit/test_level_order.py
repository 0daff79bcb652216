"""Heights of levels along the column: order, exchanged names, and columns named one level off."""

from __future__ import annotations

import pytest

from monai_spine.anatomy import LEVELS, Level
from monai_spine.studies.level_order import descending, shift_between, untangle

TRUE = {level: -35.0 * at for at, level in enumerate(LEVELS)}
FORAMINA = {level: height + 9 for level, height in TRUE.items()}
L1, L2, L3, L4, L5 = LEVELS


def exchanged(first: Level, second: Level) -> dict[Level, float]:
    return {**TRUE, first: TRUE[second], second: TRUE[first]}


def test_levels_descend_by_more_than_a_step() -> None:
    assert descending(TRUE, 5)
    assert not descending({**TRUE, L2: TRUE[L1] - 4}, 5)
    assert descending({L1: 0.0, L5: -100.0}, 5)


def test_two_exchanged_names_are_exchanged_back_where_the_ladder_shows_it() -> None:
    assert untangle(exchanged(L3, L4), FORAMINA, step_mm=5) == ({L3: L4, L4: L3}, ())


def test_exchanged_names_without_a_ladder_are_all_set_aside() -> None:
    assert untangle(exchanged(L3, L4), {}, step_mm=5) == ({}, (L3, L4))


@pytest.mark.parametrize("wrong", LEVELS)
def test_one_misplaced_point_is_set_aside_alone(wrong: Level) -> None:
    place = 200.0 if wrong is not L1 else -300.0
    assert untangle({**TRUE, wrong: place}, FORAMINA, step_mm=5) == ({}, (wrong,))


def test_a_point_above_the_spine_does_not_rename_all_others() -> None:
    heights = {**TRUE, L5: 35.0}
    assert untangle(heights, FORAMINA, step_mm=5) == ({}, (L5,))


def test_of_two_points_at_one_height_the_ladder_tells_the_wrong_one() -> None:
    assert untangle({**TRUE, L1: TRUE[L2]}, FORAMINA, step_mm=5) == ({}, (L1,))
    assert untangle({**TRUE, L2: TRUE[L1]}, FORAMINA, step_mm=5) == ({}, (L2,))


@pytest.mark.parametrize(("offset", "shift"), [(0.0, 0), (-35.0, 1), (35.0, -1), (17.5, None)])
def test_a_shift_by_one_level_is_told_from_none(offset: float, shift: int | None) -> None:
    assert shift_between({level: height + offset for level, height in TRUE.items()}, TRUE) == shift


def test_two_shared_levels_tell_no_shift() -> None:
    assert shift_between({L1: 0.0, L2: -35.0}, TRUE) is None
