"""The simulated readers: their grades are spread as the real tables say, and what can be known of them is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_spine.anatomy import TARGETS, Severity
from monai_spine.errors import TableError
from monai_spine.phantom.floor import floor
from monai_spine.phantom.readers import class_shares, narrowing, posterior, reader_posterior, sample_reading
from monai_spine.studies.priors import prior_probabilities


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(2024)
    return [sample_reading(rng) for _ in range(2500)]


def test_grade_borders_lie_at_a_third_and_two_thirds():
    np.testing.assert_allclose(narrowing([0.0, 1.0]), [1 / 3, 2 / 3])


def test_posterior_sums_to_one_and_is_sure_far_from_the_borders():
    probabilities = posterior([-5.0, 0.5, 6.0], 0.2)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    assert probabilities.argmax(-1).tolist() == [0, 1, 2]
    assert probabilities[[0, 2], [0, 2]].min() > 0.999


def test_class_shares_follow_the_real_tables(readings):
    expected = np.array([prior_probabilities(target) for target in TARGETS])
    assert np.abs(class_shares(readings) - expected).max() < 0.03


def test_sides_and_neighbouring_levels_rise_together(readings):
    worse = np.array([[severity is not Severity.NORMAL_MILD for severity in reading.severities] for reading in readings], float)
    slugs = [target.slug for target in TARGETS]
    pair = worse[:, [slugs.index("left_subarticular_stenosis_l4_l5"), slugs.index("right_subarticular_stenosis_l4_l5")]]
    neighbours = worse[:, [slugs.index("spinal_canal_stenosis_l3_l4"), slugs.index("spinal_canal_stenosis_l4_l5")]]
    assert np.corrcoef(pair.T)[0, 1] > 0.3
    assert np.corrcoef(neighbours.T)[0, 1] > 0.25


def test_stated_probabilities_come_true(readings):
    stated = reader_posterior(np.array([reading.latents for reading in readings]))[..., 2].ravel()
    severe = np.array([[severity is Severity.SEVERE for severity in reading.severities] for reading in readings]).ravel()
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 0.8)):
        chosen = (stated > low) & (stated < high)
        assert severe[chosen].mean() == pytest.approx(stated[chosen].mean(), abs=0.04)


def test_floor_and_prior_lie_where_a_hard_but_fair_set_has_them(readings, tmp_path):
    chosen = readings[:1200]
    ids = np.arange(1, len(chosen) + 1)
    slugs = [target.slug for target in TARGETS]
    latents = pd.DataFrame([reading.latents for reading in chosen], columns=slugs)
    latents.insert(0, "study_id", ids)
    latents.to_csv(tmp_path / "latents.csv", index=False)
    labels = pd.DataFrame([[severity.label for severity in reading.severities] for reading in chosen], columns=slugs)
    labels.insert(0, "study_id", ids)
    _official_columns(labels).to_csv(tmp_path / "train.csv", index=False)
    bounds = floor(tmp_path)
    assert 0.25 <= bounds.floor.score <= 0.35
    assert bounds.prior.score == pytest.approx(0.79, abs=0.02)
    part = floor(tmp_path, [str(number) for number in ids[:400]])
    assert part.floor.counts["any_severe_spinal"] == 400
    with pytest.raises(TableError, match="lacks 1 of 2 studies, such as 9999"):
        floor(tmp_path, ["1", "9999"])


def _official_columns(labels: pd.DataFrame) -> pd.DataFrame:
    from monai_spine.studies.rsna2024 import TRAIN_COLUMNS

    return labels[list(TRAIN_COLUMNS)]
