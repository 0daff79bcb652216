"""The surer a grader is, the more rarely it errs: risk over coverage."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.training.calibration_pictures import risk_figure
from monai_spine.training.risk_coverage import risk_coverage

PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.1, 0.6], [0.5, 0.4, 0.1]])


def test_risk_is_counted_among_what_is_kept() -> None:
    curve = risk_coverage(PROBABILITIES, np.array([0, 1, 0, 1]))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6, 0.5]
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert (curve.coverage_at(0.0), curve.coverage_at(0.4), curve.risk_at(0.6)) == (0.5, 0.75, pytest.approx(1 / 3))


def test_findings_of_equal_confidence_are_kept_together() -> None:
    curve = risk_coverage(np.array([[0.8, 0.2, 0.0]] * 3 + [[0.9, 0.1, 0.0]]), np.array([0, 1, 1, 0]))
    assert curve.coverage.tolist() == [0.25, 1.0]
    assert curve.risk.tolist() == [0.0, 0.5]


def test_nothing_can_be_kept_where_the_surest_is_wrong() -> None:
    assert risk_coverage(PROBABILITIES, np.array([2, 0, 0, 1])).coverage_at(0.1) == 0.0


def test_of_calibrated_frequencies_the_surest_half_errs_less() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1, 1), size=4000)
    labels = (rng.random((4000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2)
    curve = risk_coverage(probabilities, labels)
    assert curve.risk_at(0.5) < 0.75 * curve.risk_at(1.0)


@pytest.mark.parametrize(("rows", "first"), [(400, 0.05), (30, 0.5), (1, 1.0)])
def test_a_curve_is_drawn_from_twenty_findings_on_or_from_half_of_fewer(rows: int, first: float) -> None:
    probabilities = np.linspace((0.9, 0.1, 0.0), (0.4, 0.3, 0.3), rows)
    curve = risk_coverage(probabilities, np.array([1] + [0] * (rows - 1)))
    (line,) = risk_figure({"canal": curve}).axes[0].lines
    assert line.get_xdata()[0] == pytest.approx(first)
    assert line.get_xdata()[-1] == 1.0
    assert len(line.get_xdata()) == max(1, rows - round(first * rows) + 1)


def test_nothing_has_no_curve() -> None:
    with pytest.raises(ValueError, match=r"must be \(N, 3\) and labels \(N,\), N > 0, got \(0, 3\)"):
        risk_coverage(np.empty((0, 3)), np.empty(0, dtype=int))
