"""Probabilities set right and weighed, fitted on other cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from monai_spine.training.decisions import Offset, balanced_weights, fit_offset, macro_f1_weights


def cases(count: int, frequencies: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the chance of each class, and classes drawn by these chances."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.2, (count, len(frequencies))) + np.log(frequencies)
    chances = softmax(logits, axis=1)
    return logits, np.array([random.choice(len(frequencies), p=row) for row in chances])


def test_a_network_that_met_other_frequencies_and_is_too_sure_is_set_right() -> None:
    logits, labels = cases(6000, [0.5, 0.3, 0.2])
    shift = np.array([0.7, -0.4, -0.3])
    found = fit_offset(1.6 * (logits + shift), labels)
    assert found.temperature == pytest.approx(1.6, rel=0.08)
    np.testing.assert_allclose(found.offsets, -shift, atol=0.1)
    assert log_loss(labels, found(1.6 * (logits + shift))) == pytest.approx(log_loss(labels, softmax(logits, axis=1)), abs=0.002)


def test_probabilities_sum_to_one_however_large_the_logits() -> None:
    said = Offset(0.5, np.array([1.0, -1.0]))(np.array([[900.0, -900.0], [0.0, 0.0]]))
    np.testing.assert_allclose(said, [[1, 0], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]], atol=1e-12)


def test_a_few_cases_that_are_all_right_make_no_certainties() -> None:
    found = fit_offset(np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([0, 0]))
    assert 0.8 < found(np.array([[2.0, 0.0]]))[0, 0] < 0.99
    with pytest.raises(ValueError, match="no labelled row"):
        fit_offset(np.zeros((0, 2)), np.zeros(0, int))


def test_weights_find_the_rare_classes_on_cases_that_they_were_not_fitted_on() -> None:
    frequencies = [0.6, 0.25, 0.12, 0.03]
    fitted, tested = cases(3000, frequencies), cases(3000, frequencies, seed=1)
    weights = macro_f1_weights(softmax(fitted[0], axis=1), fitted[1])
    assert weights[0] == 1
    assert weights[3] > 1.5
    chances = softmax(tested[0], axis=1)
    plain, weighed = (f1_score(tested[1], values.argmax(axis=1), average="macro") for values in (chances, chances * weights))
    assert weighed > plain + 0.02


def test_two_classes_are_weighed_too() -> None:
    logits, labels = cases(4000, [0.9, 0.1])
    weights = macro_f1_weights(softmax(logits, axis=1), labels)
    assert weights[0] == 1
    assert weights[1] > 1


def test_weights_by_frequency_find_each_class_as_well() -> None:
    logits, labels = cases(4000, [0.2, 0.8])
    weights = balanced_weights(labels, 2)
    assert weights[1] == pytest.approx((labels == 0).sum() / (labels == 1).sum())
    chances = softmax(logits, axis=1)
    plain, weighed = (balanced_accuracy_score(labels, values.argmax(axis=1)) for values in (chances, chances * weights))
    assert weighed > plain + 0.03


def test_a_class_without_a_case_gets_a_finite_weight() -> None:
    assert np.isfinite(balanced_weights(np.array([0, 0, 2]), 3)).all()
