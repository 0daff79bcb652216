"""Write a CSV file beside its place, then rename it: a reader never meets half a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_spine.errors import OutputError

__all__ = ["write_rows"]


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table in UTF-8, lines ended by a line feed; its folder is made where it is not there.

    Raises:
        OutputError: The file cannot be written; nothing is left of it.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        beside.replace(path)
    except OSError as error:
        _forget(beside)
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}). Free some space or choose a folder that can be written to."
        ) from error


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
