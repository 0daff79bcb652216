"""What a DICOM header says: where each slice lies, and what tells one series from another. No pixel is read here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from monai_spine.dicom_elements import Elements, first_line, read_elements, read_whole
from monai_spine.errors import UnreadableInputError, VolumeGeometryError
from monai_spine.instances import Frame, Instance, PixelLayout, Tags
from monai_spine.mosaic import mosaic_tiles

__all__ = ["BrokenImageError", "NotAnImageError", "read_instance", "read_uids"]

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
}
_NAMES = """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID Modality PatientID StudyInstanceUID SeriesInstanceUID
    SeriesNumber SeriesDescription ProtocolName InstanceNumber AcquisitionNumber TemporalPositionIdentifier StackID Rows
    Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PixelSpacing SliceThickness ImagePositionPatient
    ImageOrientationPatient EchoTime RepetitionTime InversionTime ScanningSequence SequenceVariant SequenceName
    PulseSequenceName ScanOptions ContrastBolusAgent RescaleSlope RescaleIntercept BitsAllocated BitsStored
    PixelRepresentation FrameOfReferenceUID
"""
_KEYWORDS = {int(Tag(name)): name for name in _NAMES.split()}
_SEQUENCES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_Header: TypeAlias = "Elements | Dataset"
MAX_FRAMES = 10_000


class NotAnImageError(UnreadableInputError):
    """A file of the folder that is no DICOM image; the message is the reason why it was set aside."""


class BrokenImageError(NotAnImageError):
    """A DICOM file that is cut off, damaged or not told from another, so that a slice may be missing."""


def read_uids(path: Path) -> tuple[str, str] | None:
    """The StudyInstanceUID and the SeriesInstanceUID of one file, empty where it has none; None where it is no DICOM image."""
    keywords = {0x0020000D: "StudyInstanceUID", 0x0020000E: "SeriesInstanceUID", 0x00280010: "Rows"}
    try:
        with disable_value_validation():
            elements = read_elements(path, keywords)
    except Exception:  # as in `read_instance`
        return None
    if elements is None or not elements.get("Rows"):
        return None
    return _text(elements, "StudyInstanceUID"), _text(elements, "SeriesInstanceUID")


def read_instance(path: Path) -> Instance:
    """Read the header of one DICOM image.

    Raises:
        NotAnImageError: The file is no DICOM, or holds something else than an image.
        BrokenImageError: It is cut off or damaged.
    """
    try:
        return _instance(path, _read_header(path))
    except (MemoryError, NotAnImageError):
        raise
    except Exception as error:  # pydicom raises errors of many kinds for one cause
        raise BrokenImageError(f"its header cannot be read ({type(error).__name__}: {first_line(error)})") from error


def _instance(path: Path, header: Elements) -> Instance:
    sop_instance_uid = _text(header, "SOPInstanceUID")
    if not (sop_instance_uid and _text(header, "SeriesInstanceUID")):
        raise BrokenImageError("its header names no series or no instance: it cannot be told from others")
    shared = Instance(
        path=path,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=_text(header, "SeriesInstanceUID"),
        study_instance_uid=_text(header, "StudyInstanceUID"),
        patient_id=_text(header, "PatientID"),
        tags=_tags(header),
        pixels=_pixel_layout(header),
    )
    frames, tiles = _frames(path, header), 1
    if "MOSAIC" in shared.tags.image_type and len(frames) == 1:
        frames, tiles = _unpacked(frames[0])
    return replace(shared, frames=frames, tiles=tiles)


def _read_header(path: Path) -> Elements:
    header = read_elements(path, _KEYWORDS, sequences=_SEQUENCES)
    if header is None:
        raise NotAnImageError("not DICOM: it lacks the mark of the format")
    if header.media_class == _MEDIA_STORAGE_DIRECTORY:
        raise NotAnImageError("a DICOMDIR: an index of files, no image; the folder that it lies in is the input")
    if not (header.get("Rows") and header.get("Columns")):
        is_image = (_text(header, "SOPClassUID") or header.media_class) in _MODALITY_OF_CLASS
        raise (BrokenImageError if is_image else NotAnImageError)(
            f"no image ({_text(header, 'Modality') or 'modality unknown'}): its header gives no rows and columns"
        )
    if not header.has_pixels:
        raise BrokenImageError("its file ends before the pixels: it is cut off, or holds none")
    return header


def _pixel_layout(header: Elements) -> PixelLayout:
    """How the pixels are stored; the offset only where they are plain numbers of 8 or 16 bits, as many as the header says."""
    bits, frames = int(header.get("BitsAllocated") or 0), _integer(header, "NumberOfFrames") or 1
    needed = int(header.get("Rows")) * int(header.get("Columns")) * frames * bits // 8
    fits = needed <= header.pixel_bytes <= needed + 1
    is_plain = bits in (8, 16) and header.get("SamplesPerPixel") == 1 and fits
    signed = bool(header.get("PixelRepresentation"))
    stored = int(header.get("BitsStored") or bits)
    return PixelLayout(header.pixel_offset if is_plain else None, bits, stored, signed, header.transfer_syntax)


def _tags(header: Elements) -> Tags:
    groups = _functional_groups(header, 0)
    echo = _number(_item(groups, "MREchoSequence"), "EffectiveEchoTime")
    repetition = _number(_item(groups, "MRTimingAndRelatedParametersSequence"), "RepetitionTime")
    inversion = _numbers(_item(groups, "MRModifierSequence"), "InversionTimes")
    return Tags(
        modality=_text(header, "Modality") or _MODALITY_OF_CLASS.get(_text(header, "SOPClassUID") or header.media_class, ""),
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
        frame_of_reference_uid=_text(header, "FrameOfReferenceUID"),
    )


def _frames(path: Path, header: Elements) -> tuple[Frame, ...]:
    """One frame of a classic instance, or all of an enhanced one (PS3.3 C.7.6.16)."""
    count = _integer(header, "NumberOfFrames") or 1
    if not 0 < count <= MAX_FRAMES:
        raise BrokenImageError(f"its header names {count} frames; 1 to {MAX_FRAMES} are possible")
    if count > 1 and not header.sequences.get("PerFrameFunctionalGroupsSequence"):
        return tuple(replace(_frame(path, header, index, ()), position_lps_mm=None) for index in range(count))
    return tuple(_frame(path, header, index, _functional_groups(header, index)) for index in range(count))


def _functional_groups(header: Elements, index: int) -> tuple[Dataset, ...]:
    """Where a frame's attributes may stand: its own groups first, then the shared ones."""
    shared, own = (header.sequences.get(keyword, []) for keyword in _SEQUENCES)
    return (*([own[index]] if index < len(own) else []), *shared[:1])


