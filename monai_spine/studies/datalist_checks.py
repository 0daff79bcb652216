"""What a data list must hold to, whoever wrote it: names, splits, patients, and places that are some."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from monai_spine.anatomy import DISC_GRADES, DISCS, VERTEBRA_GRADES
from monai_spine.errors import TableError
from monai_spine.geometry import Point

if TYPE_CHECKING:
    from monai_spine.studies.prepared import Datalist, PreparedCase

__all__ = ["check_datalist"]


def check_datalist(datalist: Datalist) -> None:
    """Refuse a data list that contradicts itself.

    Raises:
        TableError: A case name appears twice, a split names an unknown case, a patient lies in two splits, a point is not finite,
            a target was marked on no volume of its case, or a grade of a disc or vertebra is unknown.
    """
    names = [case.case for case in datalist.cases]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise TableError(f"{datalist.study}: cases {twice} appear twice. Give every case its own name.")
    if datalist.source not in ("real", "simulated"):
        raise TableError(f"{datalist.study}: source is {datalist.source!r}; it must be 'real' or 'simulated'.")
    _check_splits(datalist, {case.case: case.patient for case in datalist.cases})
    for case in datalist.cases:
        _check_case(case, datalist.study)


def _check_splits(datalist: Datalist, patients: dict[str, str]) -> None:
    split_of: dict[str, str] = {}
    for split, members in datalist.splits.items():
        unknown = sorted(set(members) - set(patients))
        if unknown:
            raise TableError(f"{datalist.study}: split {split!r} names unknown cases {unknown[:5]}. Prepare the data again.")
        for patient in (patients[name] for name in members):
            if split_of.setdefault(patient, split) != split:
                raise TableError(
                    f"{datalist.study}: patient {patient!r} lies in {split_of[patient]!r} and in {split!r}. "
                    "Split by patient, not by case."
                )


def _check_case(case: PreparedCase, study: str) -> None:
    wrong = next(
        (f"the point of {name} is {point}, which is no place" for name, point in _points(case) if not _is_place(point)), ""
    )
    if not _stays_inside(case.case):
        wrong = "its name is no path inside a folder"
    images = {None, *(volume.image for volume in case.volumes)}
    stray = next((target for target, found in case.targets.items() if found.image not in images), None)
    if stray is not None:
        image = case.targets[stray].image
        wrong = wrong or f"{stray.label} is said to be marked on {image!r}, which is no volume of the case"
    grades = {name: DISC_GRADES if name in DISCS else VERTEBRA_GRADES for name in case.degeneration}
    unknown = next((name for name, choices in grades.items() if case.degeneration[name] not in choices), None)
    if unknown is not None:
        choices = ", ".join(grades[unknown])
        wrong = wrong or f"the grade of {unknown} is {case.degeneration[unknown]!r}, which is none of {choices}"
    if wrong:
        raise TableError(f"{study}, case {case.case!r}: {wrong}. Prepare the data again.")


def _stays_inside(name: str) -> bool:
    """Whether a file of that name lies in the folder that it is written to, or a subfolder, and no other name means it."""
    path = PurePosixPath(name)
    return str(path) == name and name != "." and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _points(case: PreparedCase) -> Iterator[tuple[str, Point]]:
    yield from ((level.label, point) for level, point in (*case.discs.items(), *case.canals.items()))
    yield from ((body.label, point) for body, point in case.vertebrae.items())
    yield from ((target.label, found.point_ras_mm) for target, found in case.targets.items())


def _is_place(point: Point) -> bool:
    return all(map(math.isfinite, point))
