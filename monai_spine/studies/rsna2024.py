"""RSNA 2024 Lumbar Spine Degenerative Classification: its tables, read strictly and written as the competition gives them.

    train.csv                       one row a study, one column a target: Normal/Mild, Moderate, Severe or empty
    train_label_coordinates.csv     one point a target, in pixels of an instance
    train_series_descriptions.csv   one row a series
    solution.csv, submission.csv    long form: see submissions.py

Other columns of a file are ignored. Ids are int64: they reach 4.29e9. `write_train_tables` writes the same tables.

Source: the competition's data page, and the quirks listed by its participants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from monai_spine.anatomy import KINDS, LEVELS, TARGETS, Condition, Level, Severity, Target, TargetKind
from monai_spine.errors import TableError
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import (
    SubmissionRow,
    label_weights,
    parse_long_solution,
    read_submission,
    write_submission,
    write_uniform_submission,
)
from monai_spine.studies.table_output import write_rows

__all__ = [
    "POINT_COLUMNS",
    "SERIES_COLUMNS",
    "SERIES_DESCRIPTIONS",
    "TRAIN_COLUMNS",
    "LabelledPoint",
    "SeriesDescription",
    "StudyLabels",
    "SubmissionRow",
    "long_labels",
    "parse_solution",
    "parse_train",
    "prior_by_level",
    "read_coordinates",
    "read_series_descriptions",
    "read_solution",
    "read_submission",
    "read_train",
    "solution_from_train",
    "write_submission",
    "write_train_tables",
]

SERIES_DESCRIPTIONS: tuple[str, ...] = ("Sagittal T1", "Sagittal T2/STIR", "Axial T2")
"""The three kinds of series, as the table of series writes them."""

TRAIN_COLUMNS: tuple[str, ...] = ("study_id", *(f"{kind.slug}_{level.slug}" for kind in KINDS for level in LEVELS))
"""The columns of train.csv in their order, which is not that of a submission."""

POINT_COLUMNS: tuple[str, ...] = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")
"""The columns of train_label_coordinates.csv."""

SERIES_COLUMNS: tuple[str, ...] = ("study_id", "series_id", "series_description")
"""The columns of train_series_descriptions.csv."""

_SLUGS: tuple[str, ...] = tuple(target.slug for target in TARGETS)
_KIND_OF: Mapping[str, TargetKind] = MappingProxyType({kind.label: kind for kind in KINDS})


@dataclass(frozen=True)
class StudyLabels:
    """The labels of one study; a target that is absent or None has none."""

    study_id: int
    severities: Mapping[Target, Severity | None]


@dataclass(frozen=True)
class LabelledPoint:
    """Where a target was labelled: x along a row, y along a column, in pixels of one instance of a series."""

    study_id: int
    series_id: int
    instance_number: int
    target: Target
    x: float
    y: float


@dataclass(frozen=True)
class SeriesDescription:
    """The kind of a series, one of `SERIES_DESCRIPTIONS`."""

    study_id: int
    series_id: int
    description: str


def read_train(path: Path | str | SourceTable) -> pd.DataFrame:
    """Read the labels of all studies, as `parse_train` gives them.

    Raises:
        TableError: The file breaks its specification; the message names line, value and remedy.
    """
    return parse_train(SourceTable.given(path))


def parse_train(table: SourceTable) -> pd.DataFrame:
    """Check a wide table of labels.

    Returns:
        `study_id` (int64) and one column for each slug of `TARGETS`, in that order: the severity's index 0, 1, 2 as int8,
        or -1 where there is no label.

    Raises:
        TableError: A column is missing, an id is no whole number or there twice, or a label is unknown.
    """
    table.require(TRAIN_COLUMNS)
    studies = table.whole_numbers("study_id")
    table.unique(["study_id"])
    index_of = {**{severity.label: severity.index for severity in Severity}, "": -1}
    labels = {slug: np.array([index_of[text] for text in table.one_of(slug, tuple(index_of))], dtype=np.int8) for slug in _SLUGS}
    frame: pd.DataFrame = pd.DataFrame({"study_id": studies, **labels})
    return frame


def long_labels(train: pd.DataFrame) -> pd.DataFrame:
    """One row for each study and target, studies as they come and targets in the order of a submission.

    Args:
        train: As `read_train` gives it.

    Returns:
        study_id (int64), target (slug), condition (slug without side), level (slug), label (int8, -1 where there is none).
    """
    count = len(train)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "study_id": np.repeat(train["study_id"].to_numpy(np.int64), len(TARGETS)),
            "target": [target.slug for target in TARGETS] * count,
            "condition": [target.condition.slug for target in TARGETS] * count,
            "level": [target.level.slug for target in TARGETS] * count,
            "label": train[list(_SLUGS)].to_numpy(np.int8).reshape(-1),
        }
    )
    return frame


def solution_from_train(train: pd.DataFrame) -> pd.DataFrame:
    """The solution in the competition's long form, all 25 rows of each study.

    Returns:
        row_id, normal_mild, moderate, severe (0 or 1), sample_weight (1, 2, 4). A row without a label is 0 everywhere.
    """
    rows = long_labels(train)
    labels = rows["label"].to_numpy()
    one_hot = {severity.slug: (labels == severity.index).astype(np.int64) for severity in Severity}
    ids = [f"{study}_{target}" for study, target in zip(rows["study_id"], rows["target"], strict=True)]
    frame: pd.DataFrame = pd.DataFrame({"row_id": ids, **one_hot, "sample_weight": label_weights(labels).astype(np.int64)})
    return frame


def read_solution(path: Path | str) -> pd.DataFrame:
    """Read what is true, from a wide train.csv or a long solution.csv, as `parse_solution` gives it."""
    return parse_solution(SourceTable.read(path))


def parse_solution(table: SourceTable) -> pd.DataFrame:
    """Bring a solution, wide or long, into one form.

    Returns:
        study (text), target (slug), label (int8, -1 where there is none), weight (float64, 0 where there is no label).

    Raises:
        TableError: The table is neither wide nor long, or breaks its specification.
    """
    if "row_id" in table.cells.columns:
        return parse_long_solution(table)
    if "study_id" not in table.cells.columns:
        table.require(["study_id (wide, as in train.csv) or row_id (long, as in solution.csv)"])
    rows = long_labels(parse_train(table))
    labels = rows["label"].to_numpy()
    frame: pd.DataFrame = pd.DataFrame(
        {"study": rows["study_id"].map(str), "target": rows["target"], "label": labels, "weight": label_weights(labels)}
    )
    return frame


def prior_by_level(train: pd.DataFrame) -> pd.DataFrame:
    """How often each severity occurs, per condition and level, both sides together.

    Args:
        train: As `read_train` gives it.

    Returns:
        15 rows: condition, level (slugs), labelled (count), normal_mild, moderate, severe (shares that sum to 1).

    Raises:
        TableError: A condition has no label at a level, so that there are no shares.
    """
    rows = long_labels(train)
    result = []
    for condition in Condition:
        for level in LEVELS:
            here = rows[(rows["condition"] == condition.slug) & (rows["level"] == level.slug) & (rows["label"] >= 0)]
            counts = np.bincount(here["label"].to_numpy(np.int64), minlength=len(Severity))
            if not counts.sum():
                raise TableError(
                    f"No study of {len(train)} has a label for {condition.label} at {level.label}: its class shares are "
                    "unknown. Give a table with labels at all five levels."
                )
            shares = dict(zip((severity.slug for severity in Severity), counts / counts.sum(), strict=True))
            result.append({"condition": condition.slug, "level": level.slug, "labelled": int(counts.sum()), **shares})
    frame: pd.DataFrame = pd.DataFrame(result)
    return frame


def read_coordinates(path: Path | str | SourceTable) -> pd.DataFrame:
    """Read the labelled points.

    Returns:
        study_id, series_id, instance_number (int64), target (slug), x and y (float64): pixels of that instance, x along a row
        to the right and y along a column downwards, as the competition gives them.

    Raises:
        TableError: A column is missing, an id is no whole number, a condition or level is unknown, a coordinate is no finite
            number, or a target of a study has two points.
    """
    table = SourceTable.given(path, columns=POINT_COLUMNS)
    ids = {column: table.whole_numbers(column) for column in ("study_id", "series_id", "instance_number")}
    kinds = [_KIND_OF[text] for text in table.one_of("condition", tuple(_KIND_OF))]
    levels = [Level(text) for text in table.one_of("level", tuple(level.label for level in LEVELS))]
    table.unique(["study_id", "condition", "level"])
    targets = [Target(kind.condition, kind.side, level).slug for kind, level in zip(kinds, levels, strict=True)]
    frame: pd.DataFrame = pd.DataFrame({**ids, "target": targets, "x": table.numbers("x"), "y": table.numbers("y")})
    return frame


def read_series_descriptions(path: Path | str | SourceTable) -> pd.DataFrame:
    """Read which series a study has and of which kind each is.

    Returns:
        study_id, series_id (int64) and series_description, one of `SERIES_DESCRIPTIONS`.

    Raises:
        TableError: A column is missing, an id is no whole number, a series is there twice, or a description is unknown.
    """
    table = SourceTable.given(path, columns=SERIES_COLUMNS)
    ids = {column: table.whole_numbers(column) for column in ("study_id", "series_id")}
    table.unique(["study_id", "series_id"])
    frame: pd.DataFrame = pd.DataFrame({**ids, "series_description": table.one_of("series_description", SERIES_DESCRIPTIONS)})
    return frame


def write_train_tables(
    folder: Path | str,
    *,
    labels: Sequence[StudyLabels],
    points: Sequence[LabelledPoint],
    series: Sequence[SeriesDescription],
) -> None:
    """Write train.csv, train_label_coordinates.csv, train_series_descriptions.csv and sample_submission.csv.

    The sample submission predicts a third for each severity of every study, as the competition's does.

    Raises:
        TableError: A study is there twice, or a description is unknown.
        OutputError: A file cannot be written.
    """
    folder = Path(folder)
    studies = [row.study_id for row in labels]
    if len(set(studies)) < len(studies):
        raise TableError(f"{len(studies)} rows of labels for {len(set(studies))} studies: give each study one row.")
    unknown = sorted({row.description for row in series} - set(SERIES_DESCRIPTIONS))
    if unknown:
        raise TableError(f"Unknown series description {unknown[0]!r}. Choose from: {', '.join(SERIES_DESCRIPTIONS)}.")
    write_rows(folder / "train.csv", TRAIN_COLUMNS, [_train_row(row) for row in labels])
    write_rows(folder / "train_label_coordinates.csv", POINT_COLUMNS, [_point_row(point) for point in points])
    write_rows(folder / "train_series_descriptions.csv", SERIES_COLUMNS, [astuple(row) for row in series])
    write_uniform_submission(studies, folder / "sample_submission.csv")


def _train_row(row: StudyLabels) -> tuple[int | str, ...]:
    severities = {target.slug: severity for target, severity in row.severities.items()}
    found = (severities.get(column) for column in TRAIN_COLUMNS[1:])
    return (row.study_id, *("" if severity is None else severity.label for severity in found))


def _point_row(point: LabelledPoint) -> tuple[int | float | str, ...]:
    target = point.target
    return (point.study_id, point.series_id, point.instance_number, target.kind.label, target.level.label, point.x, point.y)
