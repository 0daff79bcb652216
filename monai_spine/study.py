"""Read the headers of a study: a folder, a zip, a NIfTI file or a picture. `inputs.py` finds the studies of a batch.

Pixels are not read here; `volume.py` reads those of the series that are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydicom.config import disable_value_validation

from monai_spine.archive import unpacked
from monai_spine.dicom_headers import BrokenImageError, NotAnImageError, read_instance
from monai_spine.errors import StudyError, UnreadableInputError
from monai_spine.files import format_of, walk
from monai_spine.instances import Instance, Tags

__all__ = ["Series", "SetAside", "Study", "open_study", "summary"]

Kind = Literal["dicom", "nifti", "picture"]


@dataclass(frozen=True)
class Series:
    """What one scan left: its instances, and the tags of the first of them."""

    series_instance_uid: str
    number: int | None
    description: str
    instances: tuple[Instance, ...]
    tags: Tags

    @property
    def title(self) -> str:
        """The series in words: `series 3 'AX T2'`."""
        number = "series" if self.number is None else f"series {self.number}"
        return f"{number} {self.description!r}" if self.description else f"{number} without description"


@dataclass(frozen=True)
class SetAside:
    """A file that takes no part, relative to the source, and why. A broken one may have been a slice that is now missing."""

    path: str
    reason: str
    is_broken: bool = False


@dataclass(frozen=True)
class Study:
    """One examination of one patient.

    Attributes:
        study_instance_uid: None where the source is no DICOM.
        source: The input as it was given.
        kind: `dicom`, `nifti` or `picture`. The last two hold one series, named by its file, with one instance.
        series: By series number, then UID.
        patient_id: PatientID, or None.
        set_aside: Files that were left out.
        unpacked_to: Where the files of an archive lie for now, or None.
    """

    study_instance_uid: str | None
    source: str
    kind: Kind
    series: tuple[Series, ...]
    patient_id: str | None = None
    set_aside: tuple[SetAside, ...] = ()
    unpacked_to: Path | None = None

    def shown(self, text: str) -> str:
        """A message about the study's files, which names an archive instead of the folder that it was unpacked to."""
        return text if self.unpacked_to is None else text.replace(str(self.unpacked_to), self.source)


@contextmanager
def open_study(path: str | Path, *, modalities: Iterable[str] = ("MR",)) -> Iterator[Study]:
    """Read the headers of one study. Its files are sure to be there as long as the context lasts.

    Args:
        path: A folder (nested as it comes), a zip file, one DICOM or NIfTI file, or one PNG or JPEG picture.
        modalities: Which DICOM images take part. Images that state no modality do, too.

    Raises:
        UnreadableInputError: The path does not exist, holds no usable image, or has another format.
        UnsafeArchiveError: See `archive.unpacked`.
        StudyError: The folder holds more than one study or patient.

    Example:
        >>> with open_study("examples/study") as study:  # doctest: +SKIP
        ...     print(len(study.series))
    """
    source, wanted = Path(path), frozenset(modalities)
    if format_of(source) == "zip":
        with unpacked(source) as folder, _said_of(str(path), folder):
            yield replace(_read_folder(folder, source=str(path), wanted=wanted), unpacked_to=folder)
    elif source.is_dir():
        yield _read_folder(source, source=str(path), wanted=wanted)
    else:
        yield _read_file(source, source=str(path), wanted=wanted)


@contextmanager
def _said_of(archive: str, folder: Path) -> Iterator[None]:
    """Name the archive in messages, not the folder that it was unpacked to."""
    try:
        yield
    except StudyError as error:
        raise type(error)(str(error).replace(str(folder), archive)) from error


def _read_file(path: Path, *, source: str, wanted: frozenset[str]) -> Study:
    form = format_of(path)
    if form == "dicom":
        return _read_dicom([path], root=path.parent, source=source, wanted=wanted)
    if form not in ("nifti", "picture"):
        raise UnreadableInputError(
            f"Wrong format: {path} is no DICOM, zip, NIfTI (.nii, .nii.gz), PNG or JPEG file. "
            "Convert it, or give the folder of the study."
        )
    tags = Tags(description=path.name)
    instance = Instance(path=path, sop_instance_uid="", series_instance_uid=path.name, tags=tags)
    series = Series(path.name, None, path.name, (instance,), tags)
    return Study(None, source, "nifti" if form == "nifti" else "picture", (series,))


