"""Any study's own sagittal volumes as NIfTI files with a table of points, as prepared data for the localiser.

    DATA/points.csv               image, [patient], structure, and r, a, s or i, j, k: see `points_table.py`
    DATA/**/NAME.nii.gz           sagittal volumes, in subfolders or not
    DATA/**/NAME_bodies.nii.gz    optional: 1..7 = L1..L5, S1, T12 on the grid of NAME

Points and label maps are taken as seen; what is not there is absent, and nothing is derived.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Level, Target, Vertebra
from monai_spine.errors import OutputError, TableError, UnreadableInputError
from monai_spine.files import name_of
from monai_spine.geometry import Point
from monai_spine.levels import BODY_VALUES
from monai_spine.studies.nifti_files import refuse_other_grid, save_sagittal
from monai_spine.studies.points_table import STRUCTURES, MarkedImage, PointsTable, label_map_of
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, write_datalist
from monai_spine.volume import Volume, load_nifti

__all__ = ["HELD_OUT", "prepare", "split_patients"]

HELD_OUT = 0.2
"""Share of the patients that validation gets where no other is asked for."""

_CLOSEST_MM, _FARTHEST_MM = 8.0, 65.0
"""Of neighbouring discs, those of small children and of the tallest adults."""

_NAME = re.compile(r"\w[\w .-]*")


def prepare(
    data_dir: Path | str,
    out_dir: Path | str,
    *,
    points: Path | str | None = None,
    held_out: float = HELD_OUT,
    name: str | None = None,
) -> Path:
    """Write the prepared layout of a study: its volumes, label maps of the bodies where there are any, and `datalist.json`.

    Images that the table does not name are left out.

    Args:
        data_dir: Folder of the NIfTI files.
        out_dir: Where to write; made if it does not exist.
        points: The table; None: `points.csv` in `data_dir`.
        held_out: Share of the patients that validation gets; see `split_patients`.
        name: What the data set is called in tables and in `mixture`; None: as `out_dir`.

    Returns:
        Path of the data list.

    Raises:
        TableError: The table cannot be used (see `PointsTable`), the patients cannot be split so, or the name is none.
        StudyError: The folder, an image or a label map cannot be used. Nothing is written then.
        OutputError: Nothing can be written there, or it lies in `data_dir`.
    """
    data, out = Path(data_dir), Path(out_dir)
    study = name_of(out) if name is None else name
    if _NAME.fullmatch(study) is None:
        raise TableError(f"{study!r} cannot name a study. Choose a --name of letters, digits, spaces, dots and dashes.")
    _check_folders(data, out)
    table = PointsTable.read(data / "points.csv" if points is None else Path(points), data)
    splits = split_patients({image.case: image.patient for image in table.images}, held_out)
    for image in table.images:
        _read(table, image)
    cases = [_prepare_case(table, image, out) for image in table.images]
    return write_datalist(out, study=study, source="real", cases=cases, splits=splits)


def split_patients(patients: Mapping[str, str], held_out: float = HELD_OUT) -> dict[str, list[str]]:
    """Training and validation by patient; always the same for the same patients, in whatever order.

    Those are held out whose names come first by SHA-256, so that one more patient moves at most one other.

    Args:
        patients: Case name to patient.
        held_out: Share of the patients, rounded to whole ones. Between 0 and 1, either part gets one at least.

    Raises:
        TableError: The share lies outside of 0 to 1, or there is one patient only to be split.
    """
    if not 0 <= held_out <= 1:
        raise TableError(f"The share of patients to hold out must lie in 0 to 1, got {held_out:g}. 0.2 is usual.")
    names = sorted(set(patients.values()), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    count = round(held_out * len(names))
    if 0 < held_out < 1:
        if len(names) < 2:
            raise TableError("One patient cannot be split into training and validation. Add patients, or hold out 0 or 1.")
        count = min(max(count, 1), len(names) - 1)
    first = set(names[:count])
    return {
        "training": [case for case in sorted(patients) if patients[case] not in first],
        "validation": [case for case in sorted(patients) if patients[case] in first],
    }


def _check_folders(data: Path, out: Path) -> None:
    if not data.is_dir():
        raise UnreadableInputError(f"{data} does not exist, or is no folder. Name the folder of the NIfTI files.")
    if out.resolve().is_relative_to(data.resolve()):
        raise OutputError(f"{out} lies in {data}, so that its files would be images of the study. Choose a folder outside.")


def _read(table: PointsTable, image: MarkedImage) -> tuple[Volume, npt.NDArray[np.uint8] | None, dict[str, Point]]:
    """An image, its label map (i, j, k) if there is one, and its points."""
    volume = load_nifti(image.path)
    points = table.points_on(image, volume)
    _check_column(f"{table.table.name}, {image.path.name}", points)
    return volume, _label_map(image.path, volume), points


def _check_column(where: str, points: Mapping[str, Point]) -> None:
    """Refuse discs that no column has: not below one another, or not as far apart as discs can be.

    Raises:
        TableError: The first two that cannot both be right.
    """
    discs = [(order, level, points[level.label]) for order, level in enumerate(Level) if level.label in points]
    for (above, upper, high), (below, lower, low) in pairwise(discs):
        steps, apart = below - above, float(np.linalg.norm(np.subtract(high, low)))
        if low[2] >= high[2]:
            raise TableError(
                f"{where}: {lower.label} does not lie below {upper.label} (S {low[2]:.0f} and {high[2]:.0f} mm). "
                "Name the discs from the head down; s grows towards the head."
            )
        if not _CLOSEST_MM <= apart / steps <= _FARTHEST_MM:
            raise TableError(
                f"{where}: {upper.label} and {lower.label} lie {apart:.0f} mm apart; "
                f"discs lie {_CLOSEST_MM:g} to {_FARTHEST_MM:g} mm from their neighbours. "
                "Check the names, and that r, a, s are millimetres."
            )


def _label_map(image: Path, volume: Volume) -> npt.NDArray[np.uint8] | None:
    path = label_map_of(image)
    if path is None:
        return None
    labels = load_nifti(path)
    shapes, affines = (volume.array.shape, labels.array.shape), (volume.affine, labels.affine)
    refuse_other_grid(image, shapes, affines, remedy=f"Draw {path.name} on the image itself, or remove it.")
    values = np.unique(labels.array)
    if not np.isin(values, [0, *BODY_VALUES.values()]).all() or not values.any():
        meaning = ", ".join(f"{value} = {body.label}" for body, value in BODY_VALUES.items())
        raise UnreadableInputError(
            f"{path} holds the values {values[:12].tolist()}. It must mark bodies as {meaning}, and hold 0 elsewhere. "
            "Correct it, or remove it."
        )
    return labels.array.astype(np.uint8)


def _prepare_case(table: PointsTable, image: MarkedImage, out: Path) -> PreparedCase:
    volume, bodies, points = _read(table, image)
    seen = [(structure, STRUCTURES[structure], point) for structure, point in points.items()]
    return PreparedCase(
        case=image.case,
        patient=image.patient,
        volumes=(save_sagittal(out, image.case, volume.array, volume.affine, role="sagittal", bodies=bodies),),
        discs={what: point for name, what, point in seen if isinstance(what, Level) and name == what.label},
        canals={what: point for name, what, point in seen if isinstance(what, Level) and name != what.label},
        vertebrae={what: point for _, what, point in seen if isinstance(what, Vertebra)},
        targets={what: PreparedTarget(point, severity=None) for _, what, point in seen if isinstance(what, Target)},
    )
