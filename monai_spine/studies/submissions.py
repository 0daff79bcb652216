"""Submissions and the solution they are scored against, in the competition's long form.

    submission.csv   row_id, normal_mild, moderate, severe: three probabilities; 25 rows a study in the order of `TARGETS`
    solution.csv     row_id, normal_mild, moderate, severe: one of them 1; sample_weight: 1, 2 or 4

A row id is `<study_id>_<target slug>`; the study is kept as text, so that one that is known by a UID may be in a submission too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS, Severity, Target
from monai_spine.errors import TableError
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.table_output import write_rows

__all__ = [
    "PROBABILITIES",
    "SubmissionRow",
    "label_weights",
    "parse_long_solution",
    "parse_submission",
    "read_submission",
    "row_id",
    "write_submission",
    "write_uniform_submission",
]

PROBABILITIES: tuple[str, ...] = tuple(severity.slug for severity in Severity)
"""The columns that follow the row id: normal_mild, moderate, severe."""

_ROW_ID = re.compile(rf"(?P<study>.+)_(?P<target>{'|'.join(target.slug for target in TARGETS)})")
_SPOILT_ID = re.compile(r"\d+\.0*|\d+(\.\d+)?e\+?\d+|-\d+", re.IGNORECASE)


@dataclass(frozen=True)
class SubmissionRow:
    """Three probabilities for one target of one study, in the order of `Severity`."""

    study_id: int | str
    target: Target
    probabilities: tuple[float, float, float]


def row_id(study_id: int | str, target: Target) -> str:
    """Name of a row: `4003253_left_subarticular_stenosis_l4_l5`."""
    return f"{study_id}_{target.slug}"


def label_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each label in the official score: 1, 2, 4 for 0, 1, 2, and 0 for -1 (no label)."""
    return np.array([0.0, *(severity.weight for severity in Severity)])[labels.astype(np.int64) + 1]


def parse_long_solution(table: SourceTable) -> pd.DataFrame:
    """Check a solution in the long form.

    The weights are taken as they stand; without a column `sample_weight` they are those of the label.

    Returns:
        study (text), target (slug), label (int8, -1 where there is none), weight (float64, 0 where there is no label).

    Raises:
        TableError: A column is missing, a row id names no target or is there twice, a label is not one-hot, or a weight is no
            finite number or below 0.
    """
    table.require(("row_id", *PROBABILITIES))
    keys = _row_keys(table)
    labels = _labels_of_one_hot(table)
    weights = label_weights(labels)
    if "sample_weight" in table.cells.columns:
        labelled = labels >= 0
        weights[labelled] = SourceTable(table.name, table.cells[labelled], table.unit).numbers("sample_weight")
        table.refuse(
            weights < 0, lambda row: f"sample_weight is {weights[row]:g}, below 0", remedy="The official ones are 1, 2 and 4."
        )
    frame: pd.DataFrame = keys.assign(label=labels, weight=weights)
    return frame


def read_submission(path: Path | str) -> pd.DataFrame:
    """Read predictions, as `parse_submission` gives them."""
    return parse_submission(SourceTable.read(path))


def parse_submission(table: SourceTable) -> pd.DataFrame:
    """Check predictions; rows are brought to sum 1, and not clipped.

    Returns:
        study (text), target (slug), normal_mild, moderate, severe (float64).

    Raises:
        TableError: A column is missing, a row id names no target or is there twice, or a probability is no number, not finite or
            below 0, or all three are 0.
    """
    table.require(("row_id", *PROBABILITIES))
    keys = _row_keys(table)
    values = np.stack([table.numbers(column) for column in PROBABILITIES], axis=1)
    table.refuse(
        (values < 0).any(axis=1),
        lambda row: f"{keys['target'][row]} has a probability of {values[row].min():g}, below 0",
        remedy="Write probabilities, not logits.",
    )
    largest = values.max(axis=1, initial=0, keepdims=True)
    table.refuse(
        largest[:, 0] == 0,
        lambda row: f"{keys['target'][row]} has three probabilities of 0, which cannot be brought to sum 1",
        remedy="Predict the prior where nothing is known.",
    )
    values = values / largest
    values = values / values.sum(axis=1, keepdims=True)
    frame: pd.DataFrame = keys.assign(**dict(zip(PROBABILITIES, values.T, strict=True)))
    return frame


