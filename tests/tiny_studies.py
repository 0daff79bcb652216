"""Small DICOM studies written by hand, for tests of what surrounds the images. They show a gradient, no anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class SeriesSpec:
    """What makes one series: its description, contrast (TE and TR in ms) and plane."""

    description: str
    echo_time: float
    repetition_time: float
    orientation: tuple[float, ...]
    step_mm: float = 4.0


SAGITTAL_T1 = SeriesSpec("SAG T1 TSE", 10, 550, SAGITTAL)
SAGITTAL_T2 = SeriesSpec("SAG T2 TSE", 100, 3500, SAGITTAL)
AXIAL_T2 = SeriesSpec("AX T2 TSE", 95, 4000, AXIAL)
ALL_SERIES = (SAGITTAL_T1, SAGITTAL_T2, AXIAL_T2)


@dataclass(frozen=True)
class StudySpec:
    """What the files of one study share."""

    patient_id: str = "TEST-1"
    modality: str = "MR"
    slices: int = 5
    size_px: int = 64
    spacing_mm: float = 4.0
    seed: str = "study"


def write_study(folder: Path, series: Sequence[SeriesSpec] = ALL_SERIES, spec: StudySpec | None = None) -> Path:
    """Write one study, a folder per series; the same arguments give the same UIDs. Returns `folder`."""
    spec = spec or StudySpec()
    study_uid = generate_uid(entropy_srcs=[spec.seed, spec.patient_id])
    for number, one in enumerate(series, start=1):
        _write_series(folder / f"series_{number}", one, spec, (study_uid, number))
    return folder


def _write_series(folder: Path, series: SeriesSpec, spec: StudySpec, place: tuple[str, int]) -> None:
    folder.mkdir(parents=True)
    study_uid, number = place
    row, column = np.reshape(series.orientation, (2, 3))
    normal = np.cross(row, column)
    half = spec.size_px * spec.spacing_mm / 2
    for index in range(spec.slices):
        offset = (index - (spec.slices - 1) / 2) * series.step_mm
        dataset = _header(series, spec)
        dataset.StudyInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = study_uid, number, index + 1
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study_uid, str(number)])
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[study_uid, str(number), str(index)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImagePositionPatient = [round(float(v), 6) for v in normal * offset - (row + column) * half]
        dataset.save_as(folder / f"{index + 1}.dcm", enforce_file_format=True)


def _header(series: SeriesSpec, spec: StudySpec) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.PatientName, dataset.PatientID = "Test^Study", spec.patient_id
    dataset.StudyDate, dataset.StudyTime = "20240101", "120000"
    dataset.Modality, dataset.SeriesDescription = spec.modality, series.description
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[spec.seed, "frame"])
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "SE", "SK", "2D"
    dataset.EchoTime, dataset.RepetitionTime, dataset.EchoTrainLength = series.echo_time, series.repetition_time, 12
    dataset.ImageOrientationPatient = list(series.orientation)
    dataset.PixelSpacing = [spec.spacing_mm, spec.spacing_mm]
    dataset.SliceThickness = series.step_mm
    dataset.Rows = dataset.Columns = spec.size_px
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    ramp = np.add.outer(np.arange(spec.size_px), np.arange(spec.size_px)).astype(np.uint16)
    dataset.PixelData = (ramp * 8).tobytes()
    return dataset
