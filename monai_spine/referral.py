"""Referral: findings that a grader is too unsure of are graded all the same, and pointed out to the reader.

The expected risk of a finding is the probability, as the grader sees it, that another severity than the most probable one is
true. Above which risk findings are referred stands in the bundle's `inference.json`, with what that comes to on other cases:

    "referral": {"expected_risk": 0.31, "meaning": "refers the tenth of the findings that ..."}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_spine.anatomy import Level
from monai_spine.errors import WeightsError
from monai_spine.level_doubts import Doubt

__all__ = ["REFERRAL", "Referral", "expected_risk"]

REFERRAL = "referral"
"""The flag of a finding that is left to a reader."""


def expected_risk(probabilities: Sequence[float]) -> float:
    """Probability that the most probable severity is not the true one: 1 minus the largest of the three, 0 to 2/3."""
    return 1.0 - max(probabilities)


@dataclass(frozen=True)
class Referral:
    """When a grader's findings are left to a reader.

    Attributes:
        expected_risk: Findings above it are referred, 0 to 1.
        meaning: What that comes to, in words: which share is referred, and how often the grader errs on the rest.
    """

    expected_risk: float
    meaning: str = ""

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Referral | None:
        """Read the `referral` section of a bundle's `inference.json`; None where there is none: nothing is referred then.

        Raises:
            WeightsError: Its threshold is missing or no share.
        """
        if config is None:
            return None
        try:
            threshold = float(config["expected_risk"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The referral section of the bundle's inference.json cannot be used ({type(error).__name__}: {error}). "
                "It needs expected_risk, and a meaning in words; or leave it out."
            ) from error
        if math.isnan(threshold) or not 0 <= threshold <= 1:
            raise WeightsError(
                f"The bundle's inference.json refers findings above an expected risk of {threshold}, which is no share. "
                "Give a number from 0 to 1, as tools/choose_referral.py prints it."
            )
        return cls(threshold, str(config.get("meaning", "")))

    def doubts(self, probabilities: Sequence[float], level: Level) -> tuple[Doubt, ...]:
        """What is said of a finding with these probabilities: nothing, or that it is referred and why."""
        risk = expected_risk(probabilities)
        if risk <= self.expected_risk:
            return ()
        seen = f"expected to be wrong with {100 * risk:.1f} %; above {100 * self.expected_risk:.1f} % a reader should decide"
        return (Doubt(REFERRAL, seen, level),)
