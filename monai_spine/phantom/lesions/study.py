"""A prepared study of simulated lesions: copies of another one's sagittal T2 scans, each with lesions of its own.

OUT/volumes/<case>_<copy>/sagittal_t2.nii    what lies around the column
OUT/lesions.csv                              what was drawn at each level, and what the sac lost
OUT/datalist.json                            canal stenosis as the loss grades it, what became of graded discs; splits, patients
                                             as of the bases
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from monai_spine.anatomy import Condition, Level, Target
from monai_spine.crops import neighbourhood
from monai_spine.errors import LevelsNotFoundError, TableError
from monai_spine.geometry import Point
from monai_spine.phantom.lesions.bases import base_levels, base_site, check_measured
from monai_spine.phantom.lesions.draw import FAMILIES, draw_lesions
from monai_spine.phantom.lesions.kinds import Lesion, described
from monai_spine.phantom.lesions.losses import CanalLoss, severity_of_share
from monai_spine.phantom.lesions.plans import LevelLesions
from monai_spine.phantom.lesions.simulate import simulate_lesions
from monai_spine.phantom.lesions.sites import find_canals, frames_of
from monai_spine.phantom.readers import reader_shares
from monai_spine.studies.prepared import (
    SPLITS,
    Datalist,
    PreparedCase,
    PreparedTarget,
    PreparedVolume,
    read_datalist,
    write_datalist,
)
from monai_spine.studies.table_output import write_rows
from monai_spine.volume import Volume, load_nifti

__all__ = ["prepare_lesions"]

_ROLE = "sagittal_t2"
_COLUMNS = ("case", "level", "family", "share", "midline_share", "planes", "latent", "severity", "lesions")
_AROUND_MM = (26.0, 40.0, 40.0)
_LARGEST_SHARE = 0.9
_WITH_LESION, _WORN = 0.65, 0.07
_OFTEN = {family: 0.0 if family == "lipomatosis" else 1.0 for family in FAMILIES}
"""How often each family is drawn of those that reach the share. Fat behind the sac is left out: a grader that learns from it
too ranks real herniations less well (docs/validity.md)."""

_GRADED_AS = {"none": "normal", "degeneration": "normal", "bulge": "bulge", "protrusion": "protrusion", "extrusion": "extrusion"}
"""The disc that each family makes of a normal one; of the others a reader of discs would say one thing or another."""
_LEAST_HERNIATION = 0.08

Row = tuple[object, ...]


@dataclass(frozen=True)
class _Base:
    """A scan, where its levels lie, and those that may bear a lesion."""

    case: PreparedCase
    volume: Volume
    canals: Mapping[Level, Point]
    levels: tuple[Level, ...]


def prepare_lesions(bases: Path, out: Path, *, copies: int = 4, seed: int = 0, on_case: Callable[[], None] | None = None) -> Path:
    """Write a prepared study of simulated lesions on the sagittal T2 scans of another one.

    Two of three levels that may bear a lesion get one, so large that it takes a share of the sac's depth drawn evenly up to
    0.9. A fifth of the others lose height or signal and nothing of the sac, the rest are shown as they are; both count as normal.
    The grade is that of the loss as measured on the image; with it stands what simulated readers would say of such a loss. No
    reader has seen these lesions.

    Args:
        bases: Prepared study, real or simulated.
        out: Folder to write to.
        copies: How many of each scan.
        seed: Fixes the lesions.
        on_case: Called after each scan of `bases`.

    Returns:
        The path of `datalist.json`.

    Raises:
        TableError: No scan of the study has a level that may bear a lesion.
        OutputError: Something cannot be written.
    """
    datalist, cases, rows = read_datalist(bases), [], []
    for number, case in enumerate(datalist.cases):
        base = _base_of(case, datalist)
        for copy in range(copies if base is not None else 0):
            assert base is not None
            written = _write_copy(base, Path(out), f"{case.case}_{copy}", np.random.RandomState([seed, number, copy]))
            if written is not None:
                cases.append(written[0])
                rows += written[1]
        if on_case is not None:
            on_case()
    if not cases:
        raise TableError(f"No scan of {bases} is a {_ROLE} with a level that may bear a lesion. Give a study that has some.")
    write_rows(Path(out) / "lesions.csv", _COLUMNS, rows)
    names = {case.case for case in cases}
    splits = {
        split: [name for base in datalist.splits.get(split, ()) for copy in range(copies) if (name := f"{base}_{copy}") in names]
        for split in SPLITS
    }
    return write_datalist(out, study=f"{datalist.study}_lesions", source="simulated", cases=cases, splits=splits)


def _base_of(case: PreparedCase, datalist: Datalist) -> _Base | None:
    """The case's first sagittal T2 scan, where it has one and a level that may bear a lesion."""
    scans = [volume for volume in case.volumes if volume.role == _ROLE]
    if not scans or len(case.discs) < 2:
        return None
    grades = {level: f"disc_{case.degeneration.get(level.label)}" for level in case.discs} if case.degeneration else None
    levels = base_levels(case, grades)
    volume = load_nifti(datalist.root / scans[0].image)
    canals = case.canals or find_canals(torch.from_numpy(volume.array), volume.affine, case.discs)
    return _Base(case, volume, canals, levels) if levels else None


