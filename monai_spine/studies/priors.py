"""How often each severity occurs in the RSNA 2024 training set, per condition and level: what is predicted where nothing is seen.

`rsna2024_priors.csv` beside this file holds the shares and how many labels they come from (statistics only);
`tools/fit_priors.py` makes it from train.csv. Left and right are taken together: apart, the rarest cell
would rest on two studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from monai_spine.anatomy import TARGETS, Condition, Level, Severity, Target
from monai_spine.studies.source_table import SourceTable

__all__ = ["PRIORS_PATH", "PRIOR_COLUMNS", "hold_prior", "prior_probabilities", "submission_prior"]

PRIORS_PATH = Path(__file__).with_name("rsna2024_priors.csv")
"""The shipped table."""

PRIOR_COLUMNS: tuple[str, ...] = ("condition", "level", "labelled", *(severity.slug for severity in Severity))
"""Its columns: slugs, number of labels, shares that sum to 1."""

_TOLERANCE = 1e-4


def prior_probabilities(target: Target) -> tuple[float, float, float]:
    """Shares of normal_mild, moderate and severe among the labels of a target: what to report. For submission.csv see
    `submission_prior`.

    Example:
        >>> from monai_spine.anatomy import Target
        >>> prior_probabilities(Target.parse("spinal_canal_stenosis_l4_l5"))
        (0.75076, 0.120061, 0.129179)
    """
    return _priors()[(target.condition, target.level)]


def submission_prior(target: Target) -> tuple[float, float, float]:
    """The prior as a row of submission.csv: scaled by the score's weights 1/2/4 and brought to sum 1.

    This is the constant that scores best (0.790 on the training set); it is no honest probability: do not report it.
    """
    weighted = [share * severity.weight for share, severity in zip(prior_probabilities(target), Severity, strict=True)]
    normal_mild, moderate, severe = (value / sum(weighted) for value in weighted)
    return normal_mild, moderate, severe


def hold_prior(targets: Sequence[str], probabilities: np.ndarray) -> np.ndarray:
    """Which rows of a table hold the prior in the place of a prediction, (N,).

    Args:
        targets: Slugs of the rows.
        probabilities: Frequencies (N, 3), not weighted by 1, 2, 4.
    """
    priors = {target.slug: prior_probabilities(target) for target in TARGETS}
    expected = np.array([priors[target] for target in targets]).reshape(-1, len(Severity))
    return np.asarray(np.abs(probabilities - expected).max(axis=1) <= _TOLERANCE)


@cache
def _priors() -> dict[tuple[Condition, Level], tuple[float, float, float]]:
    table = SourceTable.read(PRIORS_PATH, columns=PRIOR_COLUMNS)
    conditions = [Condition.parse(text) for text in table.cells["condition"]]
    levels = [Level.parse(text) for text in table.cells["level"]]
    normal_mild, moderate, severe = (table.numbers(severity.slug).tolist() for severity in Severity)
    shares = zip(normal_mild, moderate, severe, strict=True)
    return dict(zip(zip(conditions, levels, strict=True), shares, strict=True))
