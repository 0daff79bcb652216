"""Folders and files of an input: what lies below a folder, and which format a file has by its first bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from monai_spine.dicom_elements import is_dicom
from monai_spine.errors import UnreadableInputError

__all__ = ["Format", "format_of", "name_of", "walk"]

Format = Literal["folder", "dicom", "nifti", "picture", "zip", "other"]

_RESULTS = ({"run.json", "submission.csv"}, {".complete", "result.json"})
"""What the folder of a run holds, and that of one study in it: neither is ever an input."""


def walk(root: Path, *, strict: bool = True) -> Iterator[tuple[Path, list[Path] | None]]:
    """All folders below and their files, sorted. Links to folders are followed, each folder is visited once.

    Hidden entries, pipes and results of monai_spine are left out. A link that leads nowhere is a file that cannot be opened.

    Args:
        root: Where to begin.
        strict: A folder that cannot be listed is refused; otherwise it comes with None for its files.

    Raises:
        UnreadableInputError: A folder cannot be listed, or the first one holds results of monai_spine.
    """
    visited = {_identity(parent) for parent in root.resolve().parents}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            if _identity(folder) in visited:
                continue
            visited.add(_identity(folder))
            folders, files, held = _listed(folder)
        except OSError as error:
            if strict:
                raise UnreadableInputError(f"{folder} cannot be opened: {error.strerror}. Check its permissions.") from error
            yield folder, None
            continue
        if not any(names <= held for names in _RESULTS):
            waiting += reversed(folders)
            yield folder, files
        elif folder == root:
            raise UnreadableInputError(f"{root} holds results of monai_spine, no images. Give the folder of the study.")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _listed(folder: Path) -> tuple[list[Path], list[Path], set[str]]:
    """Folders and files that are not hidden, and the names of all."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    seen = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    folders = [folder / entry.name for entry in seen if _is_folder(entry)]
    files = [folder / entry.name for entry in seen if not _is_folder(entry) and (entry.is_symlink() or entry.is_file())]
    return folders, files, {entry.name for entry in entries}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def format_of(path: Path) -> Format:
    """Tell a file's format by its first bytes; a NIfTI's by its name.

    Raises:
        UnreadableInputError: It does not exist, cannot be opened, or is no file.
    """
    try:
        if path.is_dir():
            return "folder"
        if path.exists() and not path.is_file():
            raise UnreadableInputError(f"{path} is no file and no folder. Give the folder of the study.")
        if path.name.lower().endswith((".nii", ".nii.gz")) and path.exists():
            return "nifti"
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                return "zip"
            if start == b"\x89PNG\r\n\x1a\n" or start[:3] == b"\xff\xd8\xff":
                return "picture"
            return "dicom" if is_dicom(stream) else "other"
    except FileNotFoundError as error:
        what = "is a link to what does not exist" if path.is_symlink() else "does not exist"
        raise UnreadableInputError(f"{path} {what}. Check the path.") from error
    except OSError as error:
        raise UnreadableInputError(f"{path} cannot be opened: {error.strerror}. Check its permissions.") from error


def name_of(path: Path) -> str:
    """The last part of a path, also of `.` and `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name
