"""Simulated readers: hidden narrowing of each target, the grade that a reader gives it, and the best score anyone can reach.

Every target has a latent x. Its narrowing is `1 / (1 + exp(-(x - 0.5) ln 4))`, so that x = 0 is a third lost and x = 1 two
thirds: the borders between normal or mild, moderate and severe. A reader sees x + e with a normal error e and grades what it
sees. Latents are normal with a mean per condition and level that gives the class shares of the RSNA 2024 tables, and correlate
between conditions, sides and levels as the labels there do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import logit, ndtr, ndtri
from scipy.stats import norm

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Severity, Target
from monai_spine.studies.prepared import Shares
from monai_spine.studies.priors import prior_probabilities

__all__ = [
    "READER_ERROR",
    "Reading",
    "class_shares",
    "latent_of_narrowing",
    "latent_of_shares",
    "narrowing",
    "posterior",
    "reader_posterior",
    "reader_shares",
    "sample_reading",
    "sample_reading_of",
]

Floats = npt.NDArray[np.float64]

READER_ERROR: dict[Condition, float] = {
    Condition.SPINAL_CANAL_STENOSIS: 0.55,
    Condition.NEURAL_FORAMINAL_NARROWING: 0.43,
    Condition.SUBARTICULAR_STENOSIS: 0.43,
}
"""Standard deviation of a reader's error, in units of the latent (1 = from the mild to the severe border)."""

# Tetrachoric correlations of "moderate or worse" in the RSNA 2024 training labels, averaged over levels and over conditions.
# Order: canal, left foramen, right foramen, left recess, right recess; and L1/L2 to L5/S1.
_KIND_CORRELATION = np.array(
    [
        [1.00, 0.48, 0.48, 0.74, 0.74],
        [0.48, 1.00, 0.52, 0.58, 0.49],
        [0.48, 0.52, 1.00, 0.49, 0.58],
        [0.74, 0.58, 0.49, 1.00, 0.68],
        [0.74, 0.49, 0.58, 0.68, 1.00],
    ]
)
_LEVEL_CORRELATION = np.array(
    [
        [1.00, 0.68, 0.51, 0.34, 0.26],
        [0.68, 1.00, 0.72, 0.50, 0.30],
        [0.51, 0.72, 1.00, 0.67, 0.38],
        [0.34, 0.50, 0.67, 1.00, 0.51],
        [0.26, 0.30, 0.38, 0.51, 1.00],
    ]
)
_KIND_ORDER = (
    "spinal_canal_stenosis",
    "left_neural_foraminal_narrowing",
    "right_neural_foraminal_narrowing",
    "left_subarticular_stenosis",
    "right_subarticular_stenosis",
)


@dataclass(frozen=True)
class Reading:
    """What is true of one patient and what a reader wrote down.

    Attributes:
        latents: One per target, official order, shape (25,).
        severities: The reader's grades, official order.
    """

    latents: Floats
    severities: tuple[Severity, ...]

    def narrowing_of(self, target: Target) -> float:
        """Share of the space that is lost at a target, between 0 and 1."""
        return float(narrowing(self.latents[TARGETS.index(target)]))


def narrowing(latents: npt.ArrayLike) -> Floats:
    """Share of the space lost, from latents of any shape."""
    return np.asarray(1 / (1 + np.exp(-(np.asarray(latents, dtype=float) - 0.5) * np.log(4))))


def latent_of_narrowing(share: float) -> float:
    """The latent of a lost share, infinite where nothing or all is lost."""
    with np.errstate(divide="ignore"):
        return float(0.5 + logit(share) / np.log(4))


def posterior(latents: npt.ArrayLike, error: npt.ArrayLike) -> Floats:
    """Probabilities (..., 3) of the grades that a reader with this error gives to known latents (...,)."""
    x, e = np.broadcast_arrays(np.asarray(latents, dtype=float), np.asarray(error, dtype=float))
    below_moderate, below_severe = norm.cdf((0 - x) / e), norm.cdf((1 - x) / e)
    return np.stack([below_moderate, below_severe - below_moderate, 1 - below_severe], axis=-1)


def sample_reading(rng: np.random.Generator) -> Reading:
    """Draw one patient's latents and a reader's grades of them."""
    mean, spread = _latent_scale()
    latents = mean + spread * (_correlation_root() @ rng.standard_normal(len(TARGETS)))
    seen = latents + _errors() * rng.standard_normal(len(TARGETS))
    grades = np.searchsorted([0.0, 1.0], seen, side="right")
    return Reading(latents, tuple(list(Severity)[grade] for grade in grades))


