"""A prepared study of simulated lesions: copies of another one's studies, each with lesions of its own.

OUT/volumes/<case>_<copy>/sagittal_t2.nii    what lies around the column; other series where sides are graded
OUT/lesions.csv                              what was drawn at each level, and what the sac lost
OUT/datalist.json                            findings as their loss grades them, what became of graded discs; splits, patients as
                                             of the bases
OUT/settings.json                            what the lesions were drawn for; OUT takes no others
OUT/finished/<number>.json                   while it is written: what became of each scan that is done

What was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_spine.errors import LevelsNotFoundError, OutputError, TableError
from monai_spine.phantom.lesions.copies import COLUMNS, Row, base_of, write_copy
from monai_spine.studies.prepared import (
    SPLITS,
    Datalist,
    PreparedCase,
    case_from_json,
    case_to_json,
    read_datalist,
    write_datalist,
)
from monai_spine.studies.table_output import write_rows
from monai_spine.whole_files import write_text
from monai_spine.workers import in_processes

__all__ = ["prepare_lesions"]

_SUFFIX = "_lesions"


@dataclass(frozen=True)
class _Copies:
    """What became of one scan: its number, its copies, rows of `lesions.csv`, and why there are none."""

    number: int
    cases: tuple[PreparedCase, ...]
    rows: tuple[Row, ...]
    reason: str = ""


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
        TableError: No scan of the study has a level that may bear a lesion, or it is a study of simulated lesions itself.
        OutputError: Something cannot be written, or OUT holds something else.
    """
    bases, out = Path(bases), Path(out)
    datalist = read_datalist(bases)
    _check_place(datalist, out, {"bases": _digest(bases), "copies": copies, "seed": seed})
    work, numbers = partial(_copied, bases=bases, out=out, copies=copies, seed=seed), range(len(datalist.cases))
    found = {}
    for made in in_processes(work, numbers, jobs=jobs) if jobs > 1 else map(work, numbers):
        found[made.number] = made
        if on_case is not None:
            on_case()
    cases = [case for number in numbers for case in found[number].cases]
    if not cases:
        first = next((f"; {case.case}: {found[at].reason}" for at, case in enumerate(datalist.cases)), "")
        raise TableError(
            f"No scan of {bases} is a sagittal_t2 with a level that may bear a lesion. Give a study that has some "
            f"({len(datalist.cases)} scans{first})."
        )
    write_rows(out / "lesions.csv", COLUMNS, [row for number in numbers for row in found[number].rows])
    names = {case.case for case in cases}
    splits = {
        split: [name for base in datalist.splits.get(split, ()) for copy in range(copies) if (name := f"{base}_{copy}") in names]
        for split in SPLITS
    }
    path = write_datalist(out, study=f"{datalist.study}{_SUFFIX}", source="simulated", cases=cases, splits=splits)
    shutil.rmtree(_finished(out), ignore_errors=True)
    return path


def _finished(out: Path) -> Path:
    return out / "finished"


def _digest(bases: Path) -> str:
    return hashlib.sha256((bases / "datalist.json").read_bytes()).hexdigest()


def _check_place(datalist: Datalist, out: Path, settings: dict[str, object]) -> None:
    """Refuse lesions on lesions, and a folder of anything else than these very ones."""
    if datalist.study.endswith(_SUFFIX):
        raise TableError(
            f"{datalist.root} is a study of simulated lesions itself: what they have taken already would count as nothing. "
            "Give the study that it was made of."
        )
    path = out / "settings.json"
    there = path.read_text(encoding="utf-8") if path.is_file() else None
    wanted = json.dumps(settings, indent=2) + "\n"
    if there is None and out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} holds something that was not made by this. Choose another folder, or an empty one.")
    if there not in (None, wanted):
        raise OutputError(f"{out} holds lesions of other scans, copies or seed ({path}). Choose another folder, or remove it.")
    write_text(path, wanted)


def _copied(number: int, *, bases: Path, out: Path, copies: int, seed: int) -> _Copies:
    """All copies of one scan, as they were written before or now."""
    datalist = read_datalist(bases)
    case = datalist.cases[number]
    record = _finished(out) / f"{number}.json"
    if record.is_file():
        there = json.loads(record.read_text(encoding="utf-8"))
        return _Copies(number, tuple(map(case_from_json, there["cases"])), tuple(map(tuple, there["rows"])), there["reason"])
    result = _drawn(number, case=case, datalist=datalist, out=out, copies=copies, seed=seed)
    cases = [case_to_json(case) for case in result.cases]
    write_text(record, json.dumps({"cases": cases, "rows": result.rows, "reason": result.reason}))
    return result


def _drawn(number: int, *, case: PreparedCase, datalist: Datalist, out: Path, copies: int, seed: int) -> _Copies:
    """Write all copies of one scan."""
    try:
        base = base_of(case, datalist)
    except LevelsNotFoundError as error:
        return _Copies(number, (), (), str(error))
    names = ((copy, f"{case.case}_{copy}") for copy in range(copies))
    written = [write_copy(base, out, name, np.random.RandomState([seed, number, copy])) for copy, name in names]
    made = [copy for copy in written if copy is not None]
    reason = "" if made else "its sac is nowhere wide and bright enough to be measured"
    return _Copies(number, tuple(case for case, _ in made), tuple(row for _, rows in made for row in rows), reason)