def _read_folder(folder: Path, *, source: str, wanted: frozenset[str]) -> Study:
    files = [file for _, found in walk(folder) for file in found or ()]
    if not files:
        raise UnreadableInputError(f"{source} is empty: there is nothing to read. Give the folder that holds the images.")
    formats = {file: format_of(file) for file in files}
    others = next(filter(None, ([file for file in files if formats[file] == kind] for kind in ("nifti", "picture"))), [])
    archive = next((file for file in files if formats[file] == "zip"), None)
    if archive is not None and "dicom" not in formats.values() and not others:
        raise UnreadableInputError(f"{source} holds no image but a zip, {archive.name}. Unpack it, or give it by itself.")
    if "dicom" in formats.values() or not others:
        return _read_dicom(files, root=folder, source=source, wanted=wanted)
    if len(others) > 1:
        kind = "NIfTI files" if formats[others[0]] == "nifti" else "pictures"
        raise StudyError(f"{source} holds {len(others)} {kind}, each a study of its own. Give them one by one.")
    return _read_file(others[0], source=source, wanted=wanted)


def _read_dicom(files: list[Path], *, root: Path, source: str, wanted: frozenset[str]) -> Study:
    instances: dict[str, Instance] = {}
    set_aside: list[SetAside] = []
    with disable_value_validation():
        for file in files:
            try:
                reason, is_broken = _take(file, instances, wanted), False
            except NotAnImageError as error:
                reason, is_broken = str(error), isinstance(error, BrokenImageError)
            if reason:
                set_aside.append(SetAside(str(file.relative_to(root)), reason, is_broken))
    if not instances:
        kinds = " or ".join(sorted(wanted))
        raise UnreadableInputError(f"{source} holds no {kinds} image: {summary(set_aside)}. Check the export.")
    _check_single(instances.values(), source)
    first = next(iter(instances.values()))
    patient_id = next((instance.patient_id for instance in instances.values() if instance.patient_id), None)
    return Study(first.study_instance_uid or None, source, "dicom", _group(instances.values()), patient_id, tuple(set_aside))


def _take(file: Path, instances: dict[str, Instance], wanted: frozenset[str]) -> str | None:
    """Add a file's instance to the others, or say why not."""
    instance = read_instance(file)
    modality = instance.tags.modality
    if modality and modality not in wanted:
        return f"modality {modality}, not {' or '.join(sorted(wanted))}"
    known = instances.get(instance.sop_instance_uid)
    if known is not None:
        said = f"the same instance (SOPInstanceUID) as {known.path.parent.name}/{known.path.name}"
        if known.series_instance_uid != instance.series_instance_uid:
            raise BrokenImageError(f"{said}, which belongs to another series")
        return said
    instances[instance.sop_instance_uid] = instance
    return None


def _check_single(instances: Iterable[Instance], source: str) -> None:
    patients = sorted({instance.patient_id for instance in instances if instance.patient_id})
    studies = sorted({instance.study_instance_uid for instance in instances})
    if len(patients) > 1:
        raise StudyError(
            f"{source} holds images of {len(patients)} patients (PatientID {', '.join(map(repr, patients[:5]))}): findings would "
            "be mixed between them. Give each patient a folder of their own."
        )
    if len(studies) > 1:
        raise StudyError(
            f"{source} holds {len(studies)} studies (StudyInstanceUID {', '.join(studies[:3])}…) in one folder. "
            "Give each study a folder of its own; the folder above them is then a batch."
        )


def _group(instances: Iterable[Instance]) -> tuple[Series, ...]:
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.series_instance_uid, []).append(instance)
    series = [
        Series(uid, group[0].tags.number, group[0].tags.description, tuple(group), group[0].tags) for uid, group in groups.items()
    ]
    return tuple(sorted(series, key=lambda one: (one.number is None, one.number or 0, one.series_instance_uid)))


def summary(set_aside: Sequence[SetAside]) -> str:
    """Why files were left out, in one line, the commonest reason first."""
    counts: dict[str, int] = {}
    for file in set_aside:
        counts[file.reason] = counts.get(file.reason, 0) + 1
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    more = f"; and {len(ranked) - 4} other reasons" if len(ranked) > 4 else ""
    return "; ".join(f"{count} {'file' if count == 1 else 'files'}: {reason}" for reason, count in ranked[:4]) + more
