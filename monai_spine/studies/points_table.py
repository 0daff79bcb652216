"""A table of points on the images of a folder: which structure was seen where, on whose scan.

Columns: `image` (path below the folder, or the file's name), optionally `patient`, `structure`, and either `r`, `a`, `s` (RAS+
mm) or `i`, `j`, `k` (voxels, counted from 0 at the centre of the first, along the axes as stored). Others are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_spine.anatomy import DISCS, LEVELS, Condition, Level, Side, Target, Vertebra
from monai_spine.errors import TableError
from monai_spine.files import walk
from monai_spine.geometry import Point, apply_affine, lies_inside
from monai_spine.levels import BODY_VALUES
from monai_spine.studies.source_table import SourceTable
from monai_spine.volume import Volume

__all__ = ["STRUCTURES", "MarkedImage", "PointsTable", "label_map_of"]

STRUCTURES: Mapping[str, Level | Vertebra | Target] = {
    **{level.label: level for level in DISCS},
    **{f"canal {level.label}": level for level in DISCS},
    **{body.label: body for body in BODY_VALUES},
    **{
        f"{side.label} foramen {level.label}": Target(Condition.NEURAL_FORAMINAL_NARROWING, side, level)
        for level in LEVELS
        for side in Side
    },
}
"""What a row may name: discs, the canal at a disc, vertebral bodies, neural foramina."""

_CHOICES = (
    f"Choose a disc ({DISCS[0].label} to {DISCS[-1].label}), `canal` and a disc, a body ({', '.join(BODY_VALUES)}), or "
    f"`left foramen` or `right foramen` and one of {LEVELS[0].label} to {LEVELS[-1].label}."
)
_MM, _VOXELS = ("r", "a", "s"), ("i", "j", "k")
_SUFFIXES = (".nii.gz", ".nii")
_BODIES = "_bodies"


@dataclass(frozen=True)
class MarkedImage:
    """An image that the table names.

    Attributes:
        path: Its file.
        case: Its path below the folder, without the suffix.
        patient: Whose it is; `case` where the table does not say.
        rows: Zero-based rows of the table.
    """

    path: Path
    case: str
    patient: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class PointsTable:
    """A table of points that fits a folder.

    Attributes:
        table: As it was written.
        structures: Of each row, one of `STRUCTURES`.
        places: (rows, 3), RAS+ mm or voxels.
        in_voxels: Whether `places` are voxels.
        images: Sorted by path.
    """

    table: SourceTable
    structures: Sequence[str]
    places: npt.NDArray[np.float64]
    in_voxels: bool
    images: tuple[MarkedImage, ...]

    @classmethod
    def read(cls, path: Path, folder: Path) -> PointsTable:
        """Read a table and find its images.

        Raises:
            TableError: It is missing, has no row or not one kind of columns; or a row names no structure, no image of the folder
                or no number, a point twice, or another patient than an earlier row of its image; or an image has no disc.
            UnreadableInputError: A folder cannot be listed.
        """
        table = SourceTable.read(path, columns=("image", "structure"))
        columns = _columns(table)
        if table.cells.empty:
            raise TableError(f"{path} has a header and no row, so that no image has a point. Write a row for each point.")
        structures = table.cells["structure"].tolist()
        table.refuse(
            [structure not in STRUCTURES for structure in structures],
            lambda row: f"structure is {structures[row]!r}, which the localiser does not know",
            remedy=_CHOICES,
        )
        places = np.stack([table.numbers(column) for column in columns], axis=1)
        images = _marked_images(table, _files_of(table, folder), folder)
        return cls(table, structures, places, columns == _VOXELS, images)

    def points_on(self, image: MarkedImage, volume: Volume) -> dict[str, Point]:
        """The points of an image by structure, RAS+ mm.

        Args:
            image: One of `images`.
            volume: The same, read.

        Raises:
            TableError: A point lies outside of the volume, whose voxels end half an edge from their centres.
        """
        rows = list(image.rows)
        places = apply_affine(volume.affine, self.places[rows]) if self.in_voxels else self.places[rows]
        outside = np.zeros(len(self.places), bool)
        outside[rows] = ~lies_inside(places, volume.affine, volume.array.shape)
        size, kind = " × ".join(map(str, volume.array.shape)), "voxel" if self.in_voxels else "RAS mm"
        hint = (
            "voxels are counted from 0, along the axes as stored" if self.in_voxels else "if it was written as LPS, turn r and a"
        )
        self.table.refuse(
            outside,
            lambda row: (
                f"{self.structures[row]} at {kind} {self.places[row].tolist()} lies outside of {image.path} ({size} voxels)"
            ),
            remedy=f"Correct it: {hint}.",
        )
        return {self.structures[row]: (float(r), float(a), float(s)) for row, (r, a, s) in zip(rows, places, strict=True)}


def label_map_of(image: Path) -> Path | None:
    """`NAME_bodies.nii.gz` (or .nii) beside `NAME.nii.gz`, if it is there."""
    beside = [image.with_name(f"{_stem(image)}{_BODIES}{suffix}") for suffix in _SUFFIXES]
    return next((path for path in beside if path.exists()), None)


def _columns(table: SourceTable) -> tuple[str, str, str]:
    """The three that hold the points."""
    there = [columns for columns in (_MM, _VOXELS) if set(columns) & set(table.cells.columns)]
    if len(there) != 1:
        kinds = "both kinds of columns, which may contradict each other:" if there else "neither of the columns"
        raise TableError(f"{table.name} has {kinds} r, a, s (RAS+ mm) and i, j, k (voxels). Give one of the two kinds.")
    table.require(there[0])
    return there[0]


def _files_of(table: SourceTable, folder: Path) -> list[Path]:
    """The file of each row, by its path below the folder, or by its name where only one file bears it."""
    by_path: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in (file for _, files in walk(folder) for file in files or () if _is_image(file)):
        by_path[file.relative_to(folder).as_posix()] = file
        by_name[file.name].append(file)
    cells = [Path(cell).as_posix() for cell in table.cells["image"]]
    found = [[by_path[cell]] if cell in by_path else by_name.get(cell, []) for cell in cells]
    table.refuse(
        [not files for files in found],
        lambda row: f"there is no image {cells[row]!r} in {folder}",
        remedy="Give the path of a .nii or .nii.gz file below that folder, or its name with the suffix.",
    )
    table.refuse(
        [len(files) > 1 for files in found],
        lambda row: f"{len(found[row])} images are called {cells[row]!r}",
        remedy=f"Give their paths below {folder}.",
    )
    return [files[0] for files in found]


def _is_image(file: Path) -> bool:
    return file.name.endswith(_SUFFIXES) and not _stem(file).endswith(_BODIES)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _marked_images(table: SourceTable, files: Sequence[Path], folder: Path) -> tuple[MarkedImage, ...]:
    structures = table.cells["structure"].tolist()
    table.refuse(
        pd.Series(list(zip(files, structures, strict=True))).duplicated(),
        lambda row: f"a second point for {structures[row]} of {files[row]}",
        remedy="Keep one.",
    )
    cases = [(file.parent / _stem(file)).relative_to(folder).as_posix() for file in files]
    file_of: dict[str, Path] = {}
    table.refuse(
        [file_of.setdefault(case, file) != file for case, file in zip(cases, files, strict=True)],
        lambda row: f"{files[row]} differs from {file_of[cases[row]].name} in its suffix only",
        remedy="Keep one of the two images.",
    )
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        rows_of[case].append(row)
    discs = {level.label for level in DISCS}
    without = sorted(case for case, rows in rows_of.items() if not any(structures[row] in discs for row in rows))
    if without:
        raise TableError(
            f"{table.name} names no disc of {without[0]} ({len(without)} such images): all is learnt at the discs. "
            "Add their discs, or remove their rows."
        )
    patient_of = _patients(table, cases)
    return tuple(MarkedImage(file_of[case], case, patient_of[case], tuple(rows)) for case, rows in sorted(rows_of.items()))


def _patients(table: SourceTable, cases: Sequence[str]) -> dict[str, str]:
    """Patient of each case."""
    patients = table.cells["patient"].tolist() if "patient" in table.cells.columns else list(cases)
    table.refuse(
        [not patient for patient in patients], lambda row: "patient is empty", remedy="Say in every row whose image it is."
    )
    patient_of: dict[str, str] = {}
    table.refuse(
        [patient_of.setdefault(case, patient) != patient for case, patient in zip(cases, patients, strict=True)],
        lambda row: f"patient of {cases[row]} is {patients[row]!r}, but {patient_of[cases[row]]!r} in an earlier row",
        remedy="An image shows one patient: correct the rows.",
    )
    return patient_of
