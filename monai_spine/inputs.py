"""Which studies an input holds, and the folder or file that is each study's own, by one header per folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from monai_spine.dicom_headers import read_uids
from monai_spine.errors import UnreadableInputError
from monai_spine.files import Format, format_of, walk

__all__ = ["StudyInput", "find_studies"]

_Key: TypeAlias = "str | Path"
"""What tells studies apart: a StudyInstanceUID; the path of any other file, or of a folder that cannot be read."""

_ENDINGS: Mapping[Format, tuple[str, ...]] = {
    "nifti": (".nii", ".nii.gz"),
    "zip": (".zip",),
    "picture": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
}
"""Names of studies that are files: one that turns out to be unreadable is refused by name, not passed over."""


@dataclass(frozen=True)
class StudyInput:
    """One study of an input.

    Attributes:
        path: What to give to `open_study`: the input as it was given, where it holds nothing else.
        home: The folder or file that is this study's own and names it; deeper than `path` where that only leads to it.
        study_instance_uid: Where a header told it.
    """

    path: Path
    home: Path
    study_instance_uid: str | None = None


@dataclass(frozen=True)
class _Place:
    """A folder, its files, of which studies they are, the folders in it; the keys of all, and a series of each folder."""

    folder: Path
    files: tuple[Path, ...]
    own: frozenset[_Key]
    series: frozenset[str]
    below: tuple[_Place, ...]
    keys: frozenset[_Key]

    @property
    def holds_images(self) -> bool:
        return any(isinstance(key, str) for key in self.own)


def find_studies(path: str | Path) -> list[StudyInput]:
    """List the studies of an input.

    A folder whose subfolders hold different studies is a batch; so is one with several NIfTI files or zips. In a batch every
    subfolder counts, also one without an image, and every file whose name ends as that of a study, so that none is missed.
    Anything else is one study. Pictures count only where there is nothing else.

    Raises:
        UnreadableInputError: The path does not exist, or holds results of monai_spine.
    """
    root = Path(path)
    if format_of(root) != "folder":
        return [StudyInput(root, root)]
    contents = dict(walk(root, strict=False))
    uids = {folder: _sample(files) for folder, files in contents.items()}
    found = {folder: _keys(contents[folder], uids[folder], ("nifti", "zip")) for folder in contents}
    if not any(found.values()):
        found = {folder: _keys(contents[folder], None, ("picture",)) for folder in contents}
    keys = {folder: found[folder] or _unopened(folder, contents[folder]) for folder in contents}
    children = defaultdict(list)
    for folder in contents:
        if folder != root:
            children[folder.parent].append(folder)

    def place(folder: Path) -> _Place:
        below = tuple(map(place, children[folder]))
        sampled = frozenset((uids[folder] or ())[1:])
        return _Place(
            folder=folder,
            files=tuple(contents[folder] or ()),
            own=keys[folder],
            series=sampled.union(*(child.series for child in below)),
            below=below,
            keys=keys[folder].union(*(child.keys for child in below)),
        )

    return _split(place(root))


def _sample(files: list[Path] | None) -> tuple[str, str] | None:
    """Study and series of the first DICOM image."""
    return next((uids for uids in map(read_uids, files or ()) if uids is not None), None)


def _keys(files: list[Path] | None, uids: tuple[str, str] | None, loose: tuple[Format, ...]) -> frozenset[_Key]:
    """Of which studies a folder's own files are: of the one that a header names, or each of its own."""
    if uids is not None:
        return frozenset(uids[:1])
    endings = tuple(ending for form in loose for ending in _ENDINGS[form])
    return frozenset(file for file in files or () if file.name.lower().endswith(endings) or _format(file) in loose)


def _unopened(folder: Path, files: list[Path] | None) -> frozenset[_Key]:
    """A folder that cannot be read, or a file in it, counts by itself, so that it is not passed over."""
    return frozenset((folder,) if files is None or None in map(_format, files) else ())


def _format(file: Path) -> Format | None:
    try:
        return format_of(file)
    except UnreadableInputError:
        return None


def _split(place: _Place) -> list[StudyInput]:
    """Go down from a folder until each part holds one study, or cannot be parted."""
    loose = [key for key in place.own if isinstance(key, Path)]
    if len(place.keys) <= 1 or place.holds_images or any(_is_spread(key, place.below) for key in place.keys):
        return [_study(place)]
    return [part for child in place.below for part in _split(child)] + [StudyInput(file, file) for file in sorted(loose)]


def _is_spread(key: _Key, children: tuple[_Place, ...]) -> bool:
    """Whether one study lies in several folders. Copies of a study do not count: they are studies by themselves."""
    holders = [child for child in children if key in child.keys]
    are_copies = all(len(child.keys) == 1 and child.series & holders[0].series for child in holders)
    return len(holders) > 1 and not are_copies


def _study(place: _Place) -> StudyInput:
    if len(place.keys) != 1:
        return StudyInput(place.folder, place.folder)
    (key,) = place.keys
    if isinstance(key, str):
        return StudyInput(place.folder, _home(place), key or None)
    return StudyInput(place.folder, place.folder) if key.is_dir() else StudyInput(key, key)


def _home(place: _Place) -> Path:
    """The deepest folder that holds all of a study: not that of its only series, but the one above."""
    inner = place
    while not inner.holds_images:
        with_images = [child for child in inner.below if child.keys]
        if len(with_images) > 1:
            return inner.folder
        inner = with_images[0]
    return inner.folder if inner is place or _holds_several_series(inner) else inner.folder.parent


def _holds_several_series(place: _Place) -> bool:
    uids = (read_uids(file) for file in place.files)
    return len({series for _, series in filter(None, uids)}) > 1