def _row_keys(table: SourceTable) -> pd.DataFrame:
    """Study and target of each row id."""
    ids = table.cells["row_id"].tolist()
    matches = [_ROW_ID.fullmatch(text) for text in ids]
    table.refuse(
        [match is None for match in matches],
        lambda row: f"row_id {ids[row]!r} is not <study_id>_<target>",
        remedy=f"A row id looks like '4003253_{TARGETS[0].slug}'.",
    )
    studies = [match["study"] for match in matches if match]
    table.refuse(
        [_SPOILT_ID.fullmatch(study) is not None for study in studies],
        lambda row: f"row_id {ids[row]!r} holds a study id that was saved as a float or in 32 bits",
        remedy="Such ids lose digits: build the row ids from 64-bit integers.",
    )
    table.unique(["row_id"])
    frame: pd.DataFrame = pd.DataFrame({"study": studies, "target": [match["target"] for match in matches if match]})
    return frame


def _labels_of_one_hot(table: SourceTable) -> np.ndarray:
    """Index of the severity that is 1, or -1 where all three are 0 or empty."""
    cells = table.cells[list(PROBABILITIES)].replace("", "0")
    filled = SourceTable(table.name, cells, table.unit)
    values = np.stack([filled.numbers(column) for column in PROBABILITIES], axis=1)
    table.refuse(
        ~np.isin(values, (0, 1)).all(axis=1) | (values.sum(axis=1) > 1),
        lambda row: f"the label is {', '.join(cells.iloc[row])}, which is not one-hot",
        remedy="Write 1 for the true severity and 0 for the others; all 0 means no label.",
    )
    return np.where(values.any(axis=1), values.argmax(axis=1), -1).astype(np.int8)


def write_submission(rows: Iterable[SubmissionRow], path: Path | str) -> None:
    """Write a submission in the competition's format: studies by ascending id, 25 rows each in the order of `TARGETS`.

    The probabilities are written as they are: scale them by `monai_spine.training.score.reweight` first where the model was
    trained without the weights of the score.

    Raises:
        TableError: A study has not exactly one row for each target, or a row is not three finite probabilities that sum to 1.
        OutputError: The file cannot be written.
    """
    given = list(rows)
    cells = {row_id(row.study_id, row.target): _checked_cells(row) for row in given}
    studies = sorted({str(row.study_id) for row in given}, key=_study_order)
    wanted = [row_id(study, target) for study in studies for target in TARGETS]
    missing = [name for name in wanted if name not in cells]
    if missing or len(given) != len(wanted):
        example = f"{missing[0]!r} is missing" if missing else "a target is there twice"
        raise TableError(
            f"{len(given)} rows for {len(studies)} studies cannot be a submission of {len(wanted)} rows: {example}. "
            f"Give each study one row for each of the {len(TARGETS)} targets, the prior where nothing is known."
        )
    write_rows(Path(path), ("row_id", *PROBABILITIES), [(name, *cells[name]) for name in wanted])


def write_uniform_submission(studies: Iterable[int | str], path: Path | str) -> None:
    """Write a third for each severity of every target, as the competition's sample submission has it.

    Raises:
        TableError: A study is there twice.
        OutputError: The file cannot be written.
    """
    write_submission((SubmissionRow(study, target, (1 / 3, 1 / 3, 1 / 3)) for study in studies for target in TARGETS), path)


def _checked_cells(row: SubmissionRow) -> tuple[float, ...]:
    values = tuple(float(value) for value in row.probabilities)
    in_range = len(values) == len(Severity) and all(0 <= value <= 1 for value in values)
    if not in_range or abs(sum(values) - 1) > 1e-3:
        raise TableError(
            f"{row_id(row.study_id, row.target)} has the probabilities {values}, which are not three numbers from 0 to 1 with "
            "sum 1. Apply a softmax to logits before they are written."
        )
    return values


def _study_order(study: str) -> tuple[int, int, str]:
    """Numbers by value, then names by spelling."""
    return (0, int(study), "") if study.isdecimal() else (1, 0, study)
