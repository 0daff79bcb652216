"""`monai-spine evaluate`: score a submission against what is true, and look at its calibration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_spine.anatomy import Condition
from monai_spine.errors import TableError
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import read_submission
from monai_spine.training.calibration import ReliabilityBin, expected_calibration_error, reliability_table
from monai_spine.training.score import PARTS, Score, ScoredRows, match_rows, score_rows

__all__ = ["ConditionCalibration", "Evaluation", "evaluate_tables", "format_evaluation", "studies_of_part"]


@dataclass(frozen=True)
class ConditionCalibration:
    """How far the probabilities of one condition can be believed; sides and levels together.

    Attributes:
        condition: Which one.
        rows: Labelled rows.
        error: Expected calibration error of the most probable severity, each row counted once.
        weighted_error: The same with rows weighted 1, 2, 4 as in the score; for a submission that is scaled for it.
        reliability: The table behind `error`.
        weighted_reliability: The table behind `weighted_error`.
    """

    condition: Condition
    rows: int
    error: float
    weighted_error: float
    reliability: tuple[ReliabilityBin, ...]
    weighted_reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Evaluation:
    """The score of a submission, its source, and the calibration where it was asked for (empty otherwise)."""

    solution: str
    submission: str
    studies: int
    score: Score
    calibration: tuple[ConditionCalibration, ...] = ()


def evaluate_tables(
    solution_path: Path | str,
    submission_path: Path | str,
    *,
    studies: Collection[str] | None = None,
    calibration: bool = False,
) -> Evaluation:
    """Score a submission with the official score.

    Args:
        solution_path: Wide train.csv, or long solution.csv (row_id, one-hot columns, sample_weight).
        submission_path: row_id, normal_mild, moderate, severe; all 25 rows of each study that is scored.
        studies: Ids of those that are scored, as `studies_of_part` gives them; None: all of the solution.
        calibration: Also compute calibration errors and reliability tables for each condition.

    Raises:
        TableError: A table breaks its specification, rows are missing, or nothing is labelled.
    """
    solution = read_solution(solution_path)
    if studies is not None:
        solution = solution[solution["study"].isin(list(studies))].reset_index(drop=True)
    if not len(solution):
        raise TableError(f"{solution_path} has none of the studies that are to be scored. Give the solution that has them.")
    rows = match_rows(solution, read_submission(submission_path), names=(str(solution_path), str(submission_path)))
    if not rows.weight.any():
        raise TableError(
            f"Every label of {solution_path} has the weight 0: there is nothing to score. The official ones are 1, 2, 4."
        )
    return Evaluation(
        solution=str(solution_path),
        submission=str(submission_path),
        studies=int(solution["study"].nunique()),
        score=score_rows(rows),
        calibration=tuple(_calibrate(rows, condition) for condition in Condition) if calibration else (),
    )


def studies_of_part(splits_path: Path | str, part: str) -> frozenset[str]:
    """Ids of the studies of one part of a prepared data set.

    Args:
        splits_path: `splits.csv` of `monai-spine prepare rsna2024`.
        part: A column and its value, such as `fold=0` or `70_15_15=test`.

    Raises:
        TableError: The file cannot be read, or has no such part.
    """
    table = SourceTable.read(splits_path, columns=["study_id"])
    column, _, value = part.partition("=")
    names = [name for name in table.cells.columns if name not in ("study_id", "patient")]
    if column not in names:
        raise TableError(f"{part!r} is no part of {splits_path}. Give COLUMN=VALUE, with one of: {', '.join(names)}.")
    cells = table.cells[column]
    if not value or value not in set(cells):  # a study may be in no part
        there = ", ".join(f"{column}={name}" for name in sorted(set(cells) - {""}))
        raise TableError(f"{part!r} is no part of {splits_path}. Choose from: {there}.")
    return frozenset(table.cells["study_id"][cells == value])


def format_evaluation(evaluation: Evaluation) -> str:
    """The text that the command prints: the score and its parts with six decimals, then calibration where there is any."""
    score = evaluation.score
    lines = [
        f"Official RSNA 2024 score of {evaluation.submission}",
        f"against {evaluation.solution} ({evaluation.studies} studies); lower is better",
        "",
        f"{'score':<20}{_number(score.score):>10}   plain mean of the four parts",
    ]
    lines += [
        f"{part:<20}{_number(value):>10}   {score.counts[part]} {'studies' if part == PARTS[3] else 'rows'}"
        for part, value in score.parts.items()
    ]
    absent = [part for part, value in score.parts.items() if np.isnan(value)]
    if absent:
        lines.append(
            f"No label for {', '.join(absent)}: the score is not defined. The mean of the rest is {score.mean_of_parts:.6f}."
        )
    if score.ignored_rows:
        lines.append(f"{score.ignored_rows} rows of the submission were ignored: their studies are not scored.")
    for condition in evaluation.calibration:
        lines += ["", *_calibration_lines(condition)]
    return "\n".join(lines)


def _calibrate(rows: ScoredRows, condition: Condition) -> ConditionCalibration:
    members = rows.group == condition.score_group
    probabilities, labels = rows.probabilities[members], rows.label[members]
    plain = reliability_table(probabilities, labels)
    weighted = reliability_table(probabilities, labels, weights=rows.weight[members])
    return ConditionCalibration(
        condition=condition,
        rows=len(labels),
        error=expected_calibration_error(plain),
        weighted_error=expected_calibration_error(weighted),
        reliability=plain,
        weighted_reliability=weighted,
    )


def _calibration_lines(found: ConditionCalibration) -> list[str]:
    return [
        f"Calibration of {found.condition.label}: probability of the most probable severity, {found.rows} rows",
        f"  expected calibration error {_number(found.error)} (each row once), "
        f"{_number(found.weighted_error)} (rows weighted 1/2/4, as in the score)",
        f"  {'predicted':<12}{'rows':>7}{'mean':>10}{'observed':>10}{'mean 1/2/4':>12}{'observed 1/2/4':>16}",
        *(
            _bin_line(plain, weighted)
            for plain, weighted in zip(found.reliability, found.weighted_reliability, strict=True)
            if plain.count
        ),
    ]


def _bin_line(plain: ReliabilityBin, weighted: ReliabilityBin) -> str:
    edges = f"{plain.lower:.1f} to {plain.upper:.1f}"
    return (
        f"  {edges:<12}{plain.count:>7}{_share(plain.predicted):>10}{_share(plain.observed):>10}"
        f"{_share(weighted.predicted):>12}{_share(weighted.observed):>16}"
    )


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.6f}"


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
