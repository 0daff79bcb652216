"""Which levels of a case may bear a simulated lesion: those that no reader called worse than a bulge, or narrower than mild."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai_spine.anatomy import LEVELS, Condition, Level, Severity, Target
from monai_spine.studies.prepared import PreparedCase
from monai_spine.studies.source_table import SourceTable

__all__ = ["NORMAL_DISCS", "base_levels", "disc_grades"]

NORMAL_DISCS = ("disc_normal", "disc_bulge")
"""Grades in `midsagittal` of discs that may be a base."""


def disc_grades(points_csv: Path | str) -> dict[str, dict[Level, str]]:
    """The grades of discs in `points.csv` of `midsagittal`, by picture and level; empty where the source has none.

    Raises:
        TableError: The table cannot be read or lacks a column.
    """
    table = SourceTable.read(Path(points_csv), columns=("image", "structure", "grade"))
    names = {level.label: level for level in Level}
    grades: dict[str, dict[Level, str]] = {}
    columns = (table.cells[name].tolist() for name in ("image", "structure", "grade"))
    for image, structure, grade in zip(*columns, strict=True):
        if structure in names:
            grades.setdefault(str(image), {})[names[structure]] = str(grade)
    return grades


def base_levels(case: PreparedCase, grades: Mapping[Level, str] | None = None) -> tuple[Level, ...]:
    """The levels of a case that may bear a lesion, from the head down.

    A level whose canal was graded must be normal or mild; one that was not graded may be a base, as those of real scans without
    grades are. Whether its sac is narrow all the same, `RandSimulateLesiond` measures.

    Args:
        case: A study with discs.
        grades: Of its discs, as `disc_grades` gives them; a disc without a grade is then no base. None: no disc was graded.
    """
    fit = []
    for level in LEVELS:
        target = case.targets.get(Target(Condition.SPINAL_CANAL_STENOSIS, None, level))
        narrow = target is not None and target.severity is not Severity.NORMAL_MILD
        worn = grades is not None and grades.get(level) not in NORMAL_DISCS
        if level in case.discs and not narrow and not worn:
            fit.append(level)
    return tuple(fit)
