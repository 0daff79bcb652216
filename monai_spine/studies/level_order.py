"""The order of levels along the column: heights of points by level, in mm along S, which fall from L1/L2 to L5/S1."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, pairwise

import numpy as np

from monai_spine.anatomy import LEVELS, Level

__all__ = ["Heights", "descending", "shift_between", "untangle"]

Heights = Mapping[Level, float]

NEAR_MM = 14.0
"""Points of one level by different conditions lie nearer in height than this: half of the smallest distance of levels."""
_MIN_SHARED = 3


def descending(heights: Heights, step_mm: float) -> bool:
    """Whether each level lies lower than the one above it, by more than a step."""
    found = [heights[level] for level in LEVELS if level in heights]
    return all(upper - lower > step_mm for upper, lower in pairwise(found))


def untangle(heights: Heights, ladder: Heights, *, step_mm: float) -> tuple[dict[Level, Level], tuple[Level, ...]]:
    """What puts points in order that do not descend: other names for some, or some of them left out.

    Args:
        heights: Of the points.
        ladder: Of the same levels by other points; may lack some.
        step_mm: See `descending`.

    Returns:
        Old to new name where exchanging names gives the ladder; else the fewest points whose absence leaves the rest in order.
        Where several choices are as good, the ladder decides; without one all of them are left out.
    """
    named = [level for level in LEVELS if level in heights]
    by_height = sorted(named, key=lambda level: -heights[level])
    exchanged = {new: heights[old] for old, new in zip(by_height, named, strict=True)}
    if set(named) <= set(ladder) and descending(exchanged, step_mm) and _lies_on(exchanged, ladder):
        return {old: new for old, new in zip(by_height, named, strict=True) if old is not new}, ()
    for count in range(1, len(named)):
        choices = [
            left_out
            for left_out in combinations(named, count)
            if descending({level: heights[level] for level in named if level not in left_out}, step_mm)
        ]
        if choices:
            return {}, _worst(choices, heights, ladder)
    return {}, tuple(named)


def _worst(choices: list[tuple[Level, ...]], heights: Heights, ladder: Heights) -> tuple[Level, ...]:
    """Of several choices the one whose absence leaves what fits the ladder best."""
    rests = [{level: height for level, height in heights.items() if level not in left_out} for left_out in choices]
    fits = [_misfit(rest, ladder) for rest in rests]
    if len(choices) > 1 and any(len(fit) < 2 for fit in fits):
        return tuple(level for level in LEVELS if any(level in left_out for left_out in choices))
    return choices[int(np.argmin([fit.max() for fit in fits]))] if len(choices) > 1 else choices[0]


def _lies_on(heights: Heights, ladder: Heights) -> bool:
    apart = [heights[level] - ladder[level] for level in heights]
    return abs(float(np.median(apart))) < NEAR_MM and float(_misfit(heights, ladder).max()) < NEAR_MM


def _misfit(heights: Heights, ladder: Heights) -> np.ndarray:
    """Distance of each level's height from the ladder, once their common offset is taken out."""
    apart = np.array([heights[level] - ladder[level] for level in heights if level in ladder])
    return np.abs(apart - np.median(apart)) if len(apart) else apart


def shift_between(heights: Heights, ladder: Heights) -> int | None:
    """By how many levels (-1, 0, 1) points lie lower than the level of their name on a ladder; None where it cannot be told."""
    costs = {}
    for shift in (0, -1, 1):
        pairs = [
            (heights[level], ladder[LEVELS[at + shift]])
            for at, level in enumerate(LEVELS)
            if level in heights and 0 <= at + shift < len(LEVELS) and LEVELS[at + shift] in ladder
        ]
        if len(pairs) >= _MIN_SHARED:
            costs[shift] = float(np.median([abs(height - rung) for height, rung in pairs]))
    near = [shift for shift, cost in costs.items() if cost < NEAR_MM]
    return min(near, key=lambda shift: costs[shift]) if near else None
