"""From what a network says to an answer, where answers are unequally frequent: probabilities set right, then weighed.

    probabilities   p ∝ exp(z / T + b): one temperature T, and an offset b of each answer, as a training that saw simulated cases
                    beside real ones met other frequencies than there are
    the answer      argmax of w p, with weights w under which a figure of the answers is best, such as their mean F1

Both are fitted on other cases than those that they are used on. Offsets and the logarithm of T are drawn to 0 as one more case
would draw them.

Source: Alexandari, Kundaje, Shrikumar, Maximum likelihood with bias-corrected calibration is hard to beat at label shift
adaptation, ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

__all__ = ["Offset", "balanced_weights", "fit_offset", "macro_f1_weights"]

Array = npt.NDArray[np.float64]

_STEPS = np.geomspace(1 / 4, 4, 13)
_BEST_SHARE = 0.03


@dataclass(frozen=True)
class Offset:
    """What was fitted.

    Attributes:
        temperature: T; above 1 where the network is too sure of itself.
        offsets: b of each answer (C,), of mean 0.
    """

    temperature: float
    offsets: Array

    def __call__(self, logits: Array) -> Array:
        """Probabilities (N, C) of logits (N, C)."""
        shifted = logits / self.temperature + self.offsets
        powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        result: Array = powers / powers.sum(axis=1, keepdims=True)
        return result


def fit_offset(logits: Array, labels: npt.NDArray[np.int64]) -> Offset:
    """Temperature and offsets at which the log loss of logits (N, C) against labels (N,) is least.

    Raises:
        ValueError: There is no row.
    """
    if not len(labels):
        raise ValueError("There is no labelled row to fit to.")

    def offset_of(values: Array) -> Offset:
        return Offset(float(np.exp(values[0])), values[1:] - values[1:].mean())

    def loss(values: Array) -> float:
        chosen = offset_of(values)(logits)[np.arange(len(labels)), labels]
        return float(-np.log(np.clip(chosen, 1e-12, None)).mean() + (values**2).sum() / len(labels))

    return offset_of(minimize(loss, np.zeros(1 + logits.shape[1]), method="BFGS").x)


def macro_f1_weights(probabilities: Array, labels: npt.NDArray[np.int64]) -> Array:
    """Weights (C,) of answers, the first 1, under which the mean F1 of the classes is best.

    The single best is chance: given is the geometric mean of the best 3 of 100 tried, from a quarter to four times the first.

    Args:
        probabilities: (N, C).
        labels: (N,).
    """
    classes = probabilities.shape[1]
    tried = np.array([(1.0, *rest) for rest in product(_STEPS, repeat=classes - 1)])
    answered = np.stack([(probabilities * weights).argmax(axis=1) for weights in tried])
    scores = np.zeros(len(tried))
    for one in range(classes):
        said, true = answered == one, labels == one
        scores += 2 * (said & true).sum(axis=1) / np.maximum(said.sum(axis=1) + true.sum(), 1)
    best = np.argsort(-scores, kind="stable")[: max(1, round(_BEST_SHARE * len(tried)))]
    result: Array = np.exp(np.log(tried[best]).mean(axis=0))
    return result


def balanced_weights(labels: npt.NDArray[np.int64], classes: int) -> Array:
    """Weights (C,) of answers, the first 1, under which the mean share of each class that is found is best: 1 / frequency."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    result: Array = counts[0] / counts
    return result
