"""Random lesions of a level: what goes together, and how large. The ranges were looked at on real anatomy (docs/lesions.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from monai_spine.anatomy import Level, Side
from monai_spine.phantom.lesions.kinds import (
    Bulge,
    DiscHeightLoss,
    DiscSignalLoss,
    EpiduralFat,
    Extrusion,
    FacetOvergrowth,
    FlavumThickening,
    Lesion,
    Listhesis,
    Protrusion,
)
from monai_spine.phantom.lesions.sites import LevelSite

__all__ = ["FAMILIES", "USUAL_WEIGHTS", "check_weights", "draw_lesions", "takes"]

FAMILIES: Mapping[str, tuple[float, float]] = {
    "degeneration": (0.0, 0.06),
    "bulge": (0.0, 0.45),
    "protrusion": (0.1, 0.7),
    "extrusion": (0.3, 0.8),
    "stenosis": (0.1, 0.92),
    "lipomatosis": (0.1, 0.55),
    "listhesis": (0.1, 0.7),
    "lateral": (0.0, 0.4),
}
"""Families of lesions, and the shares of the sac's depth that each may take; a lateral one lies in a recess or foramen."""

USUAL_WEIGHTS: Mapping[str, float] = dict.fromkeys(FAMILIES, 1.0) | {"lipomatosis": 0.0, "lateral": 0.0}
"""How often each family is drawn of those that reach a share: never fat behind the sac, since a grader that learns from it too
ranks real herniations less well (docs/validity.md), and nothing lateral, which hardly narrows the sac."""

_FLAVUM_IN_MIDLINE = 0.78
_SLIPPING = (Level.L3_L4, Level.L4_L5, Level.L5_S1)


def check_weights(weights: Mapping[str, float]) -> tuple[float, float]:
    """Make sure that families with a weight take every share between the least and the largest one that they take.

    Returns:
        These two, as shares of the sac's depth.

    Raises:
        ValueError: A family is unknown, a weight is negative or infinite, none has one, or a share between is taken by none.
    """
    unknown = sorted(set(weights) - set(FAMILIES))
    if unknown or any(not 0 <= weight < float("inf") for weight in weights.values()) or not any(weights.values()):
        raise ValueError(f"Weights must be 0 or more, one above 0, of {', '.join(FAMILIES)}; got {dict(weights)}.")
    ranges = sorted(FAMILIES[name] for name, weight in weights.items() if weight)
    least, largest = ranges[0]
    for low, high in ranges[1:]:
        if low > largest:
            raise ValueError(f"None of the families {sorted(weights)} takes shares between {largest:g} and {low:g}. Add one.")
        largest = max(largest, high)
    return least, largest


def takes(weights: Mapping[str, float], level: Level, share: float) -> list[str]:
    """The families with a weight that take such a share of the sac at a level; vertebrae slip from L3/L4 down."""
    able = [name for name, (low, high) in FAMILIES.items() if low <= share <= high and weights.get(name, 0) > 0]
    return able if level in _SLIPPING else [name for name in able if name != "listhesis"]


def draw_lesions(
    random: np.random.RandomState, site: LevelSite, share: float, weights: Mapping[str, float] | None = None
) -> tuple[str, tuple[Lesion, ...]]:
    """Draw the lesions of one level that take about a share of the sac's depth, where each is deepest.

    Args:
        random: Where numbers come from.
        site: The level.
        share: Of the depth, 0 to 0.92.
        weights: How often each of `FAMILIES` is drawn, of those that reach the share; default: `USUAL_WEIGHTS`.

    Returns:
        The family's name, and its lesions.

    Raises:
        ValueError: The share is out of range, a family is unknown, or none with a weight reaches the share.
    """
    if not 0 <= share <= 0.92:
        raise ValueError(f"A share of the sac to take must be in [0, 0.92], got {share:g}.")
    chances = dict(USUAL_WEIGHTS if weights is None else weights)
    check_weights(chances)
    able = takes(chances, site.level, share)
    if not able:
        raise ValueError(f"None of the families {sorted(chances)} takes a share of {share:g} of the sac at {site.level.label}.")
    odds = np.array([chances[name] for name in able])
    family = able[int(random.choice(len(able), p=odds / odds.sum()))]
    return family, (*_DRAWN[family](random, site, share), *_degeneration(random, share))


def _depth_mm(site: LevelSite, share: float) -> float:
    return min(share * site.depth_mm, 19.0)


