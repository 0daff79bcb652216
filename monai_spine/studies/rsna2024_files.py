"""The DICOM files of one RSNA 2024 study, held against its tables: what is named has to be there, and a point on its picture."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from monai_spine.dicom_headers import NotAnImageError, read_instance
from monai_spine.errors import TableError, UnreadableInputError
from monai_spine.instances import Instance
from monai_spine.studies.rsna2024_tables import POINTS_FILE, SERIES_FILE, TRAIN_FILE, StudyRows

__all__ = ["IMAGES_FOLDER", "files_digest", "read_headers", "refuse_points_outside", "unlisted_studies"]

IMAGES_FOLDER = "train_images"
_NAME = re.compile(r"(0|[1-9]\d*)\.dcm", re.ASCII)


def unlisted_studies(data: Path, studies: Sequence[StudyRows], *, known: Collection[str] = ()) -> dict[str, str]:
    """Folders of studies that the tables do not name, each with a message.

    Args:
        data: The competition's folder.
        studies: Those of the tables.
        known: Names of others that may be there.

    Raises:
        TableError: There is no folder of images.
    """
    images = data / IMAGES_FOLDER
    if not images.is_dir():
        raise TableError(f"{images} is not there. DATA is the folder that holds {TRAIN_FILE} and {IMAGES_FOLDER}.")
    named = {*known, *(str(study.study_id) for study in studies)}
    there = sorted(_folders_in(images))
    remedy = "Add its labels there, or move the folder away."
    return {name: f"{images / name} is no study of {data / TRAIN_FILE}. {remedy}" for name in there if name not in named}


def files_digest(data: Path, study_id: int) -> str:
    """What tells whether the files of a study were touched: a hash of their names, sizes and times. None of them is opened."""
    found = []
    for series in sorted((data / IMAGES_FOLDER / str(study_id)).glob("[!.]*/")):
        with os.scandir(series) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".dcm") and entry.is_file()]
        found += [f"{series.name}/{name} {status.st_size} {status.st_mtime_ns}" for name, status in sorted(files)]
    return sha256("\n".join(found).encode()).hexdigest()


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UnreadableInputError(f"{folder} cannot be opened ({error.strerror}). Check its permissions.") from error


def _folders_in(folder: Path) -> set[str]:
    """Names of the folders that are not hidden."""
    return {path.name for path in _listed(folder) if path.is_dir() and not path.name.startswith(".")}


def read_headers(data: Path, study: StudyRows) -> dict[int, tuple[Instance, ...]]:
    """The instances of each series that the table names, in the order of their numbers; each is one slice.

    Raises:
        TableError: A series of the table is not on disk, or the reverse.
        UnreadableInputError: A file cannot be read, is not named by a number, or has the SOPInstanceUID of another.
    """
    folder = data / IMAGES_FOLDER / str(study.study_id)
    table = data / SERIES_FILE
    if not folder.is_dir():
        raise TableError(f"{folder} is not there, though {table} names study {study.study_id}. Restore it, or remove its rows.")
    there = _folders_in(folder)
    missing = sorted({str(number) for number in study.series} - there)
    if missing:
        raise TableError(f"{folder / missing[0]} is not there, though {table} names it. Restore the series, or remove its row.")
    unknown = sorted(there - {str(number) for number in study.series})
    if unknown:
        raise TableError(f"{folder / unknown[0]} is no series of {table}. Add its row there, or move the folder away.")
    instances = {number: _read_series(folder / str(number)) for number in study.series}
    _refuse_twins(one for members in instances.values() for one in members)
    return instances


def _refuse_twins(instances: Iterable[Instance]) -> None:
    """Refuse two files under one SOPInstanceUID, which is what leads from a voxel back to its file."""
    first: dict[str, Path] = {}
    for one in instances:
        other = first.setdefault(one.sop_instance_uid, one.path)
        if other != one.path:
            raise UnreadableInputError(
                f"{one.path} has the SOPInstanceUID of {other}: their slices cannot be told apart. Restore both from the data "
                "set, or move the one that does not belong there away."
            )


def _read_series(folder: Path) -> tuple[Instance, ...]:
    files = [path for path in _listed(folder) if path.suffix.lower() == ".dcm" and not path.name.startswith(".")]
    odd = next((path for path in files if not _NAME.fullmatch(path.name)), None)
    if odd is not None:
        raise UnreadableInputError(f"{odd} is not named as <instance number>.dcm. Rename it, or move it away.")
    if not files:
        raise UnreadableInputError(f"{folder} holds no .dcm file. Restore the series from the data set.")
    return tuple(_read_file(path) for path in sorted(files, key=lambda path: int(path.stem)))


def _read_file(path: Path) -> Instance:
    try:
        if not path.is_file():  # a pipe would be waited for
            what = "leads nowhere" if path.is_symlink() else "is no file"
            raise UnreadableInputError(f"{path} {what}. Restore the file from the data set.")
        instance = read_instance(path)
    except NotAnImageError as error:
        if isinstance(error.__cause__, PermissionError):
            raise UnreadableInputError(f"{path} cannot be opened (Permission denied). Check its permissions.") from error
        raise UnreadableInputError(f"{path} cannot be read: {error}. Restore the file from the data set.") from error
    except OSError as error:
        raise UnreadableInputError(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error
    if len(instance.frames) != 1:
        raise UnreadableInputError(f"{path} holds {len(instance.frames)} slices, not one. Restore the file from the data set.")
    return instance


def refuse_points_outside(data: Path, study: StudyRows, sizes: Mapping[tuple[int, int], tuple[int, int]]) -> None:
    """Refuse a point whose instance is not there, or shows no such pixel.

    Args:
        data: The competition's folder.
        study: Whose points.
        sizes: Series and instance number to rows and columns.

    Raises:
        TableError: The message names the row of the table and the file.
    """
    for point in study.points:
        where = f"{data / POINTS_FILE}, line {point.line}"
        file = data / IMAGES_FOLDER / str(study.study_id) / str(point.series_id) / f"{point.instance_number}.dcm"
        found = sizes.get((point.series_id, point.instance_number))
        if found is None:
            raise TableError(f"{where}: {file} is not there. Restore the file, or correct instance_number.")
        rows, columns = found
        if not (-0.5 <= point.x <= columns - 0.5 and -0.5 <= point.y <= rows - 0.5):
            raise TableError(
                f"{where}: x {point.x:g}, y {point.y:g} lies outside of {file}, which has {columns} × {rows} pixels. "
                "Correct the row, or remove it."
            )