def _frame(path: Path, header: Elements, index: int, groups: Sequence[Dataset]) -> Frame:
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
        rows=int(header.get("Rows")),
        columns=int(header.get("Columns")),
        position_lps_mm=_exactly(position, 3),
        orientation=_exactly(cosines, 6),
        pixel_spacing_mm=_exactly(spacing, 2) if min(spacing, default=0.0) > 0 else None,
        slice_thickness_mm=_first(_number(measures, "SliceThickness"), _number(header, "SliceThickness")),
        rescale=(float(slope or 1.0), float(intercept or 0.0)),
        echo_time_ms=_first(_number(_item(groups, "MREchoSequence"), "EffectiveEchoTime"), _number(header, "EchoTime")),
        acquisition=f"{acquisition:g} {_text(content, 'StackID') or _text(header, 'StackID')}".strip(),
        order=(float(temporal or 0), float(acquisition or 0), float(_integer(header, "InstanceNumber") or 0), float(index)),
    )


def _unpacked(frame: Frame) -> tuple[tuple[Frame, ...], int]:
    """The slices of a Siemens mosaic, each where the private header says; unplaced where that contradicts itself."""
    private = read_whole(frame.path, stop_before_pixels=True, specific_tags=[(0x0029, 0x1020)])
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


def _text(header: _Header, keyword: str) -> str:
    return " ".join(_words(header, keyword))


def _words(header: _Header, keyword: str) -> tuple[str, ...]:
    value: Any = header.get(keyword)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split("\\"))
    return tuple(str(word).strip() for word in (value if hasattr(value, "__iter__") else [value]))


def _numbers(header: _Header, keyword: str) -> tuple[float, ...]:
    """The values of an element; none where one of them is no finite number."""
    try:
        numbers = tuple(float(word) for word in _words(header, keyword))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _number(header: _Header, keyword: str) -> float | None:
    return next(iter(_numbers(header, keyword)), None)


def _integer(header: _Header, keyword: str) -> int | None:
    number = _number(header, keyword)
    return None if number is None else int(number)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _exactly(values: tuple[float, ...], count: int) -> Any:
    return values if len(values) == count else None
