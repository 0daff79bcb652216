"""Temperature and weighting are found where they are known, and never from the cases that they are used on."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.training.scaling import (
    Scaling,
    cross_fitted,
    fit_exponent,
    fit_scaling,
    fit_temperature,
    tempered,
    weighted,
)
from monai_spine.training.score import reweight


def calibrated(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet((2, 1, 0.7), size=count)
    return probabilities, (rng.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_a_model_is_off_by_is_found(temperature: float) -> None:
    probabilities, labels = calibrated(40_000)
    assert fit_temperature(tempered(probabilities, 1 / temperature), labels) == pytest.approx(temperature, rel=0.03)


def test_calibrated_frequencies_are_weighted_once() -> None:
    probabilities, labels = calibrated(40_000)
    assert fit_exponent(probabilities, labels) == pytest.approx(1.0, abs=0.05)
    assert np.allclose(weighted(probabilities), reweight(probabilities))


def test_a_model_that_gives_weighted_predictions_already_is_not_weighted_again() -> None:
    probabilities, labels = calibrated(40_000)
    assert fit_exponent(reweight(probabilities), labels) == pytest.approx(0.0, abs=0.05)


def test_what_a_fold_says_of_itself_has_no_say() -> None:
    probabilities, labels = calibrated(3000)
    folds = np.arange(3000) % 3
    twisted = labels.copy()
    twisted[folds == 1] = 2 - labels[folds == 1]
    before, after = cross_fitted(probabilities, labels, folds), cross_fitted(probabilities, twisted, folds)
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_one_fold_alone_is_not_scaled() -> None:
    probabilities, labels = calibrated(100)
    assert cross_fitted(probabilities, labels, np.zeros(100)) == {0.0: Scaling(1.0, 1.0)}


def test_rows_without_a_label_do_not_count() -> None:
    probabilities, labels = calibrated(2000)
    more = np.concatenate([probabilities, probabilities[:500]])
    unlabelled = np.concatenate([labels, np.full(500, -1)])
    folds = np.arange(2500) % 2
    assert cross_fitted(more, unlabelled, folds)[0] == fit_scaling(probabilities[1::2], labels[1::2])


def test_a_handful_of_findings_all_of_them_right_makes_no_certainties() -> None:
    probabilities = np.array([[0.9, 0.07, 0.03]] * 5)
    found = fit_scaling(probabilities, np.zeros(5, dtype=int))
    assert 0.5 < found.temperature < 1
    assert 0 < found.exponent < 1


def test_certain_predictions_stay_finite() -> None:
    certain = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = fit_scaling(certain, np.array([0, 2]))
    assert np.isfinite(tempered(certain, found.temperature)).all()
    assert found.temperature > 1
    with pytest.raises(ValueError, match="no labelled row to fit to"):
        fit_temperature(certain[:0], np.array([], dtype=int))
