"""Real DICOM files of many makers against the conversions of dicom2nifti and dcm2niix."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from monai_spine.errors import StudyError, UnreadableInputError, VolumeGeometryError
from monai_spine.geometry import to_ras_axes
from monai_spine.series import assign_roles
from monai_spine.study import open_study
from monai_spine.volume import Volume, load_series

AFFINE_TOLERANCE_MM = 1e-3
ANY_SCAN = ("MR", "CT")

CONVERTED = [
    "anatomical/001",
    "anatomical/001_implicit",
    "failing/slicecount/001",
    "ge/anatomical/001",
    "ge/anatomical/001_implicit",
    "ge/anatomical/001_single_slice",
    "ge/dti/001",
    "ge/dti/001_implicit",
    "ge/dti/002",
    "ge/fmri/001",
    "ge/fmri/001_implicit",
    "generic/anatomical/001",
    "generic/anatomical/001_implicit",
    "generic/anatomical/002_non_isotropic",
    "generic/compressed/001",
    "generic/compressed_j2k/001",
    "generic/compressed_jpeg/001",
    "generic/compressed_jpegls/001",
    "generic/compressed_rle/001",
    "hyperfine/anatomical/001",
    "siemens_multiframe/anatomical/001",
]
"""All series of dicom2nifti that have a reference, but one in colour and one that the reference resampled for a gantry tilt."""

REFUSED = [
    ("failing/gantrytilting/001", r"sheared: .*14.0 degrees"),
    ("failing/notavolume/001", r"All 4 slices .* lie at one position"),
    ("failing/sliceincrement/002", r"sheared: .*15.5 degrees.*gap: 1.50 mm .* where others lie 0.75 mm"),
]
SPLIT = [
    ("failing/sliceincrement/001", [3, 1], "10.00 mm between the slices at 28.11 and 38.11 mm, where others lie 5.00 mm apart"),
    ("failing/sliceorientation/001", [2, 2], "slices of 2 orientations"),
    ("failing/slicecount/001", [2], "only 2 slices"),
]


def _load(path: Path) -> tuple[Volume, ...]:
    with open_study(path, modalities=ANY_SCAN) as study:
        (series,) = study.series
        return load_series(series)


def _reference(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The reference's volumes (one per time point) and their affine."""
    image = nibabel.load(path)
    array = np.asarray(image.dataobj)
    return [(frame, image.affine) for frame in (np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None])]


