"""Wrong labels are found by what other folds predict, and kept out of training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_spine.anatomy import TARGETS, Severity
from monai_spine.errors import TableError
from monai_spine.studies.priors import submission_prior
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.studies.table_output import write_rows
from monai_spine.training.noisy_labels import (
    COLUMNS,
    confident_thresholds,
    contradicted,
    noisy_rows,
    read_noisy,
    without_noise,
    write_noisy,
)
from monai_spine.training.score import reweight

TOOL = Path(__file__).parents[2] / "tools" / "find_noisy_labels.py"
SHARES = np.array([0.75, 0.16, 0.09])
SLUGS = [severity.slug for severity in Severity]


def observed(count: int, *, steps: float = 2.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that are exactly calibrated, the labels of which a tenth is exchanged for another one, and which.

    A hidden narrowing of 0, 1 or 2 is seen with a Gaussian error of 1 / `steps`; the posterior is what a perfect grader says.
    """
    rng = np.random.default_rng(seed)
    true = rng.choice(3, size=count, p=SHARES)
    seen = true + rng.normal(0, 1 / steps, count)
    density = SHARES * np.exp(-0.5 * (steps * (seen[:, None] - np.arange(3))) ** 2)
    flipped = rng.random(count) < 0.1
    labels = np.where(flipped, (true + rng.integers(1, 3, count)) % 3, true)
    return density / density.sum(axis=1, keepdims=True), labels, flipped


def precision_and_recall(listed: np.ndarray, flipped: np.ndarray) -> tuple[float, float]:
    return float(flipped[listed].mean()), float(listed[flipped].mean())


def test_of_ten_percent_exchanged_labels_most_are_found_and_most_that_are_found_were_exchanged() -> None:
    probabilities, labels, flipped = observed(20_000)
    precision, recall = precision_and_recall(contradicted(probabilities, labels, margin=0.6) >= 0, flipped)
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    assert precision > 0.75
    assert recall > 0.74


def test_a_larger_margin_is_surer_and_finds_less() -> None:
    probabilities, labels, flipped = observed(20_000)
    found = [precision_and_recall(contradicted(probabilities, labels, margin=margin) >= 0, flipped) for margin in (0.0, 0.6, 0.9)]
    assert [precision for precision, _ in found] == sorted(precision for precision, _ in found)
    assert [recall for _, recall in found] == sorted((recall for _, recall in found), reverse=True)


def test_what_is_suggested_is_mostly_the_true_label() -> None:
    probabilities, labels, flipped = observed(20_000)
    true = observed_truth(20_000)
    suggested = contradicted(probabilities, labels, margin=0.6)
    right = (suggested == true)[flipped & (suggested >= 0)]
    assert right.mean() > 0.95


