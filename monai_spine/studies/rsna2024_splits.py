"""The splits of prepared RSNA 2024 data: five folds, 70/15/15 and 80/15/5, by patient and by class, checked for leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_spine.errors import TableError
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import SPLITS, Datalist, PreparedCase, write_datalist
from monai_spine.studies.rsna2024_images import StudyImages
from monai_spine.studies.rsna2024_patients import image_keys
from monai_spine.studies.stratified import stratified_parts
from monai_spine.studies.table_output import write_rows

__all__ = ["FOLDS", "refuse_shared_images", "write_all_splits"]

FOLDS = 5
_SHARES: Mapping[str, tuple[float, ...]] = {"70_15_15": (0.7, 0.15, 0.15), "80_15_5": (0.8, 0.15, 0.05)}
_MAIN = "70_15_15"


def write_all_splits(
    out: Path, cases: Sequence[PreparedCase], images: Sequence[StudyImages], *, study: str, source: str
) -> dict[str, dict[str, str]]:
    """Write `datalist.json`, those of the folds and of the other split, and `splits.csv`.

    With fewer patients than parts, a fold or a split is not made; the main data list then has all of them for training.

    Args:
        out: The prepared folder.
        cases: All cases.
        images: Of at least these.
        study: What the data set is called.
        source: `real` or `simulated`.

    Returns:
        For `fold` and each split: case to part.

    Raises:
        TableError: A patient or an image lies in two parts.
        OutputError: A file cannot be written.
    """
    classes = _classes(cases)
    parts = {name: _parts(cases, classes, SPLITS, shares) for name, shares in _SHARES.items()}
    parts["fold"] = _parts(cases, classes, [str(fold) for fold in range(FOLDS)], (1 / FOLDS,) * FOLDS)
    for part_of in parts.values():
        refuse_shared_images(part_of, images)
    main = parts[_MAIN] or {case.case: "training" for case in cases}
    whole = Datalist(study, source, out, tuple(cases), _members(main))
    write_datalist(out, study=study, source=source, cases=cases, splits=whole.splits)
    if parts["80_15_5"]:
        write_splits(whole, out / "splits" / "80_15_5", splits=_members(parts["80_15_5"]))
    for fold in sorted(set(parts["fold"].values())):
        held_out = {case: "validation" if own == fold else "training" for case, own in parts["fold"].items()}
        write_splits(whole, out / "folds" / f"fold_{fold}", splits=_members(held_out))
    rows = [(case.case, case.patient, *(part_of.get(case.case, "") for part_of in parts.values())) for case in cases]
    write_rows(out / "splits.csv", ("study_id", "patient", *parts), rows)
    return parts


def refuse_shared_images(part_of: Mapping[str, str], images: Sequence[StudyImages]) -> None:
    """Refuse a split in which the same voxels lie on both sides.

    Raises:
        TableError: They do; the message names the studies.
    """
    seen: dict[object, tuple[str, int]] = {}
    for study in images:
        part = part_of.get(str(study.study_id))
        for key in image_keys(study) if part is not None else ():
            other, where = seen.setdefault(key, (str(part), study.study_id))
            if other != part:
                raise TableError(
                    f"Studies {where} and {study.study_id} have the same images, and lie in {other!r} and in {part!r}. "
                    "Prepare the data again."
                )


def _classes(cases: Sequence[PreparedCase]) -> dict[str, Counter[str]]:
    """How often each grade of a condition at a level occurs in each patient."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        graded = [(target, found.severity) for target, found in case.targets.items() if found.severity is not None]
        classes[case.patient].update(f"{target.condition.slug} {target.level.slug} {grade.slug}" for target, grade in graded)
    return classes


def _parts(
    cases: Sequence[PreparedCase], classes: Mapping[str, Mapping[str, int]], names: Sequence[str], shares: Sequence[float]
) -> dict[str, str]:
    """The part of each case; empty where there are fewer patients than parts."""
    if len(classes) < len(names):
        return {}
    parts = stratified_parts(classes, shares)
    part_of = {patient: name for name, members in zip(names, parts, strict=True) for patient in members}
    return {case.case: part_of[case.patient] for case in cases}


def _members(part_of: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {split: tuple(case for case, own in part_of.items() if own == split) for split in SPLITS}