def _degeneration(random: np.random.RandomState, share: float) -> tuple[Lesion, ...]:
    """Height and signal that the disc has lost: those that narrow the canal are nearly all worn, as in patients, and the darker
    the more they narrow it."""
    least = 0.25 + 0.3 * min(share / 0.6, 1.0)
    signal, height = random.uniform(least, 0.75), random.uniform(0.08, 0.4)
    drawn, often = random.random_sample(2), min(0.75 + share, 0.97)
    lesions: tuple[Lesion, ...] = (DiscSignalLoss(signal),) if drawn[0] < often else ()
    return (*lesions, DiscHeightLoss(height)) if drawn[1] < 0.6 * often else lesions


def _bulge(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    return (
        Bulge(
            _depth_mm(site, share),
            aside_mm=random.normal(0, 1.5),
            half_width_mm=random.uniform(14, 24),
            half_height_mm=random.uniform(4.5, 7),
        ),
    )


def _protrusion(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    depth_mm, width = _depth_mm(site, share), random.uniform(5, 9)
    return (
        Protrusion(
            depth_mm,
            aside_mm=_aside(random),
            half_width_mm=max(width, 0.7 * depth_mm),
            half_height_mm=max(random.uniform(4.5, 6.5), 0.65 * depth_mm),
            brightness=random.uniform(0.8, 1.2),
        ),
    )


def _extrusion(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    depth_mm = _depth_mm(site, share)
    migrates = random.random_sample() < 0.5
    sign = 1.0 if random.random_sample() < 0.35 else -1.0
    return (
        Extrusion(
            depth_mm,
            aside_mm=_aside(random),
            half_width_mm=random.uniform(5, 9) + max(0.0, 12 * (share - 0.5)),
            half_height_mm=max(random.uniform(5, 7.5), 0.7 * depth_mm),
            migration_mm=sign * random.uniform(2, 8) if migrates else 0.0,
            brightness=random.uniform(0.8, 1.4),
        ),
    )


def _aside(random: np.random.RandomState) -> float:
    """Central, or as often beside the midline, where the longitudinal ligament is weaker."""
    aside, side = random.normal(0, 2.5), random.choice([-1.0, 1.0])
    return float(side * random.uniform(4, 13) if random.random_sample() < 0.5 else np.clip(aside, -7, 7))


def _stenosis(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    """From the front and from behind: each leaves a part of the depth, and both together the product."""
    kept = 1 - share
    from_front = random.uniform(0.5, 0.8)
    behind_mm = min((1 - kept ** (1 - from_front)) * site.depth_mm / _FLAVUM_IN_MIDLINE, 19.0)
    lesions: tuple[Lesion, ...] = (
        *_bulge(random, site, 1 - kept**from_front),
        FlavumThickening(behind_mm, half_height_mm=random.uniform(6, 10)),
    )
    for side in Side:
        if random.random_sample() < 0.5:
            lesions = (*lesions, FacetOvergrowth(random.uniform(1, 4), half_height_mm=random.uniform(6, 9), side=side))
    return lesions


def _lipomatosis(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    return (EpiduralFat(_depth_mm(site, share), half_height_mm=random.uniform(10, 18)),)


def _listhesis(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    slip = random.uniform(2, 8) * (1 if random.random_sample() < 0.8 else -0.5)
    return (Listhesis(slip), *_stenosis(random, site, 0.7 * share))


def _lateral(random: np.random.RandomState, site: LevelSite, share: float) -> tuple[Lesion, ...]:
    """A herniation in recess or foramen, into which it migrates, a facet that grows, or both; the sac says nothing of their size,
    which they hardly reach."""
    side, size = Side.RIGHT if random.random_sample() < 0.5 else Side.LEFT, random.random_sample()
    depth_mm, aside_mm = random.uniform(1, 3) + 7 * size, random.uniform(6, 20)
    herniation = Extrusion(
        depth_mm,
        aside_mm=aside_mm if side is Side.RIGHT else -aside_mm,
        half_width_mm=random.uniform(4.5, 9),
        half_height_mm=max(random.uniform(5, 9), 0.7 * depth_mm),
        migration_mm=random.uniform(0, 0.5) * aside_mm,
        brightness=random.uniform(0.8, 1.2),
    )
    facet = FacetOvergrowth(random.uniform(1, 3) + 6 * size, half_height_mm=random.uniform(7, 14), side=side)
    return ((herniation,), (facet,), (herniation, facet))[random.randint(3)]


_DRAWN: Mapping[str, Callable[[np.random.RandomState, LevelSite, float], tuple[Lesion, ...]]] = {
    "degeneration": lambda random, site, share: (),
    "bulge": _bulge,
    "protrusion": _protrusion,
    "extrusion": _extrusion,
    "stenosis": _stenosis,
    "lipomatosis": _lipomatosis,
    "listhesis": _listhesis,
    "lateral": _lateral,
}
