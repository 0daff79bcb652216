"""The three tables of RSNA 2024 study by study: labels, points and series, held against each other before an image is read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from monai_spine.anatomy import TARGETS, Severity, Target
from monai_spine.errors import TableError
from monai_spine.series import Role, role_from_table
from monai_spine.studies.rsna2024 import (
    POINT_COLUMNS,
    SERIES_COLUMNS,
    TRAIN_COLUMNS,
    read_coordinates,
    read_series_descriptions,
    read_train,
)
from monai_spine.studies.source_table import RowsError, SourceTable

__all__ = ["POINTS_FILE", "SERIES_FILE", "TRAIN_FILE", "PointRow", "SetAsideStudy", "StudyRows", "StudyTables", "read_tables"]

TRAIN_FILE, POINTS_FILE, SERIES_FILE = "train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv"

_Cells = tuple[Any, ...]
_ID = re.compile(r"([1-9]\d*)(?:\.0*)?")
_SEVERITIES = tuple(Severity)
_TARGET_OF = {target.slug: target for target in TARGETS}


@dataclass(frozen=True)
class PointRow:
    """A labelled point as its table gives it: x along a row, y along a column, in pixels of one instance of a series."""

    line: int
    series_id: int
    instance_number: int
    target: Target
    x: float
    y: float


@dataclass(frozen=True)
class StudyRows:
    """All that the tables say of one study.

    Attributes:
        study_id: Its number.
        severities: Findings that have a label.
        points: Where findings were labelled.
        series: The kind of each series.
    """

    study_id: int
    severities: Mapping[Target, Severity]
    points: tuple[PointRow, ...]
    series: Mapping[int, Role]


@dataclass(frozen=True)
class SetAsideStudy:
    """A study that takes no part, and why.

    The name is text: where nothing tells which study a broken row is about, its id as it stands, or its line where it has none.
    """

    study: str
    reason: str


@dataclass(frozen=True)
class StudyTables:
    """The studies in the order of train.csv, and those that broken rows have cost."""

    folder: Path
    studies: tuple[StudyRows, ...]
    set_aside: tuple[SetAsideStudy, ...] = ()


def read_tables(folder: Path | str, *, keep_going: bool = False) -> StudyTables:
    """Read train.csv, train_label_coordinates.csv and train_series_descriptions.csv of a folder.

    Args:
        folder: Where the tables lie.
        keep_going: Set the studies of broken rows aside instead of refusing the table. A missing table or column is refused.

    Raises:
        TableError: A table is missing, lacks a column, or a row of it is broken or contradicts another table; the message names
            file, line, value and remedy.
    """
    folder = Path(folder)
    reader = _Reader(folder, keep_going)
    train = reader.read(folder / TRAIN_FILE, TRAIN_COLUMNS, read_train)
    if train.empty and not reader.set_aside:
        raise TableError(f"{folder / TRAIN_FILE} has a header and no study. Restore it.")
    points = reader.read(folder / POINTS_FILE, POINT_COLUMNS, read_coordinates)
    series = reader.read(folder / SERIES_FILE, SERIES_COLUMNS, read_series_descriptions)
    known = set(train["study_id"].tolist())
    for frame, name in ((points, POINTS_FILE), (series, SERIES_FILE)):
        reader.refuse_strangers(frame, folder / name, known, folder / TRAIN_FILE)
    rows = [_study(study, labels, points, series) for study, labels, points, series in _grouped(train, points, series)]
    for study in rows:
        reader.refuse_unlisted(study, folder)
    lost = {one.study for one in reader.set_aside}
    kept = tuple(study for study in rows if str(study.study_id) not in lost)
    if not kept:
        why = f" The first: {reader.set_aside[0].reason}" if reader.set_aside else ""
        raise TableError(f"{folder / TRAIN_FILE} leaves no study to prepare.{why}")
    return StudyTables(folder, kept, tuple(reader.set_aside))


class _Reader:
    """Reads tables, and either refuses a broken row or sets its study aside."""

    def __init__(self, folder: Path, keep_going: bool) -> None:
        self.folder = folder
        self.keep_going = keep_going
        self.set_aside: list[SetAsideStudy] = []
        self._lost: set[str] = set()

    def read(self, path: Path, columns: Sequence[str], parse: Callable[[SourceTable], pd.DataFrame]) -> pd.DataFrame:
        """The rows that are right; the index holds their lines."""
        table = SourceTable.read(path, columns=columns)
        while True:
            try:
                frame = parse(table)
            except RowsError as error:
                if not self.keep_going:
                    raise
                messages: dict[str, list[str]] = defaultdict(list)
                for row, message in error.rows:
                    messages[self._meant(table, row)].append(message)
                for study, (first, *others) in messages.items():
                    self._lose(study, f"{first} ({len(others)} more of this study)" if others else first)
                table = table.without("study_id", set(table.cells["study_id"].iloc[[row for row, _ in error.rows]]))
            else:
                return frame.set_axis(table.cells.index)

    def _meant(self, table: SourceTable, row: int) -> str:
        """The study that a broken row is about.

        An id with nothing but zeros after the point still names it; else the series does, where other rows have it in one study.
        """
        cells = table.cells.iloc[row]
        number = _ID.fullmatch(cells["study_id"])
        studies = {number[1]} if number else self._studies_of.get(cells.get("series_id", ""), set())
        place = f"{Path(table.name).name}, {table.unit} {table.cells.index[row]}"
        return next(iter(studies)) if len(studies) == 1 else cells["study_id"] or place

    @cached_property
    def _studies_of(self) -> Mapping[str, set[str]]:
        """The studies that points and series name for each series, as text."""
        studies: dict[str, set[str]] = defaultdict(set)
        for name in (POINTS_FILE, SERIES_FILE):
            cells = SourceTable.read(self.folder / name, columns=("study_id", "series_id")).cells
            for study, series in zip(cells["study_id"], cells["series_id"], strict=True):
                if series and _ID.fullmatch(study):
                    studies[series].add(study.partition(".")[0])
        return studies

    def refuse_strangers(self, frame: pd.DataFrame, path: Path, known: set[int], train: Path) -> None:
        """Rows of studies that the table of labels does not have; those that were set aside are known."""
        for line, study in frame["study_id"].items():
            if study in known or str(study) in self._lost:
                continue
            self._refuse(
                str(study),
                f"{path}, line {line}: study_id {study} is not in {train}. Add its labels there, or remove its rows here.",
            )

    def refuse_unlisted(self, study: StudyRows, folder: Path) -> None:
        """A study without series, and points on series that the table of series does not have."""
        name, path = str(study.study_id), folder / SERIES_FILE
        if name in self._lost:
            return
        if not study.series:
            self._refuse(name, f"{path} has no series of study {name}, which {folder / TRAIN_FILE} labels. Add its rows.")
            return
        for point in study.points:
            if point.series_id not in study.series:
                where = f"{folder / POINTS_FILE}, line {point.line}"
                said = f"{where}: series_id {point.series_id} is no series of study {name} in {path}"
                self._refuse(name, f"{said}. Add its row there, or correct the point's series.")
                return

    def _refuse(self, study: str, reason: str) -> None:
        if not self.keep_going:
            raise TableError(reason)
        self._lose(study, reason)

    def _lose(self, study: str, reason: str) -> None:
        """Set a study aside for the first reason that is found."""
        if study not in self._lost:
            self._lost.add(study)
            self.set_aside.append(SetAsideStudy(study, reason))


def _grouped(
    train: pd.DataFrame, points: pd.DataFrame, series: pd.DataFrame
) -> list[tuple[int, dict[str, int], list[_Cells], list[tuple[int, str]]]]:
    """Study, its labels by slug, its points (line first) and its series, in the order of the labels."""
    points_of: dict[int, list[_Cells]] = defaultdict(list)
    series_of: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row in points.itertuples(name=None):
        points_of[row[1]].append((row[0], *row[2:]))
    for _, study, number, description in series.itertuples(name=None):
        series_of[study].append((number, description))
    slugs = list(train.columns[1:])
    return [
        (study, dict(zip(slugs, labels, strict=True)), points_of[study], series_of[study])
        for _, study, *labels in train.itertuples(name=None)
    ]


def _study(study: int, labels: Mapping[str, int], points: Sequence[_Cells], series: Sequence[tuple[int, str]]) -> StudyRows:
    return StudyRows(
        study,
        {_TARGET_OF[slug]: _SEVERITIES[label] for slug, label in labels.items() if label >= 0},
        tuple(PointRow(line, number, instance, _TARGET_OF[slug], x, y) for line, number, instance, slug, x, y in points),
        {number: role_from_table(description) for number, description in series},
    )
