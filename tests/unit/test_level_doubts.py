"""What raises each flag, and that it is said with its values."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.anatomy import DISCS, Level
from monai_spine.geometry import affine_from_spacing, flip_axis
from monai_spine.level_doubts import SURE, Doubt, canal_doubt, column_doubts, column_flags, name_doubts, sacrum_doubts

NAMES = list(range(len(DISCS)))


def seen(*looks: int, trust: float = 0.8) -> np.ndarray:
    """Evidence of discs that look like these names, each with the rest of its probability spread over the others."""
    evidence = np.full((len(looks), len(DISCS)), (1 - trust) / (len(DISCS) - 1))
    evidence[np.arange(len(looks)), looks] = trust
    return evidence


def test_a_column_that_looks_as_it_is_named_raises_nothing():
    assert column_doubts(seen(*NAMES), NAMES) == ()


def test_one_disc_that_looks_like_its_neighbour_raises_nothing():
    assert column_doubts(seen(0, 1, 1, 3, 4, 5, trust=0.6), NAMES) == ()


def test_a_sixth_lumbar_body_is_suspected_where_the_upper_discs_look_one_lower():
    (doubt,) = column_doubts(seen(1, 2, 3, 3, 4, 5, trust=0.6), NAMES)
    assert (doubt.flag, doubt.level) == ("possible_transitional_anatomy", None)
    odds = ((0.6 + 0.02) / (0.4 / 5 + 0.02)) ** 3
    assert doubt.seen == (
        f"the discs above L3/L4 look one name lower than five lumbar bodies allow ({odds:.0f} times as likely): a sixth lumbar "
        "body or a lumbarised S1"
    )


def test_odds_beyond_what_can_be_trusted_are_not_counted_out():
    (doubt,) = column_doubts(seen(1, 2, 3, 4, 4, 5, trust=0.95), NAMES)
    assert "above L4/L5 look one name lower" in doubt.seen
    assert "(more than 1000 times as likely)" in doubt.seen


def test_four_lumbar_bodies_are_suspected_where_the_upper_discs_look_one_higher():
    (doubt,) = column_doubts(seen(0, 1, 3, 4, 5), [1, 2, 3, 4, 5])
    assert doubt.flag == "possible_transitional_anatomy"
    assert "the discs above L3/L4 look one name higher" in doubt.seen
    assert doubt.seen.endswith(": four lumbar bodies or a sacralised L5")


def test_names_that_are_all_as_likely_raise_nothing():
    assert column_doubts(np.full((6, 6), 1 / 6), NAMES) == ()


def test_discs_whose_looks_contradict_their_order_are_flagged():
    (doubt,) = column_doubts(seen(0, 1, 3, 2, 4, 5, trust=0.9), NAMES)
    assert doubt.flag == "out_of_order"
    assert doubt.seen == "the disc named L2/L3 looks like L3/L4 (0.90), one below it, named L3/L4, like L2/L3 (0.90)"


def test_two_contradictions_apart_from_each_other_are_compared_over_what_is_unsure():
    evidence = seen(0, 1, 4, 3, 2, 5, trust=0.9)
    evidence[3] = 1 / 6
    assert "the disc named L2/L3 looks like L4/L5 (0.90), one below it, named L4/L5, like L2/L3 (0.90)" in [
        doubt.seen for doubt in column_doubts(evidence, NAMES)
    ]


def test_a_single_disc_has_no_order():
    assert column_doubts(seen(3), [3]) == ()


def test_an_unsure_name_is_said_with_its_confidence_and_with_its_rivals():
    low, ambiguous = name_doubts(Level.L3_L4, [0.0, 0.01, 0.35, 0.41, 0.05, 0.0])
    assert low == Doubt("low_confidence", "0.41", Level.L3_L4)
    assert ambiguous == Doubt("numbering_ambiguous", "L3/L4 with 0.41, L2/L3 with 0.35, L4/L5 with 0.05", Level.L3_L4)
    assert name_doubts(Level.L3_L4, [0.0, 0.0, 0.19, 0.6, 0.0, 0.0]) == ()
    assert [doubt.flag for doubt in name_doubts(Level.L3_L4, [0.0, 0.0, 0.21, 0.6, 0.0, 0.0])] == ["numbering_ambiguous"]
    assert [doubt.flag for doubt in name_doubts(Level.L3_L4, [0.0, 0.0, 0.0, 0.49, 0.0, 0.0])] == ["low_confidence"]


def test_a_canal_that_is_not_seen_is_said_with_what_was_seen_in_its_place():
    weak = canal_doubt(Level.L3_L4, 0.08, needed=0.15, below_mm=20.0)
    assert weak.seen == "0.08 at the strongest place near where it should be, less than 0.15"
    above, below = (canal_doubt(Level.L3_L4, 0.4, needed=0.15, below_mm=mm).seen for mm in (-11.2, 9.8))
    assert above.endswith("where it should be, 11 mm above its disc")
    assert below.endswith("where it should be, 10 mm below its disc")


@pytest.mark.parametrize("flips", [(), (2,), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_missing_sacrum_is_said_with_how_much_of_the_scan_is_left_below(flips, order):
    """The scan ends at S -50 mm, 14 mm below the disc, whatever the order in which it is stored."""
    array, affine = np.zeros((4, 50, 90)), affine_from_spacing((4.0, 2.0, 1.5), center_ras_mm=(0, 0, 17.5), shape=(4, 50, 90))
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
    turn = np.zeros((4, 4))
    turn[[*order, 3], [0, 1, 2, 3]] = 1
    array, affine = np.transpose(array, order), affine @ turn
    (doubt,) = sacrum_doubts(Level.L4_L5, 0.9, (1.0, 2.0, -36.0), affine=affine, shape=array.shape)
    assert doubt == Doubt("sacrum_not_seen", "the lowest disc that was named is L4/L5, 14 mm above the scan's lower end")


def test_a_sacrum_that_is_not_surely_named_is_not_called_seen():
    (doubt,) = sacrum_doubts(Level.L5_S1, 0.31, (4.0, 4.0, 40.0), affine=np.eye(4), shape=(9, 9, 90))
    assert doubt == Doubt("sacrum_not_seen", "L5/S1 was named with a confidence of 0.31 only")
    assert sacrum_doubts(Level.L5_S1, SURE, (4.0, 4.0, 40.0), affine=np.eye(4), shape=(9, 9, 90)) == ()


def test_a_scan_that_ends_below_the_disc_shows_no_sacrum_however_sure_the_name():
    (doubt,) = sacrum_doubts(Level.L5_S1, 0.99, (4.0, 4.0, 14.5), affine=np.eye(4), shape=(9, 9, 90))
    assert doubt == Doubt("sacrum_not_seen", "the scan ends 15 mm below L5/S1")
    assert sacrum_doubts(Level.L5_S1, 0.99, (4.0, 4.0, 25.0), affine=np.eye(4), shape=(9, 9, 90)) == ()


def test_flags_of_a_column_are_its_own_and_those_of_the_names_of_graded_levels_each_once():
    doubts = [
        Doubt("sacrum_not_seen", ""),
        Doubt("low_confidence", "0.3", Level.T12_L1),
        Doubt("canal_not_seen", "", Level.L1_L2),
        Doubt("numbering_ambiguous", "", Level.T12_L1),
        Doubt("numbering_ambiguous", "", Level.L4_L5),
    ]
    assert column_flags(doubts) == ("sacrum_not_seen", "numbering_ambiguous")
    assert column_flags([*doubts, Doubt("low_confidence", "0.4", Level.L4_L5)])[-1] == "low_confidence"
