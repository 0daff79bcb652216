"""A table as it was written, cell by cell as text, so that every complaint can name file, line and value.

Reading all cells as text first keeps ids whole: a reader that guesses types turns a column of ids with one empty cell into
floats, and a 32-bit one overflows at 2.1e9 (ids of RSNA 2024 reach 4.29e9).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_spine.errors import TableError

__all__ = ["RowsError", "SourceTable"]

_NOTHING = ("", "nan", "na", "none", "null")
_WHOLE_NUMBER = re.compile(r"0|[1-9]\d{0,17}")


class RowsError(TableError):
    """Rows of a table break its specification; the rest of the table may be right.

    Attributes:
        rows: Zero-based position of each wrong row, with a message of its own.
    """

    def __init__(self, message: str, rows: Sequence[tuple[int, str]]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class SourceTable:
    """Cells as text (empty where there is none), under the names of their columns.

    Attributes:
        name: File or table, as messages call it.
        cells: Every cell as `str`; the index holds the line in the file (the header is line 1), or the zero-based row of a frame.
        unit: What the index counts: "line" or "row".
    """

    name: str
    cells: pd.DataFrame
    unit: str

    @classmethod
    def read(cls, path: Path | str, *, columns: Sequence[str] = ()) -> SourceTable:
        """Read a CSV file in UTF-8; empty lines are skipped.

        Raises:
            TableError: The file is missing, empty or not a CSV, a line has more or fewer cells than the header, or one of
                `columns` is not there.
        """
        header, lines, rows = _read_csv(Path(path))
        table = cls(str(path), pd.DataFrame(rows, columns=header, index=lines, dtype=object), "line")
        table.require(columns)
        return table

    @classmethod
    def given(cls, source: Path | str | SourceTable, *, columns: Sequence[str] = ()) -> SourceTable:
        """A table that was read before, or the one at a path.

        Raises:
            TableError: As `read`.
        """
        if not isinstance(source, SourceTable):
            return cls.read(source, columns=columns)
        source.require(columns)
        return source

    def without(self, column: str, values: Collection[str]) -> SourceTable:
        """The table without the rows that have one of these texts in a column; the others keep their lines."""
        return replace(self, cells=self.cells[~self.cells[column].isin(list(values))])

    @classmethod
    def of(cls, frame: pd.DataFrame, name: str) -> SourceTable:
        """Take a frame that is in memory already; missing values become empty cells."""
        cells = pd.DataFrame(
            {column: [_as_text(value) for value in frame[column]] for column in frame.columns},
            index=range(len(frame)),
            dtype=object,
        )
        return cls(name, cells, "row")

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks a column.

        Raises:
            TableError: The message lists what is missing and what is there.
        """
        missing = [column for column in columns if column not in self.cells.columns]
        if missing:
            raise TableError(
                f"{self.name} has no column {_listed(missing)}: it cannot be read as this kind of table. Its columns are "
                f"{_listed(list(self.cells.columns))}. Give the file that has them, or rename its columns."
            )

    def refuse(self, wrong: Any, describe: Callable[[int], str], *, remedy: str) -> None:
        """Refuse the table where any row is wrong: one error that names the first one and counts the others.

        Args:
            wrong: One flag per row, in a list or an array.
            describe: What is wrong with the row at a zero-based position.
            remedy: What to do.

        Raises:
            RowsError: A flag is set.
        """
        positions = [int(position) for position in np.flatnonzero(np.asarray(wrong))]
        if positions:
            others = f" ({len(positions) - 1} more like it)" if len(positions) > 1 else ""
            said = [(row, f"{self.name}, {self.unit} {self.cells.index[row]}: {describe(row)}") for row in positions]
            raise RowsError(f"{said[0][1]}{others}. {remedy}", [(row, f"{text}. {remedy}") for row, text in said])

    def whole_numbers(self, column: str) -> np.ndarray:
        """Ids and counts as int64.

        Raises:
            TableError: A cell is empty, negative, longer than 18 digits, or has a decimal point, an exponent or a leading 0.
        """
        values = self.cells[column].tolist()
        self.refuse(
            [value.lower() in _NOTHING for value in values],
            lambda row: f"{column} {values[row]!r} is not a whole number",
            remedy=f"The {column} is missing: give it in every row.",
        )
        self.refuse(
            [_WHOLE_NUMBER.fullmatch(value) is None for value in values],
            lambda row: f"{column} {values[row]!r} is not a whole number",
            remedy="Write digits only; ids that were saved as floats have lost digits and must be exported again as integers.",
        )
        return np.array([int(value) for value in values], dtype=np.int64)

    def numbers(self, column: str) -> np.ndarray:
        """Finite numbers as float64.

        Raises:
            TableError: A cell is empty, not numeric, infinite or NaN.
        """
        values = self.cells[column].tolist()
        parsed = [_number(value) for value in values]
        self.refuse(
            [number is None for number in parsed],
            lambda row: f"{column} is {values[row]!r}, which is not a number",
            remedy="Give a number in every row.",
        )
        result = np.array(parsed, dtype=np.float64)
        self.refuse(
            ~np.isfinite(result),
            lambda row: f"{column} is {values[row]!r}, which is not finite",
            remedy="Replace what is infinite or NaN by a number.",
        )
        return result

    def one_of(self, column: str, choices: Sequence[str]) -> list[str]:
        """Cells that must be one of a closed list, spelt exactly so.

        Raises:
            TableError: A cell is something else.
        """
        values: list[str] = self.cells[column].tolist()
        allowed = set(choices)
        self.refuse(
            [value not in allowed for value in values],
            lambda row: f"{column} is {values[row]!r}",
            remedy=f"Choose from: {_listed([choice or 'nothing' for choice in choices])}.",
        )
        return values

    def unique(self, columns: Sequence[str]) -> None:
        """Refuse a table in which two rows have the same key.

        Raises:
            TableError: Two rows agree in all of `columns`.
        """
        keys = self.cells[list(columns)]
        twice = keys.duplicated().to_numpy()
        first = (
            {key: row for row, key in reversed(list(enumerate(keys.itertuples(index=False, name=None))))} if twice.any() else {}
        )

        def describe(row: int) -> str:
            earlier = first[tuple(keys.iloc[row])]
            alike = "the same as" if self.cells.iloc[row].equals(self.cells.iloc[earlier]) else "which contradicts"
            named = ", ".join(f"{column} {keys.iloc[row][column]!r}" for column in columns)
            return f"a second row for {named}, {alike} {self.unit} {self.cells.index[earlier]}"

        self.refuse(twice, describe, remedy="Keep one row for each.")


