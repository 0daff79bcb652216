"""One copy of a prepared study with lesions: what is drawn at each level, which series show it, what its findings become."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from monai_spine.anatomy import TARGETS, Condition, Level, Target
from monai_spine.crops import neighbourhood
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Point, Triple
from monai_spine.phantom.lesions.bases import base_levels, base_site, check_measured
from monai_spine.phantom.lesions.canals import find_canals
from monai_spine.phantom.lesions.draw import USUAL_WEIGHTS, draw_lesions
from monai_spine.phantom.lesions.findings import graded, kept_space
from monai_spine.phantom.lesions.kinds import Lesion, described
from monai_spine.phantom.lesions.losses import CanalLoss
from monai_spine.phantom.lesions.plans import LevelLesions, carried
from monai_spine.phantom.lesions.simulate import apply_lesions, simulate_lesions
from monai_spine.phantom.lesions.sites import frames_of
from monai_spine.placement import ColumnFrame
from monai_spine.studies.prepared import Datalist, PreparedCase, PreparedTarget, PreparedVolume
from monai_spine.volume import Volume, load_nifti
from monai_spine.whole_files import written_whole

__all__ = ["COLUMNS", "Base", "Row", "base_of", "write_copy"]

COLUMNS = ("case", "level", "family", "share", "midline_share", "planes", "latent", "severity", "lesions")
Row = tuple[object, ...]

_SAGITTAL_T2, _SAGITTAL_T1, _AXIAL_T2 = "sagittal_t2", "sagittal_t1", "axial_t2"
_AROUND_MM: Mapping[str, Triple] = {
    _SAGITTAL_T2: (26.0, 40.0, 40.0),
    _SAGITTAL_T1: (44.0, 44.0, 48.0),
    _AXIAL_T2: (44.0, 44.0, 24.0),
}
"""What is kept of each series around the canal's points: enough for the graders' crops, wherever they jitter."""

_LARGEST_SHARE = 0.9
_WITH_LESION, _WORN = 0.65, 0.07
_LATERAL_OFTEN = 2.0

_GRADED_AS = {"none": "normal", "degeneration": "normal", "bulge": "bulge", "protrusion": "protrusion", "extrusion": "extrusion"}
"""The disc that each family makes of a normal one; of the others a reader of discs would say one thing or another."""
_LEAST_HERNIATION = 0.08


@dataclass(frozen=True)
class Base:
    """A scan, where its levels lie, and those that may bear a lesion.

    Attributes:
        sagittal_t2: The scan on which the sac is measured.
        others: Series that show the same lesions, as they are stored and as they are read; none where no recess and no foramen is
            graded.
    """

    case: PreparedCase
    sagittal_t2: Volume
    canals: Mapping[Level, Point]
    levels: tuple[Level, ...]
    others: tuple[tuple[PreparedVolume, Volume], ...]

    @cached_property
    def frames(self) -> dict[Level, ColumnFrame]:
        return frames_of(self.case.discs, self.canals)

    @property
    def often(self) -> dict[str, float]:
        """How often each family is drawn of those that reach the share: as usual, and lateral ones where sides are graded."""
        return {**USUAL_WEIGHTS, "lateral": _LATERAL_OFTEN if self.others else 0.0}


def base_of(case: PreparedCase, datalist: Datalist) -> Base:
    """The case's first sagittal T2 scan, and what else shows its recesses and foramina.

    Raises:
        LevelsNotFoundError: It has no such scan, or no level that may bear a lesion, or its points are no column.
    """
    scans = [volume for volume in case.volumes if volume.role == _SAGITTAL_T2]
    if not scans or len(case.discs) < 2:
        raise LevelsNotFoundError(f"it has {len(scans)} scans {_SAGITTAL_T2} and {len(case.discs)} discs: one and two are needed")
    grades = {level: f"disc_{case.degeneration.get(level.label)}" for level in case.discs} if case.degeneration else None
    levels = base_levels(case, grades)
    if not levels:
        raise LevelsNotFoundError("no disc is graded normal with a canal that is mild at most")
    scan = load_nifti(datalist.root / scans[0].image)
    canals = case.canals or find_canals(torch.from_numpy(scan.array), scan.affine, case.discs)
    frames_of(case.discs, canals)
    levels = tuple(level for level in levels if level in canals)
    sided = any(target.side is not None for target in case.targets)
    others = [volume for volume in case.volumes if sided and volume.role in (_SAGITTAL_T1, _AXIAL_T2)]
    return Base(case, scan, canals, levels, tuple((other, load_nifti(datalist.root / other.image)) for other in others))


def write_copy(base: Base, out: Path, name: str, drawing: np.random.RandomState) -> tuple[PreparedCase, list[Row]] | None:
    """One copy with lesions; None where no level of it could be measured."""
    image = torch.from_numpy(np.asarray(base.sagittal_t2.array, np.float32))
    plan, drawn = _planned(base, image, drawing)
    if not plan:
        return None
    simulated = simulate_lesions(image, base.sagittal_t2.affine, plan)
    measured = {entry.site.level: loss for entry in plan if _is_wide(loss := simulated.losses[entry.site.level], entry)}
    if not measured:
        return None
    stored = f"volumes/{name}/{_SAGITTAL_T2}.nii"
    discs, canals = carried(base.case.discs, plan), carried(base.canals, plan)
    _save(replace(base.sagittal_t2, array=simulated.image.numpy()), canals, _SAGITTAL_T2, out / stored)
    others = _write_others(base, plan, canals, out, name)
    shares = {
        entry.site.level: measured[entry.site.level].share if entry.lesions else 0.0
        for entry in plan
        if entry.site.level in measured
    }
    targets = _canals_graded(base, plan, shares, stored) | _sides_graded(base, plan, others)
    points = carried({target: found.point_ras_mm for target, found in targets.items()}, plan)
    case = replace(
        base.case,
        case=name,
        volumes=(PreparedVolume(stored, _SAGITTAL_T2), *others.values()),
        discs=discs,
        canals=canals,
        targets={target: replace(found, point_ras_mm=points[target]) for target, found in targets.items()},
        degeneration=_discs_graded(base, drawn, shares),
        vertebrae={},
        schmorl_nodes={},
        estimated=(),
    )
    return case, [_row(name, entry, drawn[level], measured[level]) for entry in plan if (level := entry.site.level) in measured]


def _write_others(
    base: Base, plan: Sequence[LevelLesions], canals: Mapping[Level, Point], out: Path, name: str
) -> dict[str, PreparedVolume]:
    """The other series with the same lesions, by the path of each without them."""
    written = {}
    for number, (volume, scan) in enumerate(base.others):
        path = f"volumes/{name}/{volume.role}_{number}.nii"
        changed = apply_lesions(torch.from_numpy(np.asarray(scan.array, np.float32)), scan.affine, plan)
        _save(replace(scan, array=changed.numpy()), canals, volume.role, out / path)
        written[volume.image] = PreparedVolume(path, volume.role)
    return written


def _planned(base: Base, image: torch.Tensor, drawing: np.random.RandomState) -> tuple[list[LevelLesions], dict[Level, str]]:
    """What each level that is fit for it gets, and the families that were drawn; without lesions `none`."""
    plan, drawn = [], {}
    for level in base.levels:
        kind, share = drawing.random_sample(), drawing.uniform(0, _LARGEST_SHARE)
        lesions = np.random.RandomState(drawing.randint(2**31))
        try:
            site = base_site(image, base.sagittal_t2.affine, base.frames[level], base.case.discs)
        except LevelsNotFoundError:
            continue
        family, found = "none", tuple[Lesion, ...]()
        if kind < _WITH_LESION:
            family, found = draw_lesions(lesions, site, share, base.often)
        elif kind < _WITH_LESION + _WORN:
            family, found = draw_lesions(lesions, site, 0.0, {"degeneration": 1.0})
        drawn[level] = family if found else "none"
        plan.append(LevelLesions(site, found))
    return plan, drawn


def _is_wide(loss: CanalLoss, entry: LevelLesions) -> bool:
    try:
        check_measured(loss, entry.site)
    except LevelsNotFoundError:
        return False
    return True


def _canals_graded(
    base: Base, plan: Sequence[LevelLesions], shares: Mapping[Level, float], image: str
) -> dict[Target, PreparedTarget]:
    """The canals of a copy: those that lesions were planned for by what was measured, the others as they were."""
    planned = {entry.site.level for entry in plan}
    found = {}
    for target in TARGETS:
        if target.condition is not Condition.SPINAL_CANAL_STENOSIS:
            continue
        before = base.case.targets.get(target)
        if target.level in shares and (after := graded(target, before, 1 - shares[target.level])) is not None:
            found[target] = PreparedTarget(base.canals[target.level], after[0], image, after[1])
        elif target.level in base.canals and target.level not in planned and before is not None:
            found[target] = replace(before, image=image)
    return found


def _sides_graded(base: Base, plan: Sequence[LevelLesions], others: Mapping[str, PreparedVolume]) -> dict[Target, PreparedTarget]:
    """The recesses and foramina of a copy: those that a lesion reaches by what it leaves of them, the others as they were."""
    found = {}
    for target, before in base.case.targets.items() if base.others else ():
        if target.side is None or target.level not in base.frames:
            continue
        kept = kept_space(target, before.point_ras_mm, base.frames, plan)
        marked = others.get(before.image or "")
        moved = replace(before, image=None if marked is None else marked.image)
        if kept > 0.999:
            found[target] = moved
        elif (after := graded(target, before, kept)) is not None:
            found[target] = replace(moved, severity=after[0], shares=after[1])
    return found


def _discs_graded(base: Base, drawn: Mapping[Level, str], shares: Mapping[Level, float]) -> dict[str, str]:
    """What became of discs whose grades are known; a herniation that takes next to nothing has none."""
    grades = {level: _GRADED_AS.get(drawn[level]) for level in shares} if base.case.degeneration else {}
    return {
        level.label: grade
        for level, grade in grades.items()
        if grade is not None and (grade == "normal" or shares[level] >= _LEAST_HERNIATION)
    }


def _row(name: str, entry: LevelLesions, family: str, loss: CanalLoss) -> Row:
    measured: tuple[Any, ...] = (loss.share, loss.midline_share, loss.planes, loss.latent)
    lesions = json.dumps([described(lesion) for lesion in entry.lesions])
    return (name, entry.site.level.label, family, *measured, loss.severity.value, lesions)


def _save(volume: Volume, canals: Mapping[Level, Point], role: str, path: Path) -> None:
    """Keep what lies around the canal."""
    kept = neighbourhood(volume, *canals.values(), radius_mm=_AROUND_MM[role])
    with written_whole(path) as beside:
        beside.write_bytes(nib.Nifti1Image(kept.array, kept.affine).to_bytes())