def observed_truth(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(3, size=count, p=SHARES)


def test_thresholds_are_the_mean_confidence_in_each_label_s_own_severity() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    assert confident_thresholds(probabilities, np.array([0, 0, 1])).tolist() == pytest.approx([0.7, 0.5, np.inf])


def test_a_severity_that_is_never_the_label_is_never_suggested() -> None:
    probabilities = np.array([[0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    assert contradicted(probabilities, np.array([0, 0, 1])).tolist() == [-1, -1, -1]


def test_thresholds_are_made_for_each_condition_apart() -> None:
    """Where predictions are surer, more is asked of what contradicts a label."""
    rows = [
        ("sure_mild", "a", 0, 0.95),
        ("sure_moderate", "a", 1, 0.05),
        ("sure_doubted", "a", 1, 0.8),
        ("unsure_mild", "b", 0, 0.6),
        ("unsure_moderate", "b", 1, 0.3),
        ("unsure_doubted", "b", 1, 0.8),
    ]
    columns = ["row_id", "condition", "label", *PROBABILITIES]
    table = pd.DataFrame([(*row, 1 - row[3], 0.0) for row in rows], columns=columns)
    assert noisy_rows(table)["row_id"].tolist() == ["unsure_doubted"]
    assert noisy_rows(table.assign(condition="one"))["row_id"].tolist() == ["sure_doubted", "unsure_doubted"]


def items() -> list[dict[str, Any]]:
    return [{"case": "1", "target": target.slug, "label": at % 3, "image": "x.nii"} for at, target in enumerate(TARGETS[:6])]


def noisy_table(path: Path, *, label: str = "moderate") -> Path:
    row = (f"1_{TARGETS[1].slug}", label, "severe", 0.7, 0.1, 0.1, 0.8)
    write_noisy(pd.DataFrame([row], columns=list(COLUMNS)), path)
    return path


def test_contradicted_labels_are_left_out(tmp_path: Path) -> None:
    kept = without_noise(items(), noisy_table(tmp_path / "noisy.csv"))
    assert [item["target"] for item in kept] == [target.slug for at, target in enumerate(TARGETS[:6]) if at != 1]
    assert all("shares" not in item for item in kept)


def test_contradicted_labels_are_softened_by_the_prediction_and_the_others_stay(tmp_path: Path) -> None:
    kept = without_noise(items(), noisy_table(tmp_path / "noisy.csv"), action="soften", trust=0.25)
    assert kept[1]["shares"] == pytest.approx([0.075, 0.325, 0.6])
    assert [item["shares"] for item in kept[::2]] == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert items()[1] == {key: value for key, value in kept[1].items() if key != "shares"}


def test_a_table_of_other_data_or_other_labels_is_refused(tmp_path: Path) -> None:
    path = noisy_table(tmp_path / "noisy.csv", label="severe")
    with pytest.raises(TableError, match=r"takes '1_.*' for severe, the training data for moderate \(1 such rows\)"):
        without_noise(items(), path)
    with pytest.raises(TableError, match=r"None of the 1 rows of .* belongs to the 6 training items"):
        without_noise([{**item, "case": "2"} for item in items()], path)
    with pytest.raises(ValueError, match=r"action must be drop or soften and trust in \[0, 1\], got 'erase' and 0.5"):
        without_noise(items(), path, action="erase")  # type: ignore[arg-type]


def test_probabilities_that_are_none_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "noisy.csv", COLUMNS, [("1_x", "severe", "moderate", 0.1, 0.5, 0.6, 0.1)])
    with pytest.raises(TableError, match=r"line 2: 0.5, 0.6, 0.1 are no probabilities. Write the table again"):
        read_noisy(tmp_path / "noisy.csv")


@pytest.mark.parametrize("frequencies", [False, True])
def test_the_tool_lists_what_was_exchanged_in_a_submission(tmp_path: Path, frequencies: bool) -> None:
    studies = [str(4_290_000_000 + number) for number in range(200)]
    probabilities, labels, flipped = observed(25 * len(studies), steps=4)
    names = [f"{study}_{target.slug}" for study in studies for target in TARGETS]
    submitted = probabilities if frequencies else reweight(probabilities)
    flipped[:25], submitted[:25] = False, [submission_prior(target) for target in TARGETS]
    write_rows(tmp_path / "oof.csv", ("row_id", *PROBABILITIES), [(n, *row) for n, row in zip(names, submitted, strict=True)])
    one_hot = np.eye(3, dtype=int)[labels]
    write_rows(tmp_path / "true.csv", ("row_id", *PROBABILITIES), [(n, *row) for n, row in zip(names, one_hot, strict=True)])
    command = [sys.executable, TOOL, tmp_path / "oof.csv", "--solution", tmp_path / "true.csv", "-o", tmp_path / "noisy.csv"]
    done = subprocess.run([*command, *["--frequencies"] * frequencies], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = np.isin(names, list(read_noisy(tmp_path / "noisy.csv")))
    precision, recall = precision_and_recall(listed, flipped)
    assert precision > 0.9
    assert recall > 0.9
    assert f"{listed.sum()} of {5000 if frequencies else 4975} labels are contradicted" in done.stdout


def test_cleaning_without_a_table_says_who_writes_one() -> None:
    with pytest.raises(TableError, match=r"Give one with --noisy_labels; tools/find_noisy_labels.py writes it"):
        without_noise(items(), None)
