"""How sure a level is, so that of levels with a confidence of 0.9 nine in ten are right.

The numbering takes its discs for independent witnesses, which they are not: where one is misread, its neighbours mostly are too.
So what it says is too sure, most of all where the sacrum is not seen, from which names are counted. It is corrected by a curve
with three parameters, fitted on scans that no training had seen.

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
        without_sacrum: Added to the logit, too, where the sacrum is not seen.
    """

    slope: float = 1.0
    offset: float = 0.0
    without_sacrum: float = 0.0

    def __call__(self, probability: npt.ArrayLike, is_without_sacrum: npt.ArrayLike = False) -> npt.NDArray[np.float64]:
        """Confidences, 0 to 1, of probabilities of any shape.

        Args:
            probability: What the numbering says.
            is_without_sacrum: Whether the column bears the flag `sacrum_not_seen`: one for all, or one each.
        """
        shift = self.offset + self.without_sacrum * np.asarray(is_without_sacrum, float)
        return np.asarray(1 / (1 + np.exp(-self.slope * _logit(probability) - shift)))

    @classmethod
    def from_config(cls, config: Mapping[str, float]) -> Calibration:
        """Read the `confidence` section of the naming bundle's config.

        Raises:
            WeightsError: It has other entries than a slope above 0, an offset, and what is added without a sacrum.
        """
        try:
            found = cls(**{name: float(value) for name, value in config.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The confidence section of the naming bundle cannot be used ({type(error).__name__}: {error}). "
                "It holds the numbers slope, offset and without_sacrum."
            ) from error
        if not (0 < found.slope < np.inf and np.isfinite(found.offset + found.without_sacrum)):
            raise WeightsError(
                f"The confidence section of the naming bundle says {found}; the slope has to lie above 0, and all be finite."
            )
        return found

    @classmethod
    def fit(cls, probability: npt.ArrayLike, is_right: npt.ArrayLike, is_without_sacrum: npt.ArrayLike = False) -> Calibration:
        """The curve under which what was seen is likeliest.

        Args:
            probability: (N,) what the numbering said.
            is_right: (N,) whether it was right.
            is_without_sacrum: One for all, or (N,).

        Raises:
            ValueError: There is nothing to fit to.
        """
        logit, right = _logit(probability), np.asarray(is_right, float)
        if logit.ndim != 1 or logit.shape != right.shape or len(logit) == 0:
            raise ValueError(f"Probabilities and answers must be two lists of one length, got {logit.shape} and {right.shape}.")
        without = np.broadcast_to(np.asarray(is_without_sacrum, float), logit.shape)

        def surprise(parameters: npt.NDArray[np.float64]) -> float:
            score = np.exp(parameters[0]) * logit + parameters[1] + parameters[2] * without
            return float(np.mean(np.logaddexp(0, score) - right * score)) + 1e-3 * float(parameters @ parameters)

        found = minimize(surprise, np.zeros(3), method="BFGS").x
        return cls(float(np.exp(found[0])), float(found[1]), float(found[2]))


UNCORRECTED = Calibration()
"""Confidences as the numbering says them."""


def _logit(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    clipped = np.clip(np.asarray(probability, float), _TINY, 1 - _TINY)
    return np.asarray(np.log(clipped / (1 - clipped)))
