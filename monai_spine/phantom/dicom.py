"""Simulated series as DICOM files with the attributes that MR scanners write (PS3.3 A.4, MR Image IOD)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monai_spine.geometry import lps_from_ras
from monai_spine.phantom.scanner import SliceStack
from monai_spine.phantom.simulate import SimulatedPatient, SimulatedSeries

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = ["series_id_of", "write_series"]

_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def series_id_of(simulated: SimulatedPatient, position: int) -> int:
    """Number that names a series in folders and tables; beyond 32 bits signed, as some of the real ones."""
    return 3_000_000_000 + (simulated.study_id % 1_000_000) * 10 + position


def write_series(
    simulated: SimulatedPatient,
    series: SimulatedSeries,
    folder: Path,
    *,
    position: int,
    numbers: Sequence[int] | None = None,
    spacing_tags: Collection[str] = ("SliceThickness",),
) -> None:
    """Write one series, an instance per file, named by InstanceNumber.

    Args:
        simulated: The study.
        series: What was scanned.
        folder: Where the files go; made if absent.
        position: Place of the series in the study.
        numbers: InstanceNumber of each slice, stack by stack. Default: from 1 on.
        spacing_tags: Which of SliceThickness and SpacingBetweenSlices are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = iter(numbers if numbers is not None else count(1))
    for stack, pixels in zip(series.planned.stacks, series.pixels, strict=True):
        for index in range(len(pixels)):
            number = next(named)
            dataset = _study_level(simulated) | _series_level(simulated, series, position)
            dataset |= _image_level(stack, index, number) | _pixel_level(pixels[index])
            dataset |= {tag: value for tag, value in _spacing_level(stack).items() if tag in spacing_tags}
            _save(dataset, folder / f"{number}.dcm", f"{simulated.study_id}.{position}.{number}")


def _study_level(simulated: SimulatedPatient) -> dict[str, Any]:
    rng = np.random.default_rng(list(simulated.pixel_seed))
    return {
        "StudyInstanceUID": _uid(simulated.study_id),
        "FrameOfReferenceUID": _uid(simulated.study_id, "frame"),
        "PatientID": str(simulated.study_id),
        "PatientName": "PHANTOM^SIMULATED",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "PatientPosition": "HFS",
        "StudyID": str(simulated.study_id % 10_000),
        "StudyDate": "20240101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "MRI LUMBAR SPINE (SIMULATED)",
        "Manufacturer": str(rng.choice(["SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems"])),
        "MagneticFieldStrength": 1.5,
        "BodyPartExamined": "LSPINE",
    }


def _series_level(simulated: SimulatedPatient, series: SimulatedSeries, position: int) -> dict[str, Any]:
    planned, sequence = series.planned, series.planned.sequence
    plane = "SAG" if planned.role.startswith("sagittal") else "AX"
    inversion = {"InversionTime": round(sequence.inversion_ms, 1)} if sequence.inversion_ms else {}
    return {
        "SeriesInstanceUID": _uid(simulated.study_id, position),
        "SeriesNumber": position + 2,
        "SeriesDescription": f"{plane} {sequence.name}",
        "ProtocolName": f"{plane} {sequence.name}",
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "ScanningSequence": ["SE", "IR"] if sequence.inversion_ms else "SE",
        "SequenceVariant": "SK",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": round(sequence.repetition_ms, 1),
        "EchoTime": round(sequence.echo_ms, 1),
        "EchoTrainLength": 1 if sequence.name == "T1" else 15,
        **inversion,
    }


def _image_level(stack: SliceStack, index: int, number: int) -> dict[str, Any]:
    down, across = stack.pixel_mm(stack.stored)
    origin = lps_from_ras(stack.first_voxel_ras_mm(index))
    directions = np.concatenate([lps_from_ras(stack.row_ras), lps_from_ras(stack.column_ras)])
    return {
        "InstanceNumber": number,
        "ImagePositionPatient": [round(float(value), 6) for value in origin],
        "ImageOrientationPatient": [round(float(value), 8) for value in directions],
        "PixelSpacing": [round(down, 8), round(across, 8)],
    }


def _spacing_level(stack: SliceStack) -> dict[str, Any]:
    """SliceThickness, and SpacingBetweenSlices where there is more than one slice (PS3.3 C.8.3.1)."""
    first, last, steps = stack.centers_ras_mm[0], stack.centers_ras_mm[-1], len(stack.centers_ras_mm) - 1
    apart = {"SpacingBetweenSlices": round(float(np.linalg.norm(last - first)) / steps, 4)} if steps else {}
    return {"SliceThickness": round(stack.thickness_mm, 3), **apart}


def _pixel_level(pixels: npt.NDArray[np.uint16]) -> dict[str, Any]:
    rows, columns = pixels.shape
    return {
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "WindowCenter": float(np.percentile(pixels, 99.5) / 2),
        "WindowWidth": float(max(1.0, np.percentile(pixels, 99.5))),
        "PixelData": np.ascontiguousarray(pixels, dtype="<u2").tobytes(),
    }


def _save(values: dict[str, Any], path: Path, instance: str) -> None:
    dataset = _file_dataset(path, _uid(instance))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def _file_dataset(path: Path, sop_instance_uid: str) -> FileDataset:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _MR_IMAGE_STORAGE
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = _MR_IMAGE_STORAGE, sop_instance_uid
    return dataset


def _uid(*parts: object) -> str:
    """A UID that depends on nothing but its parts."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["monai_spine phantom", *(str(part) for part in parts)]))
