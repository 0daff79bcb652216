"""A prepared study of simulated lesions: copies of another one's studies, each with lesions of its own.

OUT/volumes/<case>_<copy>/sagittal_t2.nii    what lies around the column; other series where sides are graded
OUT/lesions.csv                              what was drawn at each level, and what the sac lost
OUT/datalist.json                            findings as their loss grades them, what became of graded discs; splits, patients as
                                             of the bases
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_spine.errors import TableError
from monai_spine.phantom.lesions.copies import COLUMNS, Row, base_of, write_copy
from monai_spine.studies.prepared import SPLITS, PreparedCase, read_datalist, write_datalist
from monai_spine.studies.table_output import write_rows
from monai_spine.workers import in_processes

__all__ = ["prepare_lesions"]


@dataclass(frozen=True)
class _Copies:
    """What became of one scan: its number, its copies, and rows of `lesions.csv`."""

    number: int
    cases: tuple[PreparedCase, ...]
    rows: tuple[Row, ...]


def prepare_lesions(
    bases: Path, out: Path, *, copies: int = 4, seed: int = 0, jobs: int = 1, on_case: Callable[[], None] | None = None
) -> Path:
    """Write a prepared study of simulated lesions on the sagittal T2 scans of another one.

    Two of three levels that may bear a lesion get one, so large that it takes a share of the sac's depth drawn evenly up to
    0.9. A fifth of the others lose height or signal and nothing of the sac, the rest are shown as they are; both count as normal.
    The grade is that of the loss as measured on the image; with it stands what simulated readers would say of such a loss. Where
    the scan's recesses and foramina are graded, as the phantom's are, its sagittal T1 and axial T2 series show the same lesions,
    of which some lie to the side, and their grades are those of the space that is left. No reader has seen these lesions.

    Args:
        bases: Prepared study, real or simulated.
        out: Folder to write to.
        copies: How many of each scan.
        seed: Fixes the lesions.
        jobs: Processes; they change nothing of what is drawn.
        on_case: Called after each scan of `bases`.

    Returns:
        The path of `datalist.json`.

    Raises:
        TableError: No scan of the study has a level that may bear a lesion.
        OutputError: Something cannot be written.
    """
    datalist = read_datalist(bases)
    work, numbers = partial(_copied, bases=Path(bases), out=Path(out), copies=copies, seed=seed), range(len(datalist.cases))
    found = {}
    for made in in_processes(work, numbers, jobs=jobs) if jobs > 1 else map(work, numbers):
        found[made.number] = made
        if on_case is not None:
            on_case()
    cases = [case for number in numbers for case in found[number].cases]
    if not cases:
        raise TableError(f"No scan of {bases} is a sagittal_t2 with a level that may bear a lesion. Give a study that has some.")
    write_rows(Path(out) / "lesions.csv", COLUMNS, [row for number in numbers for row in found[number].rows])
    names = {case.case for case in cases}
    splits = {
        split: [name for base in datalist.splits.get(split, ()) for copy in range(copies) if (name := f"{base}_{copy}") in names]
        for split in SPLITS
    }
    return write_datalist(out, study=f"{datalist.study}_lesions", source="simulated", cases=cases, splits=splits)


def _copied(number: int, *, bases: Path, out: Path, copies: int, seed: int) -> _Copies:
    """All copies of one scan."""
    datalist = read_datalist(bases)
    case = datalist.cases[number]
    base = base_of(case, datalist)
    if base is None:
        return _Copies(number, (), ())
    drawings = [np.random.RandomState([seed, number, copy]) for copy in range(copies)]
    written = [write_copy(base, out, f"{case.case}_{copy}", drawing) for copy, drawing in enumerate(drawings)]
    made = [copy for copy in written if copy is not None]
    return _Copies(number, tuple(case for case, _ in made), tuple(row for _, rows in made for row in rows))
