"""What the disc grader's cross-validation reports: nothing of a fold is fitted on that fold, what was not found is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from cross_validation.disc_report import COLUMNS, out_of_fold, report

from monai_spine.degeneration import HEADS


def answers(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that tell something of their labels, the labels, and folds."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return random.normal(0, 1, (count, classes)) + 1.5 * np.eye(classes)[labels], labels, np.arange(count) % 5


def table(found: np.ndarray) -> pd.DataFrame:
    """Answers about as many discs."""
    given = {head: answers(len(found), len(names), seed) for seed, (head, names) in enumerate(HEADS.items())}
    rows = pd.DataFrame({"fold": given["grade"][2], "case": "1", "target": "disc_l4_l5", "found": found})
    for head, names in HEADS.items():
        rows[[f"{head} {name}" for name in names]] = given[head][0]
        rows[f"true {head}"] = given[head][1]
    return rows[COLUMNS]


@pytest.mark.parametrize("head", HEADS)
def test_labels_of_a_fold_change_nothing_of_its_own_answers(head: str) -> None:
    logits, labels, folds = answers(200, len(HEADS[head]))
    found = np.arange(200) % 11 != 0
    before = out_of_fold(head, logits, labels, folds, found)
    others = np.where(folds == 2, (labels + 1) % len(HEADS[head]), labels)
    after = out_of_fold(head, logits, others, folds, found)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[folds == 2], other[folds == 2])
    assert not np.allclose(before[0][folds == 1], after[0][folds == 1])


def test_what_was_not_found_has_the_frequencies_of_the_other_folds() -> None:
    logits, labels, folds = answers(200, 4)
    found = np.arange(200) != 7
    probabilities, _ = out_of_fold("grade", logits, labels, folds, found)
    rest = labels[folds != folds[7]]
    np.testing.assert_allclose(probabilities[7], np.bincount(rest, minlength=4) / len(rest))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_structure_that_was_not_found_is_wrong_and_stands_in_the_first_column() -> None:
    every, some = np.ones(300, bool), np.arange(300) >= 30
    whole, less = report(table(every))["grade"], report(table(some))["grade"]
    assert (whole["found"], less["found"], less["rows"]) == (300, 270, 300)
    assert less["macro_f1"] < whole["macro_f1"] - 0.02  # type: ignore[operator]
    assert np.array(less["confusion"])[1:, 0].sum() == 30
    assert np.array(whole["confusion"]).sum() == np.array(less["confusion"]).sum() == 300


def test_answers_that_are_right_and_sure_are_all_that_can_be_reached() -> None:
    rows = table(np.ones(300, bool))
    for head, names in HEADS.items():
        rows[[f"{head} {name}" for name in names]] = 12.0 * np.eye(len(names))[rows[f"true {head}"]]
    for numbers in report(rows).values():
        assert numbers["macro_f1"] == numbers["balanced_accuracy"] == numbers["auroc_not_first"] == 1
        assert numbers["calibration_error"] < 0.02  # type: ignore[operator]


def test_the_report_says_what_an_analysis_is_to_be_given() -> None:
    rows = table(np.ones(400, bool))
    said = report(rows)["grade"]
    logits = rows[[f"grade {name}" for name in HEADS["grade"]]].to_numpy()
    even = softmax(logits / said["temperature"] + np.array(said["offsets"]), axis=1)
    called = (even * np.array(said["decision"])).argmax(axis=1)
    assert (called == rows["true grade"]).mean() > 0.6
