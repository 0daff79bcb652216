"""What is doubtful about a column, each doubt with what was seen.

The numbering gives each disc the next name below its upper neighbour's. Here each disc's own evidence is held against that: where
the discs above some point would rather all bear the next name (or the one before), the column has one body more (or less) between
its ends than the names allow: a sixth or only four lumbar bodies, a lumbarised S1 or a sacralised L5. And it is said which names
are unsure, what was not seen, and how far it was from being seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import DISCS, LEVELS, Level
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine, spacing_of

__all__ = ["CANAL_NOT_SEEN", "SURE", "Doubt", "canal_doubt", "column_doubts", "column_flags", "name_doubts", "sacrum_doubts"]

Floats = npt.NDArray[np.float64]

SURE = 0.5
"""Confidence below which a level is flagged `low_confidence`, and the sacrum `sacrum_not_seen`."""

CANAL_NOT_SEEN = "canal_not_seen"

_LEAST_SACRUM_MM = 25.0  # about the height of S1: where less is seen, L4/L5 may be taken for L5/S1
_AMBIGUOUS = 0.2
_WORTH_SAYING = 0.03
_FLOOR = 0.02
_ODDS = np.log(20.0)
_MOST_ODDS = 1000.0
_BODIES = {1: ("lower", "a sixth lumbar body or a lumbarised S1"), -1: ("higher", "four lumbar bodies or a sacralised L5")}


@dataclass(frozen=True)
class Doubt:
    """Something doubtful.

    Attributes:
        flag: `sacrum_not_seen`, `possible_transitional_anatomy` or `out_of_order` of a column, `low_confidence`,
            `numbering_ambiguous` or `canal_not_seen` of a level.
        seen: What raised the flag, in words and with its values.
        level: Which level it is about; None: the column as a whole.
    """

    flag: str
    seen: str
    level: Level | None = None

    def to_json(self) -> dict[str, str | None]:
        """As `result.json` and the files of levels hold it."""
        return {"flag": self.flag, "level": None if self.level is None else self.level.label, "seen": self.seen}


def column_flags(doubts: Iterable[Doubt]) -> tuple[str, ...]:
    """The flags of a column: its own, and those of the names of its levels; a low confidence counts where a level is graded."""
    return tuple(dict.fromkeys(doubt.flag for doubt in doubts if doubt.level is None or _is_of_the_column(doubt)))


def _is_of_the_column(doubt: Doubt) -> bool:
    return doubt.flag == "numbering_ambiguous" or (doubt.flag == "low_confidence" and doubt.level in LEVELS)


def name_doubts(level: Level, probabilities: Floats | Sequence[float]) -> tuple[Doubt, ...]:
    """Doubts of one level's name: `low_confidence`, `numbering_ambiguous`.

    Args:
        level: The name that was given.
        probabilities: Of each name of `DISCS` for the same disc, over all numberings of the column.
    """
    share = dict(zip(DISCS, (float(value) for value in probabilities), strict=True))
    found = []
    if share[level] < SURE:
        found.append(Doubt("low_confidence", f"{share[level]:.2f}", level))
    if sum(share.values()) - share[level] > _AMBIGUOUS:
        likely = sorted((name for name in DISCS if share[name] > _WORTH_SAYING), key=lambda name: -share[name])
        found.append(Doubt("numbering_ambiguous", ", ".join(f"{name.label} with {share[name]:.2f}" for name in likely), level))
    return tuple(found)


def canal_doubt(level: Level, strength: float, *, needed: float, below_mm: float = 0.0) -> Doubt:
    """Why the canal behind a disc was not taken for seen.

    Args:
        level: Of the disc.
        strength: Probability at the strongest place near where the canal should be.
        needed: The least that is taken for seen.
        below_mm: How far below the disc's height that place lies; it counts where it is strong enough.
    """
    strongest = f"{strength:.2f} at the strongest place near where it should be"
    if strength < needed:
        return Doubt(CANAL_NOT_SEEN, f"{strongest}, less than {needed:g}", level)
    return Doubt(CANAL_NOT_SEEN, f"{strongest}, {abs(below_mm):.0f} mm {'below' if below_mm > 0 else 'above'} its disc", level)


def sacrum_doubts(
    lowest: Level, confidence: float, disc_ras_mm: Point | Floats, *, affine: Affine, shape: Sequence[int]
) -> tuple[Doubt, ...]:
    """`sacrum_not_seen` where the disc above the sacrum was not named, or not surely, or too little of the sacrum is in the scan.

    Args:
        lowest: The lowest disc that was named.
        confidence: Of its name.
        disc_ras_mm: Its centre.
        affine: Of the scan, voxel centre to RAS+ mm.
        shape: The scan's voxels.
    """
    above_mm = _above_lower_end_mm(disc_ras_mm, affine, shape)
    if lowest is not LEVELS[-1]:
        where = f"{above_mm:.0f} mm above the scan's lower end"
        return (Doubt("sacrum_not_seen", f"the lowest disc that was named is {lowest.label}, {where}"),)
    if above_mm < _LEAST_SACRUM_MM:
        return (Doubt("sacrum_not_seen", f"the scan ends {above_mm:.0f} mm below {lowest.label}"),)
    if confidence < SURE:
        return (Doubt("sacrum_not_seen", f"{lowest.label} was named with a confidence of {confidence:.2f} only"),)
    return ()


def _above_lower_end_mm(point_ras_mm: Point | Floats, affine: Affine, shape: Sequence[int]) -> float:
    """How far a point lies above the outer face of the lowest voxels, along the scan's own axis nearest to the head."""
    spacing = np.asarray(spacing_of(affine))
    axis = int(np.argmax(np.abs(affine[2, :3]) / spacing))
    place = float(apply_affine(invert_affine(affine), point_ras_mm)[axis])
    voxels = place + 0.5 if affine[2, axis] > 0 else shape[axis] - 0.5 - place
    return float(voxels * spacing[axis])


