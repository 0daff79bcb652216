"""The competition's tables as a replica needs them: per study its series, points and grades, and each row as it was written.

Beside the competition's own three tables a replica needs what the images would tell: matrix size and slice count of each series
(`series_size_and_slice_count.csv`), where the sizes differ within a series (`series_with_mixed_image_size.csv`), and positions of
sagittal slices (`sagittal_slice_positions.csv`; a series that is not there gets slices that fit its points).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_spine.anatomy import TARGETS, Severity, Target
from monai_spine.errors import TableError
from monai_spine.geometry import Point, ras_from_lps
from monai_spine.studies.rsna2024 import (
    SERIES_COLUMNS,
    SERIES_DESCRIPTIONS,
    read_coordinates,
    read_series_descriptions,
    read_train,
)
from monai_spine.studies.source_table import SourceTable

__all__ = ["COPIED_TABLES", "SOURCE_TABLES", "ReplicaTables", "TablePoint", "TableSeries", "TableStudy"]

COPIED_TABLES: tuple[str, ...] = ("train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv")
"""The tables whose rows a replica repeats."""

SIZE_TABLE, POSITION_TABLE = "series_size_and_slice_count.csv", "sagittal_slice_positions.csv"
MIXED_TABLE = "series_with_mixed_image_size.csv"

SOURCE_TABLES: tuple[str, ...] = (*COPIED_TABLES, SIZE_TABLE, POSITION_TABLE, MIXED_TABLE)
"""All tables that are needed."""

_COMMON_MATRICES = (256, 320, 384, 448, 512, 640, 768, 1024)
_WHAT_TO_DO = f"Give a folder that holds the competition's train tables and {SIZE_TABLE}, {POSITION_TABLE} and {MIXED_TABLE}."


@dataclass(frozen=True)
class TableSeries:
    """What the tables say of one series.

    Attributes:
        series_id: As in the tables.
        description: One of `SERIES_DESCRIPTIONS`.
        shape: Rows and columns.
        slices: How many.
        other_shape: A second size that some of its slices have.
        positions_ras_mm: Centre of the first voxel by instance number, where the table has it.
    """

    series_id: int
    description: str
    shape: tuple[int, int]
    slices: int
    other_shape: tuple[int, int] | None
    positions_ras_mm: Mapping[int, Point]

    @property
    def is_axial(self) -> bool:
        return self.description == SERIES_DESCRIPTIONS[2]

    @property
    def role(self) -> str:
        return dict(zip(SERIES_DESCRIPTIONS, ("sagittal_t1", "sagittal_t2", "axial_t2"), strict=True))[self.description]


@dataclass(frozen=True)
class TablePoint:
    """A labelled point: x along a row and y down a column, in pixels of the real matrix."""

    series_id: int
    instance: int
    target: Target
    x: float
    y: float


@dataclass(frozen=True)
class TableStudy:
    """All that the tables say of one study; a target without a grade is not in `grades`."""

    study_id: int
    series: tuple[TableSeries, ...]
    points: tuple[TablePoint, ...]
    grades: Mapping[Target, Severity]

    def points_on(self, series: TableSeries) -> tuple[TablePoint, ...]:
        """The points that lie on one series."""
        return tuple(point for point in self.points if point.series_id == series.series_id)


@dataclass(frozen=True)
class ReplicaTables:
    """The studies by id, and the lines of the tables that a replica repeats.

    Attributes:
        studies: In the order of train.csv.
        lines: For each of `COPIED_TABLES` the header line under the key None and a study's lines under its id, line ends kept.
    """

    studies: Mapping[int, TableStudy]
    lines: Mapping[str, Mapping[int | None, tuple[str, ...]]]

    @classmethod
    def read(cls, folder: Path | str) -> ReplicaTables:
        """Read the tables of a folder.

        Raises:
            TableError: A table or a column is missing, or a cell breaks its specification; the message names file and remedy.
        """
        folder = Path(folder)
        for name in SOURCE_TABLES:
            if not (folder / name).is_file():
                raise TableError(f"{folder / name} is not there: a replica cannot be drawn without it. {_WHAT_TO_DO}")
        points = _points_by_study(folder)
        series = _series_by_study(folder, points)
        train = read_train(folder / "train.csv")
        grades = train[[target.slug for target in TARGETS]].to_numpy()
        studies = {
            int(study): TableStudy(int(study), tuple(series[study]), tuple(points[study]), _grades_of(row))
            for study, row in zip(train["study_id"].tolist(), grades, strict=True)
        }
        return cls(studies, {name: _lines_by_study(folder / name) for name in COPIED_TABLES})


def _grades_of(row: np.ndarray) -> dict[Target, Severity]:
    return {target: list(Severity)[grade] for target, grade in zip(TARGETS, row.tolist(), strict=True) if grade >= 0}


def _points_by_study(folder: Path) -> dict[int, list[TablePoint]]:
    found: dict[int, list[TablePoint]] = defaultdict(list)
    by_slug = {target.slug: target for target in TARGETS}
    rows = read_coordinates(folder / "train_label_coordinates.csv")
    columns = (rows[name].tolist() for name in ("study_id", "series_id", "instance_number", "target", "x", "y"))
    for study, series, instance, slug, x, y in zip(*columns, strict=True):
        found[study].append(TablePoint(series, instance, by_slug[slug], x, y))
    return found


def _series_by_study(folder: Path, points: Mapping[int, list[TablePoint]]) -> dict[int, list[TableSeries]]:
    described = read_series_descriptions(folder / "train_series_descriptions.csv")
    sizes, positions, mixed = _sizes(folder), _positions(folder), _mixed(folder)
    found: dict[int, list[TableSeries]] = defaultdict(list)
    for study, series, description in zip(*(described[column].tolist() for column in SERIES_COLUMNS), strict=True):
        if series not in sizes:
            raise TableError(
                f"{folder / SIZE_TABLE} has no row for series {series} of study {study}, which train_series_descriptions.csv "
                "lists: its matrix and slice count are unknown. Add the row, or take the series out of the descriptions."
            )
        (height, width), slices = sizes[series]
        here = [point for point in points.get(study, ()) if point.series_id == series]
        shape = (height, width) if height and width else _smallest_matrix(here)
        shape, other = mixed.get(series, (shape, None))
        found[study].append(TableSeries(series, description, shape, slices, other, positions.get(series, {})))
    return found


def _sizes(folder: Path) -> dict[int, tuple[tuple[int, int], int]]:
    """Rows and columns (0 where the table has none) and slice count by series."""
    table = SourceTable.read(folder / SIZE_TABLE, columns=("series_id", "height", "width", "n_slices"))
    table.unique(["series_id"])
    edges = [_sizes_or_0(table, column) for column in ("height", "width")]
    ids, slices = table.whole_numbers("series_id").tolist(), table.whole_numbers("n_slices").tolist()
    return {series: ((int(height), int(width)), count) for series, height, width, count in zip(ids, *edges, slices, strict=True)}


def _sizes_or_0(table: SourceTable, column: str) -> list[float]:
    cells = [cell or "0" for cell in table.cells[column]]
    table.refuse(
        [re.fullmatch(r"\d+(\.0*)?", cell) is None for cell in cells],
        lambda row: f"{column} is {cells[row]!r}, which is no size in pixels",
        remedy="Give a whole number, or nothing where it is not known.",
    )
    return [float(cell) for cell in cells]


def _smallest_matrix(points: Iterable[TablePoint]) -> tuple[int, int]:
    """The smallest usual matrix that holds the points: what is left to go by where a size is not known."""
    reach = max((max(point.x, point.y) for point in points), default=0.0) * 1.25
    edge = next((edge for edge in _COMMON_MATRICES if edge > reach), _COMMON_MATRICES[-1])
    return edge, edge


def _positions(folder: Path) -> dict[int, dict[int, Point]]:
    table = SourceTable.read(folder / POSITION_TABLE, columns=("series_id", "instance_number", "x_pos", "y_pos", "z_pos"))
    places = ras_from_lps(np.column_stack([table.numbers(column) for column in ("x_pos", "y_pos", "z_pos")]))
    found: dict[int, dict[int, Point]] = defaultdict(dict)
    ids, instances = table.whole_numbers("series_id").tolist(), table.whole_numbers("instance_number").tolist()
    for series, instance, (r, a, s) in zip(ids, instances, places.tolist(), strict=True):
        found[series][instance] = (r, a, s)
    return found


def _mixed(folder: Path) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """The two sizes of series whose slices differ: "[608, 640]" under height and under width, the smaller first."""
    table = SourceTable.read(folder / MIXED_TABLE, columns=("series_id", "height", "width"))
    found = {}
    rows, columns = (_two_sizes(table, edge) for edge in ("height", "width"))
    for series, (low, high), (narrow, wide) in zip(table.whole_numbers("series_id").tolist(), rows, columns, strict=True):
        found[series] = ((low, narrow), (high, wide))
    return found


def _two_sizes(table: SourceTable, column: str) -> list[tuple[int, int]]:
    """The smallest and the largest of the numbers that each cell lists."""
    sizes = [[int(number) for number in re.findall(r"\d+", cell)] for cell in table.cells[column]]
    table.refuse(
        [not numbers for numbers in sizes],
        lambda row: f"{column} is {table.cells[column].iloc[row]!r}, which lists no sizes",
        remedy='List the sizes that occur, as "[608, 640]".',
    )
    return [(min(numbers), max(numbers)) for numbers in sizes]


def _lines_by_study(path: Path) -> dict[int | None, tuple[str, ...]]:
    found: dict[int | None, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        found[None].append(next(file))
        for line in file:
            if line.strip():
                found[int(line.split(",", 1)[0])].append(line)
    return {study: tuple(lines) for study, lines in found.items()}
