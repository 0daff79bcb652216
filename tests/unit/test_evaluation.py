"""What `monai-spine evaluate` computes and prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_spine.anatomy import TARGETS, Condition, Severity
from monai_spine.errors import TableError
from monai_spine.evaluation import evaluate_tables, format_evaluation, studies_of_part
from monai_spine.studies.rsna2024 import (
    StudyLabels,
    SubmissionRow,
    read_train,
    solution_from_train,
    write_submission,
    write_train_tables,
)


def write_tables(folder: Path, *, studies: int = 4, labelled: str = "") -> tuple[Path, Path]:
    """Random labels for the targets whose slug contains `labelled`, and a random submission."""
    rng = np.random.default_rng(0)
    severities = list(Severity)
    labels = [
        StudyLabels(study, {target: severities[rng.integers(3)] for target in TARGETS if labelled in target.slug})
        for study in range(1, studies + 1)
    ]
    write_train_tables(folder, labels=labels, points=[], series=[])
    rows = [
        SubmissionRow(study, target, tuple(rng.dirichlet((1, 1, 1)).tolist()))
        for study in range(1, studies + 2)
        for target in TARGETS
    ]
    write_submission(rows, folder / "submission.csv")
    return folder / "train.csv", folder / "submission.csv"


def test_the_text_gives_the_score_and_its_parts_with_six_decimals(tmp_path: Path) -> None:
    evaluation = evaluate_tables(*write_tables(tmp_path))
    lines = format_evaluation(evaluation).splitlines()
    printed = {line.split()[0]: line.split()[1] for line in lines if "   " in line}
    assert printed == {"score": f"{evaluation.score.score:.6f}"} | {
        part: f"{value:.6f}" for part, value in evaluation.score.parts.items()
    }
    assert "(4 studies); lower is better" in lines[1]
    assert "25 rows of the submission were ignored" in lines[-1]


def test_a_part_without_labels_is_named_and_no_score_is_made_up(tmp_path: Path) -> None:
    text = format_evaluation(evaluate_tables(*write_tables(tmp_path, labelled="subarticular"), calibration=True))
    assert "No label for spinal, foraminal, any_severe_spinal: the score is not defined." in text
    assert "nan" not in text


def test_weights_of_zero_are_no_solution(tmp_path: Path) -> None:
    solution, submission = write_tables(tmp_path)
    long = solution_from_train(read_train(solution)).assign(sample_weight=0)
    long.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(TableError, match=r"Every label of .*long\.csv has the weight 0: there is nothing to score"):
        evaluate_tables(tmp_path / "long.csv", submission)


def test_calibration_has_one_table_for_each_condition(tmp_path: Path) -> None:
    evaluation = evaluate_tables(*write_tables(tmp_path, studies=30), calibration=True)
    text = format_evaluation(evaluation)
    assert [found.condition for found in evaluation.calibration] == list(Condition)
    assert [found.rows for found in evaluation.calibration] == [150, 300, 300]
    for found in evaluation.calibration:
        assert sum(row.count for row in found.reliability) == found.rows
        assert f"expected calibration error {found.error:.6f}" in text
        assert f"Calibration of {found.condition.label}" in text


def test_an_error_names_the_files(tmp_path: Path) -> None:
    solution, submission = write_tables(tmp_path)
    with pytest.raises(TableError, match=r"train\.csv has no column row_id"):
        evaluate_tables(solution, solution)
    with pytest.raises(TableError, match=r"nowhere\.csv cannot be read"):
        evaluate_tables(tmp_path / "nowhere.csv", submission)


def test_evaluation_does_not_wait_for_torch() -> None:
    code = "import sys, monai_spine.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    path = tmp_path / "splits.csv"
    path.write_text("study_id,patient,70_15_15,fold\n1,1,test,0\n2,2,training,1\n3,3,training,0\n4,4,test,\n", encoding="utf-8")
    return path


def test_one_fold_is_scored_alone(tmp_path: Path, splits: Path) -> None:
    solution, submission = write_tables(tmp_path)
    whole = evaluate_tables(solution, submission)
    part = evaluate_tables(solution, submission, studies=studies_of_part(splits, "fold=0"))
    assert (part.studies, part.score.counts["spinal"]) == (2, 10)
    assert part.score.ignored_rows == 75
    lines = solution.read_text().splitlines(keepends=True)
    solution.write_text("".join([lines[0], *(line for line in lines if line.startswith(("1,", "3,")))]))
    assert part.score.score == evaluate_tables(solution, submission).score.score != whole.score.score


@pytest.mark.parametrize(
    ("part", "message"), [("fold", "fold=0, fold=1"), ("fold=7", "fold=0, fold=1"), ("patient=1", "70_15_15, fold")]
)
def test_a_part_that_is_none_is_refused(splits: Path, part: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        studies_of_part(splits, part)


def test_a_solution_without_the_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="none of the studies"):
        evaluate_tables(*write_tables(tmp_path), studies={"77"})