def _read_csv(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Header, line numbers and rows of a file."""
    lines: list[int] = []
    rows: list[list[str]] = []
    header: list[str] = []
    last = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                last = reader.line_num
                if not any(cell.strip() for cell in row):
                    continue
                if not header:
                    header = _checked_header(path, row)
                elif any("\0" in cell for cell in row):
                    raise TableError(
                        f"{path}, line {reader.line_num}: it holds a zero byte, so that the file is damaged. Restore it."
                    )
                elif len(row) != len(header):
                    raise TableError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under a header of {len(header)}. "
                        "The line is cut off or has a comma too many: write the file again."
                    )
                else:
                    lines.append(reader.line_num)
                    rows.append([cell.strip() for cell in row])
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error.strerror or error}). Check the path and the permissions.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        line = _foreign_line(path) if isinstance(error, UnicodeDecodeError) else last + 1
        raise TableError(f"{path} is no CSV file in UTF-8 (line {line}: {error}). Export the table again as CSV.") from error
    if not header:
        raise TableError(f"{path} is empty: there is not even a header. Export the table again as CSV.")
    return header, lines, rows


def _foreign_line(path: Path) -> int:
    """Number of the first line that is no UTF-8."""
    good = 0
    for line in path.read_bytes().splitlines():
        try:
            line.decode()
        except UnicodeDecodeError:
            break
        good += 1
    return good + 1


def _checked_header(path: Path, row: list[str]) -> list[str]:
    header = [cell.strip() for cell in row]
    other = next((sign for sign in (";", "\t", "|") if len(row) == 1 and sign in row[0]), None)
    if other:
        raise TableError(f"{path}, line 1: its cells are parted by {other!r}, not by commas. Export the table again as CSV.")
    if any("\0" in cell for cell in row):
        raise TableError(f"{path}, line 1: it holds a zero byte, so that the file is damaged. Restore it.")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise TableError(f"{path}, line 1: column {_listed(twice)} is there twice. Keep one of each.")
    return header


def _as_text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value).strip()


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
