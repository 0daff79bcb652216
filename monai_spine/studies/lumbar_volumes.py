"""Real sagittal lumbar volumes with label maps, gathered from four public sets (VB1, VB2, VB3, IVD), as prepared data.

Discs are labelled in IVD only. In the other sets the centre of a disc is taken from the two bodies beside it (the middle of the
gap between their facing endplates). Where a neighbour has no label, and for the canal, which no set labels, the points are
derived from mean dimensions (`endplates.py`) and listed as `estimated`: weak labels for training, never for evaluation.
The sense of left and right was not kept by the sets' authors; nothing with a side may be learnt from them.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from scipy.spatial import QhullError

from monai_spine.anatomy import DISCS, LEVELS, Level, Vertebra
from monai_spine.errors import UnreadableInputError
from monai_spine.geometry import Affine, Point
from monai_spine.levels import BODY_VALUES
from monai_spine.studies.endplates import Cloud, canal_behind, disc_below, disc_between, mask_points
from monai_spine.studies.nifti_files import refuse_other_grid, save_sagittal
from monai_spine.studies.prepared import PreparedCase, write_datalist

__all__ = ["STUDY", "prepare", "split_by_patient"]

STUDY = "lumbar_volumes"

_DISC_VALUES = {level: 11 + index for index, level in enumerate(LEVELS)}
_SAME_PATIENT = {"VB1_03": "VB1_02", "VB1_07": "VB1_06"}
_ROLE = {"VB1": "sagittal", "VB2": "sagittal_t2", "VB3": "sagittal", "IVD": "sagittal_t2"}
_FOLDS = 5
_VALIDATION_FOLD = 2


def prepare(data_dir: Path | str, out_dir: Path | str) -> Path:
    """Write the prepared layout of `lumbar_volumes`: images, masks of the bodies (1..7 = L1..L5, S1, T12) and `datalist.json`.

    Args:
        data_dir: Folder with `NAME.nii.gz` and `NAME_labels.nii.gz`.
        out_dir: Where to write; made if it does not exist.

    Returns:
        Path of the data list.

    Raises:
        UnreadableInputError: The folder holds no volume with a label map, or a file that cannot be used.
        OutputError: Nothing can be written there.
    """
    if not Path(data_dir).is_dir():
        raise UnreadableInputError(f"{data_dir} does not exist, or is no folder. Name the folder of the data set lumbar_volumes.")
    names = sorted(path.name.removesuffix("_labels.nii.gz") for path in Path(data_dir).glob("*_labels.nii.gz"))
    if not names:
        raise UnreadableInputError(f"{data_dir} holds no NAME_labels.nii.gz. Name the folder of the data set lumbar_volumes.")
    for name in names:
        _check_name(Path(data_dir), name)
    cases = [_prepare_case(Path(data_dir), name, Path(out_dir)) for name in names]
    patients = {case.case: case.patient for case in cases}
    return write_datalist(out_dir, study=STUDY, source="real", cases=cases, splits=split_by_patient(patients))


def split_by_patient(patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Training and validation (a fifth), set by set and patient by patient; always the same for the same names.

    Args:
        patients: Case name to patient; a set's name is what stands before the `_`.
    """
    sets: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(set(patients.values())):
        sets[patient.split("_")[0]].append(patient)
    held_out = {patient for members in sets.values() for patient in members[_VALIDATION_FOLD::_FOLDS]}
    return {
        "training": [case for case in sorted(patients) if patients[case] not in held_out],
        "validation": [case for case in sorted(patients) if patients[case] in held_out],
        "test": [],
    }