def _write_copy(base: _Base, out: Path, name: str, drawing: np.random.RandomState) -> tuple[PreparedCase, list[Row]] | None:
    """One copy with lesions; None where no level of it could be measured."""
    image = torch.from_numpy(np.asarray(base.volume.array, np.float32))
    plan, drawn = _planned(base, image, drawing)
    if not plan:
        return None
    simulated = simulate_lesions(image, base.volume.affine, plan)
    rows, targets, discs = [], {}, {}
    path = f"volumes/{name}/{_ROLE}.nii"
    for entry in plan:
        level, loss = entry.site.level, simulated.losses[entry.site.level]
        try:
            check_measured(loss, entry.site)
        except LevelsNotFoundError:
            continue
        share = loss.share if entry.lesions else 0.0
        target = Target(Condition.SPINAL_CANAL_STENOSIS, None, level)
        shares = reader_shares(target, loss.latent if entry.lesions else -np.inf)
        targets[target] = PreparedTarget(base.canals[level], severity_of_share(share), image=path, shares=shares)
        grade = _GRADED_AS.get(drawn[level])
        if base.case.degeneration and grade is not None and (grade == "normal" or share >= _LEAST_HERNIATION):
            discs[level.label] = grade
        rows.append(_row(name, entry, drawn[level], loss))
    if not targets:
        return None
    _save(Volume(simulated.image.numpy(), base.volume.affine), base.canals, out / path)
    volumes = (PreparedVolume(path, _ROLE),)
    case = replace(base.case, case=name, volumes=volumes, canals=base.canals, targets=targets, degeneration=discs)
    return replace(case, vertebrae={}, schmorl_nodes={}, estimated=()), rows


def _planned(base: _Base, image: torch.Tensor, drawing: np.random.RandomState) -> tuple[list[LevelLesions], dict[Level, str]]:
    """What each level that is fit for it gets, and the families that were drawn; without lesions `none`."""
    frames = frames_of(base.case.discs, base.canals)
    plan, drawn = [], {}
    for level in base.levels:
        kind, share = drawing.random_sample(), drawing.uniform(0, _LARGEST_SHARE)
        lesions = np.random.RandomState(drawing.randint(2**31))
        try:
            site = base_site(image, base.volume.affine, frames[level], base.case.discs)
        except LevelsNotFoundError:
            continue
        family, found = "none", tuple[Lesion, ...]()
        if kind < _WITH_LESION:
            family, found = draw_lesions(lesions, site, share, _OFTEN)
        elif kind < _WITH_LESION + _WORN:
            family, found = draw_lesions(lesions, site, 0.0, {"degeneration": 1.0})
        drawn[level] = family if found else "none"
        plan.append(LevelLesions(site, found))
    return plan, drawn


def _row(name: str, entry: LevelLesions, family: str, loss: CanalLoss) -> Row:
    measured: tuple[Any, ...] = (loss.share, loss.midline_share, loss.planes, loss.latent)
    lesions = json.dumps([described(lesion) for lesion in entry.lesions])
    return (name, entry.site.level.label, family, *measured, loss.severity.value, lesions)


def _save(volume: Volume, canals: Mapping[Level, Point], path: Path) -> None:
    """Keep what lies around the canal."""
    points = np.array(list(canals.values()))
    low, high = points.min(axis=0), points.max(axis=0)
    (r, a, s), (across, along, up) = (low + high) / 2, (high - low) / 2 + np.array(_AROUND_MM)
    kept = neighbourhood(volume, (r, a, s), radius_mm=(across, along, up))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(kept.array, kept.affine), path)
