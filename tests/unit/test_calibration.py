"""Reliability tables and the expected calibration error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_spine.anatomy import Severity
from monai_spine.training.calibration import expected_calibration_error, reliability_table
from monai_spine.training.score import reweight


def test_honest_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1, 1), size=40_000)
    labels = (rng.random((40_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    for severity in (None, *Severity):
        assert expected_calibration_error(reliability_table(probabilities, labels, severity=severity)) < 0.01


def test_probabilities_scaled_for_the_score_are_calibrated_under_its_weights_only() -> None:
    rng = np.random.default_rng(0)
    honest = np.tile([0.7, 0.2, 0.1], (40_000, 1))
    labels = rng.choice(3, size=40_000, p=(0.7, 0.2, 0.1))
    scaled = reweight(honest)
    assert expected_calibration_error(reliability_table(scaled, labels, weights=2.0**labels)) < 0.01
    assert expected_calibration_error(reliability_table(scaled, labels)) > 0.2


def test_bins_hold_their_upper_edge_and_the_lowest_holds_zero() -> None:
    probabilities = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    table = reliability_table(probabilities, np.array([0, 0, 0]), severity=Severity.NORMAL_MILD, bins=2)
    assert [(row.lower, row.upper, row.count) for row in table] == [(0.0, 0.5, 2), (0.5, 1.0, 1)]
    assert (table[0].predicted, table[0].observed) == (0.25, 1.0)
    assert expected_calibration_error(table) == pytest.approx(0.5)


def test_no_rows_have_no_calibration_error() -> None:
    assert math.isnan(expected_calibration_error(reliability_table(np.empty((0, 3)), np.empty(0))))


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Probabilities must be \(N, classes\).* got \(2,\), \(1,\), \(1,\)"):
        reliability_table(np.array([0.5, 0.5]), np.array([0]))
    with pytest.raises(ValueError, match=r"severities must be \(N, 3\), got \(1, 2\)"):
        reliability_table(np.array([[0.5, 0.5]]), np.array([0]), severity=Severity.SEVERE)
    with pytest.raises(ValueError, match=r"Probabilities must be in \[0, 1\]"):
        reliability_table(np.array([[0.5, 0.7, -0.2]]), np.array([0]))
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        reliability_table(np.array([[1.0, 0.0, 0.0]]), np.array([0]), bins=0)
