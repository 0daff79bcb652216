"""The DICOM images that a SEG or SR refers to, and who made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from monai_spine import __version__
from monai_spine.errors import OutputError

__all__ = ["MANUFACTURER", "CannotReferError", "SourceSeries", "equipment", "highdicom_modules", "read_headers"]

MANUFACTURER = "monai_spine"

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_EMPTY_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
                 "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


class CannotReferError(OutputError):
    """DICOM was asked for, and the study's images cannot be referred to."""

    exit_code = 2


@dataclass(frozen=True)
class SourceSeries:
    """Headers of one series, in the order in which the files were given, all in one frame of reference."""

    series_instance_uid: str
    frame_of_reference_uid: str
    headers: tuple[Dataset, ...]


def read_headers(files: Mapping[str, Path]) -> dict[str, SourceSeries]:
    """Read the headers of image files, without their pixels, by SeriesInstanceUID.

    Patient and study attributes that DICOM allows to be empty (type 2, PS3.5 7.4.3) are added empty where the source lacks
    them; nothing else is.

    Raises:
        CannotReferError: A header lacks what a reference needs, or a series has several frames of reference.
    """
    found: dict[str, list[Dataset]] = {}
    for path in dict.fromkeys(files.values()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        missing = [name for name in _NEEDED if not header.get(name)]
        if missing:
            raise CannotReferError(f"{path.name} cannot be referred to: it lacks {', '.join(missing)}. Leave out seg and sr.")
        for name in _EMPTY_TYPE_2:
            if name not in header:
                setattr(header, name, None)
        found.setdefault(str(header.SeriesInstanceUID), []).append(header)
    return {uid: _one_frame(uid, headers) for uid, headers in found.items()}


def _one_frame(uid: str, headers: Iterable[Dataset]) -> SourceSeries:
    headers = tuple(headers)
    frames = {str(header.FrameOfReferenceUID) for header in headers}
    if len(frames) > 1:
        raise CannotReferError(
            f"Series {uid} has {len(frames)} frames of reference, so a point has no one place in it. Leave out seg and sr."
        )
    return SourceSeries(uid, frames.pop(), headers)


def equipment() -> dict[str, Any]:
    """The manufacturer's part of what highdicom wants to know."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": __version__,
    }


def highdicom_modules() -> Any:
    """Import highdicom, which is optional.

    Raises:
        OutputError: It is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise OutputError(
            "SEG and SR need highdicom, which is not installed. Run: pip install 'monai_spine[dicom]'; or leave out seg and sr."
        ) from error
    return highdicom
