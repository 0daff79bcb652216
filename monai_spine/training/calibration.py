"""Calibration: do findings that are given 30 % turn out true in 30 % of cases?

A submission that is scaled for the score (1/2/4) is calibrated in the world of these weights, not in the clinic: give the rows'
weights to look at the first, none to look at the second.

Source: Guo et al., On calibration of modern neural networks, ICML 2017 (confidence of the predicted class, bins of equal width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_spine.anatomy import Severity

__all__ = ["ReliabilityBin", "expected_calibration_error", "reliability_table"]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of predicted probability, (lower, upper]; the lowest holds 0 too.

    Attributes:
        lower: Lower edge.
        upper: Upper edge.
        count: Rows in it.
        weight: Sum of their weights.
        predicted: Weighted mean of the predicted probability, NaN where the bin weighs nothing.
        observed: Weighted share of rows in which it came true, NaN where the bin weighs nothing.
    """

    lower: float
    upper: float
    count: int
    weight: float
    predicted: float
    observed: float


def reliability_table(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    severity: Severity | None = None,
    weights: np.ndarray | None = None,
    bins: int = 10,
) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed, in bins of equal width from 0 to 1.

    Args:
        probabilities: (N, classes), each row of sum 1; three where `severity` is given.
        labels: Index of the true class, (N,).
        severity: Whose probability is looked at; None takes each row's most probable class (the first of equals).
        weights: Weight of each row, (N,), 0 or more; None counts each once.
        bins: How many.

    Raises:
        ValueError: The shapes do not fit, a probability lies outside [0, 1], or there is no bin.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    weight = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(given, truth, weight, bins)
    if severity is not None and given.shape[1] != len(Severity):
        raise ValueError(f"Probabilities of severities must be (N, {len(Severity)}), got {given.shape}.")
    looked_at = given.argmax(axis=1) if severity is None else np.full(len(given), severity.index)
    predicted = given[np.arange(len(given)), looked_at]
    came_true = truth == looked_at
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, predicted, side="left") - 1, 0, bins - 1)
    result = []
    for index in range(bins):
        here = place == index
        total = float(weight[here].sum())
        means = [float((weight * values)[here].sum() / total) if total > 0 else float("nan") for values in (predicted, came_true)]
        result.append(ReliabilityBin(float(edges[index]), float(edges[index + 1]), int(here.sum()), total, means[0], means[1]))
    return tuple(result)


def expected_calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """Mean distance of predicted from observed over the bins, each by its weight; 0 is best, NaN without rows."""
    filled = [row for row in table if row.weight > 0]
    total = sum(row.weight for row in filled)
    return sum(row.weight * abs(row.predicted - row.observed) for row in filled) / total if filled else float("nan")


def _check(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int) -> None:
    count = len(labels)
    if probabilities.shape[:1] != (count,) or probabilities.ndim != 2 or weights.shape != (count,) or labels.ndim != 1:
        raise ValueError(
            "Probabilities must be (N, classes), labels and weights (N,), "
            f"got {probabilities.shape}, {labels.shape}, {weights.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("Probabilities must be in [0, 1].")
    if bins < 1:
        raise ValueError(f"There must be at least one bin, got {bins}.")
