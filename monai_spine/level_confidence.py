"""How sure a level is, so that of levels with a confidence of 0.9 nine in ten are right.

The numbering takes its discs for independent witnesses, which they are not: where one is misread, its neighbours mostly are too.
So what it says is too sure, and is corrected by a curve with two parameters, fitted on scans that no training had seen.

Source: Platt, Probabilistic outputs for support vector machines, 1999.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from monai_spine.errors import WeightsError

__all__ = ["UNCORRECTED", "Calibration"]

_TINY = 1e-4


@dataclass(frozen=True)
class Calibration:
    """From the numbering's probability p to a confidence: the logit of p times a slope, plus an offset.

    Attributes:
        slope: Above 0, so that the order stays; below 1 where the numbering is too sure.
        offset: Added to the logit.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Confidences, 0 to 1, of probabilities of any shape."""
        return np.asarray(1 / (1 + np.exp(-self.slope * _logit(probability) - self.offset)))

    @classmethod
    def from_config(cls, config: Mapping[str, float]) -> Calibration:
        """Read the `confidence` section of the naming bundle's config.

        Raises:
            WeightsError: It has other entries than a slope above 0 and an offset.
        """
        try:
            found = cls(**{name: float(value) for name, value in config.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The confidence section of the naming bundle cannot be used ({type(error).__name__}: {error}). "
                "It needs two numbers, slope and offset."
            ) from error
        if not (0 < found.slope < np.inf and np.isfinite(found.offset)):
            raise WeightsError(
                f"The confidence section of the naming bundle says slope {found.slope:g} and offset {found.offset:g}; "
                "the slope has to lie above 0 and both have to be finite."
            )
        return found

    @classmethod
    def fit(cls, probability: npt.ArrayLike, is_right: npt.ArrayLike) -> Calibration:
        """The curve under which what was seen is likeliest.

        Args:
            probability: (N,) what the numbering said.
            is_right: (N,) whether it was right.

        Raises:
            ValueError: There is nothing to fit to.
        """
        logit, right = _logit(probability), np.asarray(is_right, float)
        if logit.ndim != 1 or logit.shape != right.shape or len(logit) == 0:
            raise ValueError(f"Probabilities and answers must be two lists of one length, got {logit.shape} and {right.shape}.")

        def surprise(parameters: npt.NDArray[np.float64]) -> float:
            score = np.exp(parameters[0]) * logit + parameters[1]
            return float(np.mean(np.logaddexp(0, score) - right * score)) + 1e-3 * float(parameters @ parameters)

        found = minimize(surprise, np.zeros(2), method="BFGS").x
        return cls(float(np.exp(found[0])), float(found[1]))


UNCORRECTED = Calibration()
"""Confidences as the numbering says them."""


def _logit(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    clipped = np.clip(np.asarray(probability, float), _TINY, 1 - _TINY)
    return np.asarray(np.log(clipped / (1 - clipped)))
