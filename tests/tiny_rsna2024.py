"""A small data set in the competition's layout, and the edits that give it the oddities of the real one."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pydicom

from monai_spine.phantom.export import write_phantom_studies
from monai_spine.studies.rsna2024_tables import POINTS_FILE, SERIES_FILE, TRAIN_FILE

__all__ = ["Row", "edit_header", "edit_points", "edit_series", "edit_train", "folder_of", "series_of", "write_data"]

Row = dict[str, str]


def write_data(folder: Path, *, studies: int = 3) -> Path:
    """Simulated studies with pictures of 64 pixels, named by InstanceNumber. Returns `folder`."""
    write_phantom_studies(folder, studies=studies, seed=0, max_matrix=64)
    return folder


def edit_train(data: Path, edit: Callable[[Row], Row | None]) -> None:
    """Change each row of train.csv, or remove it."""
    _edit(data / TRAIN_FILE, edit)


def edit_points(data: Path, edit: Callable[[Row], Row | None]) -> None:
    """Change each row of train_label_coordinates.csv, or remove it."""
    _edit(data / POINTS_FILE, edit)


def edit_series(data: Path, edit: Callable[[Row], Row | None]) -> None:
    """Change each row of train_series_descriptions.csv, or remove it."""
    _edit(data / SERIES_FILE, edit)


def edit_header(path: Path, **values: object) -> None:
    """Set elements of a DICOM file; None removes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def _edit(path: Path, edit: Callable[[Row], Row | None]) -> None:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), [edit(dict(row)) for row in reader]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row is not None)


def series_of(data: Path, study: str, description: str) -> str:
    """The first series of a kind."""
    with (data / SERIES_FILE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["study_id"], row["series_description"]) == (study, description)]
    return rows[0]["series_id"]


def folder_of(data: Path, study: str, description: str) -> Path:
    """The folder of the first series of a kind."""
    return data / "train_images" / study / series_of(data, study, description)
