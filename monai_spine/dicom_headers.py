"""What a DICOM header says: where each slice lies, and what tells one series from another. No pixel is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from monai_spine.errors import UnreadableInputError, VolumeGeometryError
from monai_spine.instances import Frame, Instance, Tags
from monai_spine.mosaic import mosaic_tiles

__all__ = ["NotAnImageError", "is_dicom", "read_instance", "read_study_uid"]

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
}
_KEYWORDS = [
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "StackID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PulseSequenceName",
    "ScanOptions",
    "ContrastBolusAgent",
    "RescaleSlope",
    "RescaleIntercept",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_READ_FAILURES = (InvalidDicomError, AttributeError, EOFError, KeyError, OSError, TypeError, ValueError, NotImplementedError)


class NotAnImageError(UnreadableInputError):
    """A file of the folder that is no DICOM image; the message is the reason why it was set aside."""


def is_dicom(stream: BinaryIO) -> bool:
    """True where a file starts as DICOM does: `DICM` after 128 bytes, or at once with a tag of group 0002 or 0008."""
    start = stream.read(132)
    stream.seek(0)
    return start[128:] == b"DICM" or (start[:2] in (b"\x02\x00", b"\x08\x00") and len(start) == 132)


def read_study_uid(path: Path) -> str | None:
    """The StudyInstanceUID of one file, or None where it is no DICOM image."""
    try:
        with path.open("rb") as stream:
            if not is_dicom(stream):
                return None
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "Rows"], force=True)
            return str(header.get("StudyInstanceUID", "")) if "Rows" in header else None
    except _READ_FAILURES:
        return None


def read_instance(path: Path) -> Instance:
    """Read the header of one DICOM image.

    Raises:
        NotAnImageError: The file is no DICOM, is broken, or holds something else than an image.
    """
    header = _read_header(path)
    sop_instance_uid = _text(header, "SOPInstanceUID")
    if not (sop_instance_uid and _text(header, "SeriesInstanceUID")):
        raise NotAnImageError("its header names no series or no instance: it cannot be told from others")
    shared = Instance(
        path=path,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=_text(header, "SeriesInstanceUID"),
        study_instance_uid=_text(header, "StudyInstanceUID"),
        patient_id=_text(header, "PatientID"),
        tags=_tags(header),
    )
    frames, tiles = _frames(path, header), 1
    if "MOSAIC" in shared.tags.image_type and len(frames) == 1:
        frames, tiles = _unpacked(frames[0])
    return replace(shared, frames=frames, tiles=tiles)


def _read_header(path: Path) -> Dataset:
    try:
        with path.open("rb") as stream:
            if not is_dicom(stream):
                raise NotAnImageError("not DICOM: it lacks the mark of the format")
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_KEYWORDS, force=True)
    except _READ_FAILURES as error:
        raise NotAnImageError(f"its header cannot be read ({type(error).__name__}: {error})") from error
    media_class = str(header.file_meta.get("MediaStorageSOPClassUID", "")) if hasattr(header, "file_meta") else ""
    if media_class == _MEDIA_STORAGE_DIRECTORY:
        raise NotAnImageError("a DICOMDIR: an index of files, no image")
    if not (header.get("Rows") and header.get("Columns")):
        raise NotAnImageError(
            f"no image ({_text(header, 'Modality') or 'modality unknown'}): the header gives no rows and columns"
        )
    if not header.get("Modality"):
        header.Modality = _MODALITY_OF_CLASS.get(_text(header, "SOPClassUID") or media_class, "")
    return header


def _tags(header: Dataset) -> Tags:
    groups = _functional_groups(header, 0)
    echo = _number(_item(groups, "MREchoSequence"), "EffectiveEchoTime")
    repetition = _number(_item(groups, "MRTimingAndRelatedParametersSequence"), "RepetitionTime")
    inversion = _numbers(_item(groups, "MRModifierSequence"), "InversionTimes")
    return Tags(
        modality=_text(header, "Modality"),
        number=_integer(header, "SeriesNumber"),
        description=_text(header, "SeriesDescription"),
        protocol=_text(header, "ProtocolName"),
        image_type=tuple(word.upper() for word in _words(header, "ImageType")),
        scanning_sequence=_words(header, "ScanningSequence"),
        scan_options=_words(header, "ScanOptions"),
        sequence_name=_text(header, "SequenceName") or _text(header, "PulseSequenceName"),
        echo_time_ms=_first(_number(header, "EchoTime"), echo),
        repetition_time_ms=_first(_number(header, "RepetitionTime"), repetition),
        inversion_time_ms=_first(_number(header, "InversionTime"), inversion[0] if inversion else None),
        contrast_agent=_text(header, "ContrastBolusAgent"),
        photometric_interpretation=_text(header, "PhotometricInterpretation"),
    )


def _frames(path: Path, header: Dataset) -> tuple[Frame, ...]:
    """One frame of a classic instance, or all of an enhanced one (PS3.3 C.7.6.16)."""
    count = _integer(header, "NumberOfFrames") or 1
    if count > 1 and "PerFrameFunctionalGroupsSequence" not in header:
        return tuple(replace(_frame(path, header, index, ()), position_lps_mm=None) for index in range(count))
    return tuple(_frame(path, header, index, _functional_groups(header, index)) for index in range(count))


def _functional_groups(header: Dataset, index: int) -> tuple[Dataset, ...]:
    """Where a frame's attributes may stand: its own groups first, then the shared ones."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence") or [], header.get("SharedFunctionalGroupsSequence") or []
    return (*([own[index]] if index < len(own) else []), *shared[:1])