def _assert_same(volume: Volume, array: np.ndarray, affine: np.ndarray) -> None:
    """Equal up to the order in which axes are stored."""
    voxels, placed = to_ras_axes(volume.array, volume.affine)
    expected_voxels, expected = to_ras_axes(array, affine)
    assert np.abs(placed - expected).max() < AFFINE_TOLERANCE_MM
    assert voxels.shape == expected_voxels.shape
    assert np.allclose(voxels, expected_voxels, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_series_has_the_voxels_and_affine_of_its_reference(dicom_oddities_dir: Path, name: str) -> None:
    folder = dicom_oddities_dir / "dicom2nifti" / name
    volumes, references = _load(folder), _reference(folder.with_name(f"{folder.name}_ground_truth.nii.gz"))
    assert len(volumes) == len(references)
    for volume, (array, affine) in zip(volumes, references, strict=True):
        _assert_same(volume, array, affine)


@pytest.mark.parametrize("number", range(1, 10))
def test_every_transfer_syntax_gives_the_reference(dicom_oddities_dir: Path, number: int) -> None:
    (volume,) = _load(dicom_oddities_dir / "dcm_qa_ts" / "In" / f"{number}.dcm")
    ((array, affine),) = _reference(dicom_oddities_dir / "dcm_qa_ts" / "Ref" / f"{number}.nii")
    _assert_same(volume, array, affine)
    assert len(volume.sop_instance_uids) == 35


def test_nine_packings_of_one_mosaic_are_one_volume(dicom_oddities_dir: Path) -> None:
    (volume,) = _load(dicom_oddities_dir / "dcm_qa_ts" / "In")
    assert volume.flags[-1] == "left out: 8 copies with the same voxels"


def test_every_reference_is_accounted_for(dicom_oddities_dir: Path) -> None:
    root = dicom_oddities_dir / "dicom2nifti"
    found = {str(path.relative_to(root)).removesuffix("_ground_truth.nii.gz") for path in root.rglob("*_ground_truth.nii.gz")}
    assert found == {*CONVERTED, "generic/rgb/001", "failing/sliceincrement/002"}


@pytest.mark.parametrize(("name", "cause"), REFUSED)
def test_a_set_that_forms_no_volume_is_refused_with_its_cause(dicom_oddities_dir: Path, name: str, cause: str) -> None:
    with pytest.raises(VolumeGeometryError, match=cause):
        _load(dicom_oddities_dir / "dicom2nifti" / name)


@pytest.mark.parametrize(("name", "slices", "cause"), SPLIT)
def test_a_set_of_several_grids_is_split_and_flagged(dicom_oddities_dir: Path, name: str, slices: list[int], cause: str) -> None:
    volumes = _load(dicom_oddities_dir / "dicom2nifti" / name)
    assert [volume.array.shape[2] for volume in volumes] == slices
    assert all(any(cause in flag for flag in volume.flags) for volume in volumes)


def test_every_failing_set_is_covered(dicom_oddities_dir: Path) -> None:
    root = dicom_oddities_dir / "dicom2nifti"
    assert {str(path.relative_to(root)) for path in root.glob("failing/*/*") if path.is_dir()} == {
        name for name, *_ in (*REFUSED, *SPLIT)
    }


def test_colour_is_refused_and_set_aside_with_the_reason(dicom_oddities_dir: Path) -> None:
    folder = dicom_oddities_dir / "dicom2nifti" / "generic" / "rgb" / "001"
    with pytest.raises(UnreadableInputError, match=r"in colour \(RGB\)"):
        _load(folder)
    with open_study(folder) as study:
        assert assign_roles(study)[0].reason.startswith("in colour")


@pytest.mark.parametrize(
    "name", ["MRImageStorage_ExplicitVRBigEndian.dcm", "MRImageStorage_JPG2000_Lossless.dcm", "CTImageStorage_bad_meta.dcm"]
)
def test_single_images_read_as_pydicom_reads_them(dicom_oddities_dir: Path, name: str) -> None:
    path = dicom_oddities_dir / "pynetdicom" / name
    (volume,) = _load(path)
    data = pydicom.dcmread(path)
    expected = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    assert np.array_equal(volume.array[:, :, 0].T, expected)


def test_what_is_no_scan_is_set_aside(dicom_oddities_dir: Path) -> None:
    with open_study(dicom_oddities_dir / "highdicom", modalities=ANY_SCAN) as study:
        reasons = {file.path: file.reason for file in study.set_aside}
        assert [instance.path.name for series in study.series for instance in series.instances] == ["ct_image.dcm"]
    assert reasons["seg_image_ct_binary.dcm"] == "modality SEG, not CT or MR"
    assert reasons["sr_document.dcm"].startswith("no image (SR)")
    assert reasons["README.md"].startswith("not DICOM")


def test_a_folder_of_two_real_patients_is_refused(dicom_oddities_dir: Path) -> None:
    with (
        pytest.raises(StudyError, match=r"2 patients \(PatientID '1CT1', '4MR1'\)"),
        open_study(dicom_oddities_dir / "pynetdicom", modalities=ANY_SCAN),
    ):
        pass


@pytest.mark.parametrize("name", ["compressed_j2k", "compressed_jpeg", "compressed_jpegls", "compressed_rle"])
def test_truncated_compressed_pixels_name_the_file(dicom_oddities_dir: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(dicom_oddities_dir / "dicom2nifti" / "generic" / name / "001", tmp_path / "cut")
    path = sorted((tmp_path / "cut").iterdir())[1]
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[: len(content) - 3 * len(content) // 4])
    with pytest.raises(UnreadableInputError, match=path.name):
        _load(tmp_path / "cut")


def test_reading_costs_at_most_half_more_than_bare_pydicom(dicom_oddities_dir: Path) -> None:
    folders = [
        dicom_oddities_dir / "dicom2nifti" / name
        for name in ("anatomical/001", "generic/anatomical/001", "generic/compressed_j2k/001")
    ]

    def bare() -> None:
        for folder in folders:
            for path in folder.iterdir():
                _ = pydicom.dcmread(path).pixel_array

    def ours() -> None:
        for folder in folders:
            _load(folder)

    assert _seconds(ours) < 1.5 * _seconds(bare)


def _seconds(action: object) -> float:
    """The processor time of the quickest of several runs, so that a busy machine does not decide."""
    times = []
    for _ in range(7):
        start = time.process_time()
        action()  # type: ignore[operator]
        times.append(time.process_time() - start)
    return min(times)