def sample_reading_of(rng: np.random.Generator, grades: Mapping[Target, Severity], *, sweeps: int = 40) -> Reading:
    """Draw latents as they are in patients to whom a reader gave these grades; a target without a grade is free.

    Gibbs sampling of what the reader saw, each within the borders of its grade given all others; then the latents given that.

    Args:
        rng: Source of chance.
        grades: The reader's grades.
        sweeps: How often each target is drawn anew.
    """
    mean, spread = _latent_scale()
    root = spread[:, None] * _correlation_root()
    hidden = root @ root.T
    precision = np.linalg.inv(hidden + np.diag(_errors() ** 2))
    borders = np.array([-np.inf, 0.0, 1.0, np.inf])
    bins = [(grades[target].index, grades[target].index + 1) if target in grades else (0, 3) for target in TARGETS]
    low, high = (borders[list(ends)] - mean for ends in zip(*bins, strict=True))
    seen = np.clip(np.zeros(len(TARGETS)), low, high)
    for _ in range(sweeps):
        for index, draw in enumerate(rng.uniform(size=len(TARGETS))):
            given = seen[index] - precision[index] @ seen / precision[index, index]
            seen[index] = _truncated(draw, given, precision[index, index] ** -0.5, (low[index], high[index]))
    latents = mean + hidden @ precision @ seen
    left = hidden - hidden @ precision @ hidden
    values, vectors = np.linalg.eigh(left)
    latents = latents + vectors @ (np.sqrt(np.clip(values, 0, None)) * rng.standard_normal(len(TARGETS)))
    found = np.searchsorted(borders[1:3], seen + mean, side="right")
    severities = [grades.get(target, list(Severity)[grade]) for target, grade in zip(TARGETS, found, strict=True)]
    return Reading(latents, tuple(severities))


def _truncated(draw: float, mean: float, spread: float, ends: tuple[float, float]) -> float:
    """A normal value between two ends, from a uniform draw."""
    low, high = ((end - mean) / spread for end in ends)
    flip = -1.0 if low > 0 else 1.0  # the lower tail is the one that keeps its digits
    low, high = sorted((flip * low, flip * high))
    below, above = ndtr(low), ndtr(high)
    value = float(np.clip(ndtri(below + draw * (above - below)), max(low, -9.0), min(high, 9.0)))
    return float(np.clip(mean + spread * flip * value, *ends))


def reader_shares(target: Target, latent: float) -> Shares:
    """How many of all simulated readers would give each grade to a target with this latent; at minus infinity, all mild."""
    mild, moderate, severe = posterior(latent, READER_ERROR[target.condition]).tolist()
    return mild, moderate, severe


def latent_of_shares(target: Target, shares: Shares) -> float:
    """The latent of which all simulated readers say this; at all mild, minus infinity."""
    error = READER_ERROR[target.condition]
    mild, _, severe = shares
    return float(-error * ndtri(mild) if mild >= severe else 1 + error * ndtri(severe))


def reader_posterior(latents: Floats) -> Floats:
    """The true probabilities (n, 25, 3) of each grade, given latents (n, 25): what the best possible grader would state."""
    return posterior(latents, _errors())


@cache
def _errors() -> Floats:
    return np.array([READER_ERROR[target.condition] for target in TARGETS])


@cache
def _latent_scale() -> tuple[Floats, Floats]:
    """Mean and spread of each target's latent, such that grades have the class shares of the tables."""
    shares = np.array([prior_probabilities(target) for target in TARGETS])
    to_moderate, to_severe = norm.isf(1 - shares[:, 1] - shares[:, 2]), norm.isf(1 - shares[:, 2])
    total = 1 / (to_moderate - to_severe)
    return to_moderate * total, np.sqrt(total**2 - _errors() ** 2)


@cache
def _correlation_root() -> Floats:
    """Matrix square root of the latents' correlation, freed of the reader's own noise."""
    kinds = [_KIND_ORDER.index(target.kind.slug) for target in TARGETS]
    levels = [LEVELS.index(target.level) for target in TARGETS]
    observed = _KIND_CORRELATION[np.ix_(kinds, kinds)] * _LEVEL_CORRELATION[np.ix_(levels, levels)]
    _, spread = _latent_scale()
    reliability = spread / np.sqrt(spread**2 + _errors() ** 2)
    latent = np.clip(observed / np.outer(reliability, reliability), -0.98, 0.98)
    np.fill_diagonal(latent, 1.0)
    values, vectors = np.linalg.eigh(latent)
    root = vectors * np.sqrt(np.clip(values, 1e-4, None))
    return np.asarray(root / np.linalg.norm(root, axis=1, keepdims=True))


def class_shares(readings: Sequence[Reading]) -> Floats:
    """Share of each grade per target over many readings, shape (25, 3)."""
    grades = np.array([[severity.index for severity in reading.severities] for reading in readings])
    return np.stack([(grades == severity.index).mean(0) for severity in Severity], axis=-1)
