"""What is doubtful about a numbered column: more or fewer lumbar bodies than five, or names that contradict their order.

The numbering gives each disc the next name below its upper neighbour's. Here each disc's own evidence is held against that: where
the discs above some point would rather all bear the next name (or the one before), the column has one body more (or less) between
its ends than the names allow: a sixth or only four lumbar bodies, a lumbarised S1 or a sacralised L5.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["column_doubts"]

Floats = npt.NDArray[np.float64]

_FLOOR = 0.02
_ODDS = np.log(20.0)
_SURE = 0.5


def column_doubts(evidence: Floats | Sequence[Sequence[float]], names: Sequence[int]) -> tuple[str, ...]:
    """Flags of a column as a whole.

    Args:
        evidence: (N, names) probability of each name at each named disc, from the head down.
        names: The name that each of them was given, ascending.

    Returns:
        Of `possible_transitional_anatomy` and `out_of_order`, those that are raised.
    """
    seen, given = np.asarray(evidence, float).reshape(len(names), -1), np.asarray(names, int)
    flags = []
    if len(given) > 1 and max(_shift_gain(seen, given, step) for step in (-1, 1)) > _ODDS:
        flags.append("possible_transitional_anatomy")
    if _is_out_of_order(seen):
        flags.append("out_of_order")
    return tuple(flags)


def _shift_gain(evidence: Floats, names: npt.NDArray[np.int64], step: int) -> float:
    """Logarithm of how much likelier the names become if those above some point are moved by one; the best such point."""
    share = evidence / np.maximum(evidence.sum(1, keepdims=True), 1e-9)
    moved = names + step
    possible = (moved >= 0) & (moved < evidence.shape[1])
    rows = np.arange(len(names))
    own = np.log(share[rows, names] + _FLOOR)
    other = np.log(share[rows, np.clip(moved, 0, evidence.shape[1] - 1)] + _FLOOR)
    gain = np.where(possible, other - own, 0.0)
    return float(np.cumsum(gain)[:-1].max())


def _is_out_of_order(evidence: Floats) -> bool:
    """Whether a disc that surely bears a name lies below one that surely bears a lower name."""
    sure = [int(row.argmax()) for row in evidence if row.max() > _SURE * max(float(row.sum()), 1e-9) and row.max() > _SURE]
    return any(lower < upper for upper, lower in itertools.pairwise(sure))