def _prepare_case(data_dir: Path, name: str, out_dir: Path) -> PreparedCase:
    image, voxels = _read(data_dir / f"{name}.nii.gz")
    labels, values = _read(data_dir / f"{name}_labels.nii.gz")
    refuse_other_grid(
        data_dir / name,
        (voxels.shape, values.shape),
        (image.affine, labels.affine),
        remedy="Restore both from the set.",
    )
    clouds = {body: mask_points(values == value, labels.affine) for body, value in BODY_VALUES.items() if (values == value).any()}
    try:
        discs = _labelled_discs(values, labels.affine) or _discs_between(clouds)
        estimated_disc = _estimated_disc(clouds, discs)
        canals = _estimated_canals(clouds, {**discs, **estimated_disc})
    except (QhullError, ValueError) as error:
        raise UnreadableInputError(
            f"{data_dir / name}_labels.nii.gz: its bodies let no disc be placed ({str(error).splitlines()[0]}). "
            "Restore it from the set."
        ) from error
    if not clouds and not discs:
        raise UnreadableInputError(f"{data_dir / name}_labels.nii.gz marks no vertebra and no disc. Restore it from the set.")
    bodies = np.where(values <= max(BODY_VALUES.values()), values, 0).astype(np.uint8)
    return PreparedCase(
        case=name,
        patient=_SAME_PATIENT.get(name, name),
        volumes=(save_sagittal(out_dir, name, voxels, image.affine, role=_ROLE[name.split("_")[0]], bodies=bodies),),
        discs={**discs, **estimated_disc},
        canals=canals,
        vertebrae={body: _mean(cloud) for body, cloud in clouds.items()},
        estimated=tuple([f"disc {level.label}" for level in estimated_disc] + [f"canal {level.label}" for level in canals]),
    )


def _check_name(data_dir: Path, name: str) -> None:
    """Refuse a volume before anything is written."""
    if not re.fullmatch(r"(VB1|VB2|VB3|IVD)_\w+", name):
        raise UnreadableInputError(f"{name!r} is of no known set (VB1, VB2, VB3, IVD). Remove it from {data_dir}.")
    if not (data_dir / f"{name}.nii.gz").is_file():
        raise UnreadableInputError(f"{data_dir} holds labels of {name}, but no {name}.nii.gz. Restore it from the set.")


def _read(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    """A NIfTI file and its voxels as stored."""
    try:
        image = nib.load(path)
        return image, np.asarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UnreadableInputError(f"{path} cannot be read as NIfTI ({error}). Restore it from the set.") from error


def _labelled_discs(values: npt.NDArray[Any], affine: Affine) -> dict[Level, Point]:
    return {
        level: _mean(mask_points(values == value, affine)) for level, value in _DISC_VALUES.items() if (values == value).any()
    }


def _discs_between(clouds: Mapping[Vertebra, Cloud]) -> dict[Level, Point]:
    return {
        level: _mean(disc_between(clouds[level.vertebra_above], clouds[level.vertebra_below]))
        for level in Level
        if level.vertebra_above in clouds and level.vertebra_below in clouds
    }


def _estimated_disc(clouds: Mapping[Vertebra, Cloud], discs: Mapping[Level, Point]) -> dict[Level, Point]:
    """L5/S1 below L5, where S1 has no label."""
    if Level.L5_S1 in discs or Vertebra.L5 not in clouds or Level.L4_L5 not in discs:
        return {}
    return {Level.L5_S1: disc_below(clouds[Vertebra.L5], discs[Level.L4_L5])}


def _estimated_canals(clouds: Mapping[Vertebra, Cloud], discs: Mapping[Level, Point]) -> dict[Level, Point]:
    canals = {}
    for level in DISCS:
        beside: Sequence[Cloud] = [clouds[body] for body in (level.vertebra_above, level.vertebra_below) if body in clouds]
        if level in discs and level.vertebra_above in clouds:
            down = np.asarray(discs[level]) - clouds[level.vertebra_above].mean(0)
            canals[level] = canal_behind(discs[level], np.concatenate(beside), down)
    return canals


def _mean(cloud: Cloud) -> Point:
    r, a, s = (float(value) for value in cloud.mean(0))
    return r, a, s