def _frame(path: Path, header: Dataset, index: int, groups: Sequence[Dataset]) -> Frame:
    measures, content = _item(groups, "PixelMeasuresSequence"), _item(groups, "FrameContentSequence")
    values = _item(groups, "PixelValueTransformationSequence")
    spacing = _numbers(measures, "PixelSpacing") or _numbers(header, "PixelSpacing")
    position = _numbers(_item(groups, "PlanePositionSequence"), "ImagePositionPatient") or _numbers(
        header, "ImagePositionPatient"
    )
    cosines = _numbers(_item(groups, "PlaneOrientationSequence"), "ImageOrientationPatient") or _numbers(
        header, "ImageOrientationPatient"
    )
    slope = _first(_number(values, "RescaleSlope"), _number(header, "RescaleSlope"), 1.0)
    intercept = _first(_number(values, "RescaleIntercept"), _number(header, "RescaleIntercept"), 0.0)
    acquisition = _first(_number(content, "FrameAcquisitionNumber"), _number(header, "AcquisitionNumber"), 0.0)
    temporal = _first(_number(content, "TemporalPositionIndex"), _number(header, "TemporalPositionIdentifier"), 0.0)
    return Frame(
        path=path,
        sop_instance_uid=_text(header, "SOPInstanceUID"),
        index=index,
        rows=int(header.Rows),
        columns=int(header.Columns),
        position_lps_mm=_exactly(position, 3),
        orientation=_exactly(cosines, 6),
        pixel_spacing_mm=_exactly(spacing, 2),
        slice_thickness_mm=_first(_number(measures, "SliceThickness"), _number(header, "SliceThickness")),
        rescale=(float(slope or 1.0), float(intercept or 0.0)),
        echo_time_ms=_first(_number(_item(groups, "MREchoSequence"), "EffectiveEchoTime"), _number(header, "EchoTime")),
        acquisition=f"{acquisition:g} {_text(content, 'StackID') or _text(header, 'StackID')}".strip(),
        order=(float(temporal or 0), float(acquisition or 0), float(_integer(header, "InstanceNumber") or 0), float(index)),
    )


def _unpacked(frame: Frame) -> tuple[tuple[Frame, ...], int]:
    """The slices of a Siemens mosaic, each where the private header says; unplaced where that contradicts itself."""
    private = pydicom.dcmread(frame.path, stop_before_pixels=True, specific_tags=[(0x0029, 0x1020)], force=True)
    try:
        tiles = mosaic_tiles(
            bytes(private[0x0029, 0x1020].value) if (0x0029, 0x1020) in private else b"",
            shape=(frame.rows, frame.columns),
            position_lps_mm=frame.position_lps_mm,
            orientation=frame.orientation,
            pixel_spacing_mm=frame.pixel_spacing_mm,
        )
    except VolumeGeometryError:
        return (replace(frame, position_lps_mm=None),), 1
    model = replace(frame, rows=tiles.rows, columns=tiles.columns)
    places = enumerate(tiles.positions_lps_mm)
    return tuple(replace(model, index=index, position_lps_mm=place) for index, place in places), len(tiles.positions_lps_mm)


def _item(groups: Sequence[Dataset], keyword: str) -> Dataset:
    """The first item of a functional group, wherever it stands; an empty data set where it is absent."""
    for group in groups:
        if group.get(keyword):
            return group[keyword].value[0]
    return Dataset()


def _text(header: Dataset, keyword: str) -> str:
    return " ".join(_words(header, keyword))


def _words(header: Dataset, keyword: str) -> tuple[str, ...]:
    value: Any = header.get(keyword)
    if value is None or value == "":
        return ()
    several = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
    return tuple(str(word).strip() for word in (value if several else [value]))


def _numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(header, keyword))
    except ValueError:
        return ()


def _number(header: Dataset, keyword: str) -> float | None:
    return next(iter(_numbers(header, keyword)), None)


def _integer(header: Dataset, keyword: str) -> int | None:
    number = _number(header, keyword)
    return None if number is None else int(number)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _exactly(values: tuple[float, ...], count: int) -> Any:
    return values if len(values) == count else None
