"""Temperature and weighting of predictions, fitted on other cases than those that they are used on.

    frequencies p       calibrated by one temperature T per condition: p ∝ p^(1/T)
    prediction q        scored best under weights w = 1, 2, 4: q ∝ w^s p, where s = 1 if p is calibrated

Both are drawn to 1 as one more finding would draw them, so that a handful of findings, all of them right, does not make
certainties of predictions; with hundreds it has no say.

A fitted s well below 1 tells of a model that was trained with the weights and does not give frequencies, or of one that sees more
severity than there is.

Source: Guo et al., On calibration of modern neural networks, ICML 2017 (temperature scaling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from monai_spine.anatomy import Severity

__all__ = ["Scaling", "cross_fitted", "fit_exponent", "fit_scaling", "fit_temperature", "tempered", "weighted"]

_WEIGHTS = np.array([severity.weight for severity in Severity], dtype=np.float64)
_LEAST = 1e-7
_TEMPERATURES = (0.05, 20.0)
_EXPONENTS = (-1.0, 3.0)


@dataclass(frozen=True)
class Scaling:
    """What was fitted.

    Attributes:
        temperature: T; above 1 where the model is too sure of itself.
        exponent: s of the weights.
    """

    temperature: float = 1.0
    exponent: float = 1.0


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., 3) at a temperature, above 0; the last axis sums to 1."""
    logarithms = np.log(np.clip(probabilities, _LEAST, None)) / temperature
    powers = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return result


def weighted(probabilities: np.ndarray, exponent: float | np.ndarray = 1.0) -> np.ndarray:
    """The prediction q ∝ w^s p of frequencies (..., 3); the last axis sums to 1."""
    scaled = probabilities * _WEIGHTS**exponent
    result: np.ndarray = scaled / scaled.sum(axis=-1, keepdims=True)
    return result


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the log loss of probabilities (N, 3) against labels (N,) is least.

    Raises:
        ValueError: There is no row.
    """

    def loss(logarithm: float) -> float:
        return _log_loss(tempered(probabilities, float(np.exp(logarithm))), labels) + logarithm**2 / len(labels)

    return float(np.exp(_least(loss, np.log(_TEMPERATURES), labels)))


def fit_exponent(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The exponent s at which q ∝ w^s p has the least log loss with rows weighted 1, 2, 4.

    Raises:
        ValueError: There is no row.
    """

    def loss(exponent: float) -> float:
        return _log_loss(weighted(probabilities, exponent), labels, _WEIGHTS[labels]) + (exponent - 1) ** 2 / len(labels)

    return _least(loss, _EXPONENTS, labels)


def fit_scaling(probabilities: np.ndarray, labels: np.ndarray) -> Scaling:
    """Temperature first, then the exponent of the weights at this temperature."""
    temperature = fit_temperature(probabilities, labels)
    return Scaling(temperature, fit_exponent(tempered(probabilities, temperature), labels))


def cross_fitted(probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> dict[object, Scaling]:
    """For each fold, what is fitted on all the others.

    Args:
        probabilities: (N, 3).
        labels: (N,), -1 where there is no label.
        folds: Name of each row's fold, (N,).

    Returns:
        Nothing fitted (T = s = 1) for a fold without labels elsewhere, as where there is one fold only.
    """
    result: dict[object, Scaling] = {}
    for fold in np.unique(folds).tolist():
        others = (folds != fold) & (labels >= 0)
        result[fold] = fit_scaling(probabilities[others], labels[others]) if others.any() else Scaling()
    return result


def _least(loss: Callable[[float], float], bounds: Sequence[float] | np.ndarray, labels: np.ndarray) -> float:
    if not len(labels):
        raise ValueError("There is no labelled row to fit to.")
    return float(minimize_scalar(loss, bounds=tuple(bounds), method="bounded", options={"xatol": 1e-4}).x)


def _log_loss(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    chosen = np.clip(probabilities[np.arange(len(labels)), labels], _LEAST, None)
    return float(np.average(-np.log(chosen), weights=weights))
