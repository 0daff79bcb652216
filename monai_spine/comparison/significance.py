"""Are two contenders different? A paired test over the folds, corrected for what folds share and for how often it is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

__all__ = ["corrected_t_test", "holm"]

_SAME = 1e-9


def corrected_t_test(differences: Sequence[float], *, test_to_training: float) -> tuple[float, float]:
    """Two-sided paired t test over folds whose training sets overlap.

    A plain t test takes folds for independent, which makes it call differences far too often; here the variance of the mean is
    (1/n + studies of the test / studies of the training) times that of the differences. Wilcoxon's test, the usual way out,
    cannot fall below p = 0.06 with five folds, whatever they say.

    Args:
        differences: One of each fold.
        test_to_training: Studies of a fold's test for each that it learns from, such as 0.25 of five folds.

    Returns:
        t and p; NaN for fewer than two folds, and for differences that are all the same: shares of a few hundred answers often
        are in two folds, and say nothing of how far folds differ.

    Source: Nadeau, Bengio, Inference for the generalization error, Machine Learning 52, 2003.

    Example:
        >>> t, p = corrected_t_test([0.1, 0.2, 0.15, 0.05, 0.1], test_to_training=0.25)
        >>> round(t, 2), round(p, 3)
        (3.14, 0.035)
    """
    given = np.asarray(differences, dtype=float)
    if len(given) < 2 or np.isnan(given).any() or np.ptp(given) < _SAME:
        return float("nan"), float("nan")
    variance = (1 / len(given) + test_to_training) * given.var(ddof=1)
    t = float(given.mean() / np.sqrt(variance))
    return t, float(2 * stats.t.sf(abs(t), len(given) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Values of p for that many tests together: below 0.05 means that one wrong call in all of them has a chance of 5 %.

    NaN stays NaN and does not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=float)
    result = np.full(len(given), np.nan)
    order = [at for at in np.argsort(given) if not np.isnan(given[at])]
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, float(given[at]) * (len(order) - rank)))
        result[at] = highest
    return [float(value) for value in result]
