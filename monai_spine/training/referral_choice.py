"""Choose above which expected risk findings are referred, and say what that comes to, on these cases or on others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_spine.training.risk_coverage import risk_coverage

__all__ = ["ReferralEffect", "choose_threshold", "referral_effect"]

_STEP = 1e4


@dataclass(frozen=True)
class ReferralEffect:
    """What a threshold comes to on labelled findings.

    Attributes:
        expected_risk: The threshold; findings above it are referred.
        findings: How many there are.
        referred: Share that is referred.
        risk_of_rest: Share of wrong grades among those that are kept, NaN where none is.
        risk_of_referred: Share of wrong grades among those that are referred, NaN where none is.
        risk_of_all: Share of wrong grades among all.
    """

    expected_risk: float
    findings: int
    referred: float
    risk_of_rest: float
    risk_of_referred: float
    risk_of_all: float

    def sentence(self, source: str) -> str:
        """For the reader of a report: `On 1,000 findings of SOURCE: 10.0 % are referred to a reader; ...`."""
        kept = (
            "nothing is left"
            if math.isnan(self.risk_of_rest)
            else f"{100 * self.risk_of_rest:.1f} % of the rest are graded wrong"
        )
        gone = "" if math.isnan(self.risk_of_referred) else f", {100 * self.risk_of_referred:.0f} % of those referred"
        return (
            f"On {self.findings:,} findings of {source}: {100 * self.referred:.1f} % are referred to a reader; {kept}{gone}, "
            f"{100 * self.risk_of_all:.1f} % of all."
        )


def choose_threshold(
    probabilities: np.ndarray, labels: np.ndarray, *, coverage: float | None = None, risk: float | None = None
) -> float:
    """The expected risk above which findings are referred, so that so much is kept, or so little of what is kept is wrong.

    Args:
        probabilities: Calibrated frequencies (N, 3), of cases that the grader never saw.
        labels: Index of the true severity, (N,).
        coverage: Least share that is kept, above 0, at most 1; as few as possible beyond it are.
        risk: Largest share of wrong grades among what is kept, which is as much as possible.

    Returns:
        A threshold with four decimals.

    Raises:
        ValueError: Not exactly one of both is given, or it is no share, no threshold reaches the risk, or there is no finding.
    """
    wanted = [value for value in (coverage, risk) if value is not None]
    if len(wanted) != 1 or not 0 <= wanted[0] <= 1 or coverage == 0:
        raise ValueError(f"Give either a coverage above 0 and up to 1 or a risk from 0 to 1, got {coverage} and {risk}.")
    curve = risk_coverage(probabilities, labels)
    if coverage is not None:
        place = int(np.searchsorted(curve.coverage, min(coverage, curve.coverage[-1]) - 1e-12))
    else:
        allowed = np.flatnonzero(curve.risk <= risk)
        if not len(allowed):
            raise ValueError(
                f"No threshold makes the risk {risk}: of the surest {100 * curve.coverage[0]:.3g} % of {len(labels)} findings "
                f"{100 * curve.risk[0]:.3g} % are wrong. Allow a larger risk, or train longer."
            )
        place = int(allowed[-1])
    return min(1.0, math.ceil((1 - float(curve.threshold[place])) * _STEP - 1e-6) / _STEP)


def referral_effect(probabilities: np.ndarray, labels: np.ndarray, expected_risk: float) -> ReferralEffect:
    """What a threshold does on labelled findings (N, 3), (N,).

    Raises:
        ValueError: The shapes do not fit, or there is no finding.
    """
    risk_of_all = float(risk_coverage(probabilities, labels).risk[-1])
    wrong, referred = probabilities.argmax(axis=1) != labels, 1 - probabilities.max(axis=1) > expected_risk
    rest, gone = (float(wrong[rows].mean()) if rows.any() else float("nan") for rows in (~referred, referred))
    return ReferralEffect(expected_risk, len(labels), float(referred.mean()), rest, gone, risk_of_all)