def column_doubts(evidence: Floats | Sequence[Sequence[float]], names: Sequence[int]) -> tuple[Doubt, ...]:
    """Doubts of a column's numbering as a whole: `possible_transitional_anatomy`, `out_of_order`.

    Args:
        evidence: (N, names) probability of each name of `DISCS` at each named disc, from the head down.
        names: The place in `DISCS` of the name that each of them was given, ascending.
    """
    seen, given = np.asarray(evidence, float).reshape(len(names), -1), np.asarray(names, int)
    return (*_transitional(seen, given), *_out_of_order(seen, given))


def _transitional(evidence: Floats, names: npt.NDArray[np.int64]) -> tuple[Doubt, ...]:
    """Whether the discs above some point would rather bear the next name, or the one before."""
    if len(names) < 2:
        return ()
    looks = {step: _shift_gain(evidence, names, step) for step in _BODIES}
    step = max(looks, key=lambda one: looks[one][0])
    gain, count = looks[step]
    if gain <= _ODDS:
        return ()
    odds = f"{np.exp(gain):.0f}" if gain < np.log(_MOST_ODDS) else f"more than {_MOST_ODDS:.0f}"
    where, bodies = _BODIES[step]
    what = f"the discs above {DISCS[names[count]].label} look one name {where} than five lumbar bodies allow"
    return (Doubt("possible_transitional_anatomy", f"{what} ({odds} times as likely): {bodies}"),)


def _shift_gain(evidence: Floats, names: npt.NDArray[np.int64], step: int) -> tuple[float, int]:
    """Logarithm of how much likelier the names become if the uppermost ones are moved by one, and how many; the best number."""
    share = evidence / np.maximum(evidence.sum(1, keepdims=True), 1e-9)
    moved = names + step
    possible = (moved >= 0) & (moved < evidence.shape[1])
    rows = np.arange(len(names))
    own = np.log(share[rows, names] + _FLOOR)
    other = np.log(share[rows, np.clip(moved, 0, evidence.shape[1] - 1)] + _FLOOR)
    gain = np.cumsum(np.where(possible, other - own, 0.0))[:-1]
    best = int(gain.argmax())
    return float(gain[best]), best + 1


def _out_of_order(evidence: Floats, names: npt.NDArray[np.int64]) -> tuple[Doubt, ...]:
    """Whether a disc that surely bears a name lies below one that surely bears a lower name."""
    looks, strength = evidence.argmax(1), evidence.max(1)
    sure = [row for row in range(len(names)) if strength[row] > SURE * max(float(evidence[row].sum()), 1.0)]
    for upper, lower in itertools.pairwise(sure):
        if looks[lower] < looks[upper]:
            named, like = ([DISCS[given[row]].label for row in (upper, lower)] for given in (names, looks))
            one = f"the disc named {named[0]} looks like {like[0]} ({strength[upper]:.2f})"
            other = f"one below it, named {named[1]}, like {like[1]} ({strength[lower]:.2f})"
            return (Doubt("out_of_order", f"{one}, {other}"),)
    return ()
