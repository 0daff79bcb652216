"""Features of several trainings brought into the terms of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ortho_group
from tiny_features import correlated

from monai_spine.errors import TableError
from monai_spine.training.feature_alignment import aligned, stacked
from monai_spine.training.study_features import StudyFeatures


def in_other_terms(studies: StudyFeatures) -> StudyFeatures:
    """The same features as another training would find them: turned, stretched, shifted."""
    turn = ortho_group.rvs(4, random_state=0)
    return replace(studies, features=(3.0 * studies.features @ turn + 5.0).astype(np.float32), grader=np.array(["x", "y", "z"]))


def test_a_rotation_a_shift_and_a_scale_are_undone() -> None:
    studies, anchors = correlated(5, 1), replace(correlated(20, 2), grader=np.array(["a", "b", "c"]))
    found = aligned(in_other_terms(studies), in_other_terms(anchors), anchors)
    np.testing.assert_allclose(found.features, studies.features, atol=1e-4)
    assert found.grader.tolist() == ["a", "b", "c"]
    assert np.array_equal(found.logits, studies.logits)


def test_what_has_been_seen_on_other_studies_or_by_other_graders_is_not_held_together() -> None:
    studies = correlated(3, 1)
    with pytest.raises(TableError, match=r"Features of 4 anchors .* cannot be held against those of 3"):
        aligned(studies, correlated(4, 2), correlated(3, 2))
    nothing = replace(studies, present=np.zeros_like(studies.present))
    with pytest.raises(TableError, match="The anchors have 0 targets of spinal canal stenosis"):
        aligned(studies, nothing, studies)


def test_files_are_stacked_and_say_whose_features_they_hold() -> None:
    one, other = correlated(3, 1), in_other_terms(correlated(2, 2))
    both = stacked([one, other])
    assert both.case.tolist() == [*one.case, *other.case]
    assert np.array_equal(both.features[3:], other.features)
    assert both.grader.tolist() == ["", "", ""]
    assert stacked([other]).grader.tolist() == ["x", "y", "z"]
    with pytest.raises(TableError, match="A study lies in two files"):
        stacked([one, one])
    with pytest.raises(TableError, match="different graders cannot be put together"):
        stacked([one, replace(other, widths=np.array([4, 4, 5]))])
