"""Small DICOM files, written on the spot, for the tests of reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
T1 = {"EchoTime": 12, "RepetitionTime": 600, "ScanningSequence": "SE"}
T2 = {"EchoTime": 100, "RepetitionTime": 3500, "ScanningSequence": "SE"}
STIR = {"EchoTime": 50, "RepetitionTime": 4000, "InversionTime": 160, "ScanningSequence": ["SE", "IR"]}
_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def tilted_axial(degrees: float) -> tuple[float, ...]:
    """Axial slices, turned about the left-right axis."""
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def write_slice(path: Path, pixels: np.ndarray | None = None, *, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """Write one MR image; `tags` override what a scanner would write. A tag of None is left out."""
    pixels = np.zeros((8, 8), np.uint16) if pixels is None else pixels
    bits = 8 * pixels.dtype.itemsize
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    usual = {
        "SOPClassUID": _MR_IMAGE_STORAGE, "SOPInstanceUID": f"1.2.3.{abs(hash(str(path))) % 10**12}", "Modality": "MR",
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "SeriesNumber": 1, "PatientID": "P1", "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY"], "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(SAGITTAL),
        "PixelSpacing": [0.5, 0.5], "Rows": pixels.shape[-2], "Columns": pixels.shape[-1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }  # fmt: skip
    for keyword, value in {**usual, **tags}.items():
        if value is not None:
            setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    data["PixelData"].VR = "OB" if pixels.itemsize == 1 and syntax != ImplicitVRLittleEndian else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


def write_stack(
    folder: Path,
    positions_mm: Sequence[float],
    *,
    orientation: Sequence[float] = SAGITTAL,
    uid: str = "1.2.3.1",
    shift_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    seed: int = 0,
    shape: tuple[int, int] = (6, 8),
    **tags: Any,
) -> list[np.ndarray]:
    """Write slices at positions along their normal, in that order, and return their pixels (rows, columns)."""
    pictures = [np.random.default_rng(seed + k).integers(0, 1000, shape).astype(np.uint16) for k in range(len(positions_mm))]
    for k, (place, picture) in enumerate(zip(positions_mm, pictures, strict=True)):
        position = np.asarray(shift_lps_mm) + place * normal_of(orientation)
        write_slice(
            folder / f"{uid}_{seed}_{k}.dcm",
            picture,
            **{
                "SeriesInstanceUID": uid,
                "SOPInstanceUID": f"{uid}.{seed}.{k}",
                "InstanceNumber": k + 1,
                "ImagePositionPatient": position.round(6).tolist(),
                "ImageOrientationPatient": list(orientation),
                **tags,
            },
        )
    return pictures
