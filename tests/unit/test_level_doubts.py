"""Columns whose discs contradict the names that the sequence gives them."""

from __future__ import annotations

import numpy as np

from monai_spine.anatomy import DISCS
from monai_spine.level_doubts import column_doubts

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
    assert column_doubts(seen(1, 2, 3, 3, 4, 5), NAMES) == ("possible_transitional_anatomy",)


def test_four_lumbar_bodies_are_suspected_where_the_upper_discs_look_one_higher():
    assert column_doubts(seen(0, 1, 3, 4, 5), [1, 2, 3, 4, 5]) == ("possible_transitional_anatomy",)


def test_names_that_are_all_as_likely_raise_nothing():
    assert column_doubts(np.full((6, 6), 1 / 6), NAMES) == ()


def test_discs_whose_looks_contradict_their_order_are_flagged():
    assert "out_of_order" in column_doubts(seen(0, 1, 3, 2, 4, 5, trust=0.9), NAMES)


def test_a_single_disc_has_no_order():
    assert column_doubts(seen(3), [3]) == ()
