"""Other splits of prepared data: folds by patient, and one part left out. Each split is a data list; no image is copied."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_spine.errors import TableError
from monai_spine.studies.prepared import Datalist, PreparedCase, write_datalist

__all__ = ["part_of", "patient_folds", "write_split", "write_splits"]


def part_of(case: PreparedCase) -> str:
    """The part of a data set that a case belongs to: what stands before the `_` in its name; empty where there is none."""
    return case.case.split("_")[0] if "_" in case.case else ""


def patient_folds(cases: Sequence[PreparedCase], count: int = 5) -> tuple[frozenset[str], ...]:
    """Names of the cases of each fold: patients are dealt out part by part, so that each fold has some of every part.

    Args:
        cases: All cases of a data set.
        count: Number of folds.

    Raises:
        TableError: There are fewer patients than folds.
    """
    patients: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case):
        if case.patient not in patients[part_of(case)]:
            patients[part_of(case)].append(case.patient)
    dealt = [patient for part in sorted(patients) for patient in patients[part]]
    if len(dealt) < count:
        raise TableError(f"{len(dealt)} patients cannot be dealt into {count} folds. Choose fewer folds.")
    return tuple(frozenset(case.case for case in cases if case.patient in dealt[fold::count]) for fold in range(count))


def write_split(datalist: Datalist, out_dir: Path | str, *, held_out: Collection[str]) -> Path:
    """Write a data list whose validation split is what is held out, and whose training split is all the rest.

    Args:
        datalist: The whole data set.
        out_dir: Folder of the new data list; its images stay where they are.
        held_out: Names of cases.

    Returns:
        Path of the new data list.

    Raises:
        TableError: A patient lies in both splits.
        OutputError: Nothing can be written there.
    """
    names = [case.case for case in datalist.cases]
    splits = {
        "training": [name for name in names if name not in held_out],
        "validation": [name for name in names if name in held_out],
    }
    return write_splits(datalist, out_dir, splits=splits)


def write_splits(datalist: Datalist, out_dir: Path | str, *, splits: Mapping[str, Sequence[str]]) -> Path:
    """Write a data list of the same cases with other splits.

    Args:
        datalist: The whole data set.
        out_dir: Folder of the new data list; its images stay where they are.
        splits: Names of the cases of `training`, `validation` and `test`.

    Returns:
        Path of the new data list.

    Raises:
        TableError: A patient lies in two splits, or a case is unknown.
        OutputError: Nothing can be written there.
    """
    out = Path(out_dir)
    cases = [_moved(case, datalist.root, out) for case in datalist.cases]
    return write_datalist(out, study=datalist.study, source=datalist.source, cases=cases, splits=splits)


def _moved(case: PreparedCase, root: Path, out: Path) -> PreparedCase:
    """The same files, seen from another folder."""

    def seen(path: str) -> str:
        return os.path.relpath(root / path, out)

    volumes = [replace(volume, image=seen(volume.image), bodies=volume.bodies and seen(volume.bodies)) for volume in case.volumes]
    targets = {what: replace(one, image=one.image and seen(one.image)) for what, one in case.targets.items()}
    return replace(case, volumes=tuple(volumes), targets=targets)
