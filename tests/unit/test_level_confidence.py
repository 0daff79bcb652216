"""Confidences say how often levels are right."""

from __future__ import annotations

import numpy as np
import pytest

from monai_spine.errors import WeightsError
from monai_spine.level_confidence import UNCORRECTED, Calibration


def too_sure(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits are twice what they should be, and whether each was right."""
    draws = np.random.default_rng(0)
    logit = draws.normal(2.0, 1.0, count)
    return 1 / (1 + np.exp(-2 * logit)), draws.random(count) < 1 / (1 + np.exp(-logit))


def test_what_is_too_sure_becomes_as_sure_as_it_is_right() -> None:
    said, right = too_sure()
    half = len(said) // 2
    found = Calibration.fit(said[:half], right[:half])
    assert found.slope == pytest.approx(0.5, abs=0.1)
    corrected = found(said[half:])
    sure = corrected > 0.9
    observed = right[half:][sure].mean()
    assert abs(corrected[sure].mean() - observed) < 0.02 < abs(said[half:][sure].mean() - observed)


def test_the_order_stays_and_the_ends_are_finite() -> None:
    corrected = Calibration(0.4, -0.3)(np.array([0.0, 0.2, 0.7, 1.0]))
    assert (np.diff(corrected) > 0).all()
    assert corrected[0] > 0
    assert corrected[-1] < 1


def test_uncorrected_is_what_was_said() -> None:
    np.testing.assert_allclose(UNCORRECTED([0.1, 0.5, 0.97]), [0.1, 0.5, 0.97])


def test_nothing_cannot_be_fitted_to() -> None:
    with pytest.raises(ValueError, match="one length"):
        Calibration.fit([], [])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"slope": 0.0, "offset": 0.0}, "slope=0.0.*above 0"),
        ({"slope": 1.0, "offset": float("nan")}, "offset=nan"),
        ({"slope": "steep"}, "could not convert"),
        ({"gradient": 1.0}, "gradient"),
        (None, "AttributeError"),
    ],
)
def test_a_section_that_makes_no_curve_is_refused(config: dict, said: str) -> None:
    with pytest.raises(WeightsError, match=rf"confidence section of the naming bundle.*{said}"):
        Calibration.from_config(config)


def test_a_section_is_read() -> None:
    assert Calibration.from_config({"slope": 0.5, "offset": -1}) == Calibration(0.5, -1.0)


def test_without_a_sacrum_it_is_corrected_apart() -> None:
    said, right = too_sure()
    draws = np.random.default_rng(1)
    without = draws.random(len(said)) < 0.3
    right = np.where(without, draws.random(len(said)) < 0.5, right)
    found = Calibration.fit(said, right, without)
    corrected = found(said, without)
    assert corrected[without].mean() == pytest.approx(0.5, abs=0.03)
    assert corrected[~without].mean() == pytest.approx(right[~without].mean(), abs=0.03)
    assert found(0.9, True) < found(0.9)
