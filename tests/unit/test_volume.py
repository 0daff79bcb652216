"""Volumes: what is read from DICOM, NIfTI and pictures."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_cases import AXIAL, SAGITTAL, write_slice, write_stack
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    RLELossless,
)

from monai_spine.errors import UnreadableInputError, VolumeGeometryError
from monai_spine.geometry import apply_affine, ras_from_lps
from monai_spine.study import open_study
from monai_spine.volume import Volume, load_nifti, load_picture, load_series


def _load(path: Path) -> tuple[Volume, ...]:
    with open_study(path) as study:
        return load_series(study.series[0])


def test_each_pixel_lies_where_its_header_says(tmp_path: Path) -> None:
    pictures = write_stack(tmp_path, [8, 0, 4], shift_lps_mm=(10, -20, 30), PixelSpacing=[0.75, 0.5])
    (volume,) = _load(tmp_path)
    row, column = 2, 5
    for picture, place in zip(pictures, (8, 0, 4), strict=True):
        lps = (
            np.array([10, -20, 30])
            + place * np.array([-1, 0, 0])
            + 0.5 * column * np.array([0, 1, 0])
            + 0.75 * row * np.array([0, 0, -1])
        )
        index = np.linalg.solve(volume.affine, [*ras_from_lps(lps), 1])[:3]
        assert np.allclose(index, index.round(), atol=1e-6)
        assert volume.array[tuple(index.round().astype(int))] == picture[row, column]
    assert np.allclose(volume.spacing_mm, (0.5, 0.75, 4))


def test_every_slice_remembers_its_instance(tmp_path: Path) -> None:
    write_stack(tmp_path, [8, 0, 4], orientation=AXIAL)
    (volume,) = _load(tmp_path)
    assert volume.sop_instance_uids == ("1.2.3.1.0.1", "1.2.3.1.0.2", "1.2.3.1.0.0")
    assert volume.series_instance_uid == "1.2.3.1"
    turned = volume.to_ras()
    assert turned.sop_instance_uids == volume.sop_instance_uids
    assert turned.slice_axis == 2


def test_instance_numbers_and_stated_spacing_are_ignored(tmp_path: Path) -> None:
    for k, number in enumerate((5031, 12, 700)):
        write_slice(
            tmp_path / f"{k}.dcm", np.full((4, 4), k, np.uint16), SOPInstanceUID=f"4.{k}", InstanceNumber=number,
            ImagePositionPatient=[0, 0, 4.0 * k], ImageOrientationPatient=list(AXIAL), SpacingBetweenSlices=9,
            SliceThickness=3, SliceLocation=-k,
        )  # fmt: skip
    (volume,) = _load(tmp_path)
    assert volume.array[0, 0].tolist() == [0, 1, 2]
    assert volume.spacing_mm[2] == pytest.approx(4)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint8])
def test_voxels_are_the_same_in_every_byte_order_and_sign(tmp_path: Path, syntax: str, kind: type) -> None:
    picture = np.arange(-32, 32).reshape(8, 8).astype(kind)
    write_slice(tmp_path / "a.dcm", picture, syntax=syntax)
    (volume,) = _load(tmp_path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array[:, :, 0].T, picture.astype(np.float32))


def test_compressed_voxels_are_the_same(tmp_path: Path) -> None:
    pictures = write_stack(tmp_path, [0, 4, 8])
    for file in tmp_path.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(file)
    (volume,) = _load(tmp_path)
    assert np.array_equal(volume.array.T, pictures)


def test_rescale_applies_slice_by_slice(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(
            tmp_path / f"{k}.dcm", np.full((4, 4), 10, np.uint16), SOPInstanceUID=f"4.{k}", ImageOrientationPatient=list(AXIAL),
            ImagePositionPatient=[0, 0, 4.0 * k], RescaleSlope=k + 1, RescaleIntercept=-k,
        )  # fmt: skip
    (volume,) = _load(tmp_path)
    assert volume.array[0, 0].tolist() == [10, 19, 28]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_monochrome1_is_turned_round_within_its_stored_bits_and_flagged(tmp_path: Path, syntax: str) -> None:
    picture = np.arange(64, dtype=np.uint16).reshape(8, 8)
    write_slice(
        tmp_path / "a.dcm", 4095 - picture, syntax=syntax, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1"
    )
    (volume,) = _load(tmp_path)
    assert np.array_equal(volume.array[:, :, 0].T, picture)
    assert volume.flags[0].startswith("MONOCHROME1")


def test_colour_is_refused(tmp_path: Path) -> None:
    write_slice(
        tmp_path / "a.dcm", np.zeros((4, 4), np.uint8), PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0
    )
    with pytest.raises(UnreadableInputError, match=r"in colour \(RGB\)"):
        _load(tmp_path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_truncated_pixels_name_the_file(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "cut.dcm"
    write_slice(path, np.ones((32, 32), np.uint16), syntax=syntax)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UnreadableInputError, match=r"pixels of .*cut.dcm cannot be read .*cut off"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("syntax", "named"),
    [
        (HTJ2KLossless, r"High-Throughput JPEG 2000 .* no decoder here\. Install pylibjpeg.*, or export the study uncompressed"),
        (MPEG2MPML, r"MPEG2 Main Profile .* no decoder here\. Export the study uncompressed"),
    ],
)
def test_a_transfer_syntax_without_decoder_is_named_with_what_reads_it(tmp_path: Path, syntax: UID, named: str) -> None:
    if syntax == HTJ2KLossless and get_decoder(syntax).is_available:
        pytest.skip("a decoder for it is installed")
    path = tmp_path / "packed.dcm"
    write_slice(path, np.ones((32, 32), np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"not decoded anyway"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    with pytest.raises(UnreadableInputError, match=rf"packed\.dcm is packed as {named}"):
        _load(tmp_path)


def test_pixels_that_do_not_fit_their_header_are_refused(tmp_path: Path) -> None:
    write_stack(tmp_path, [0, 4, 8], BitsAllocated=8, BitsStored=12, HighBit=11)
    with pytest.raises(UnreadableInputError, match="Bits Stored"):
        _load(tmp_path)


def test_an_enhanced_instance_reads_frame_by_frame(tmp_path: Path) -> None:
    pictures = np.arange(3 * 64, dtype=np.uint16).reshape(3, 8, 8)
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = Items([_item(ImageOrientationPatient=list(AXIAL))])
    shared.PixelMeasuresSequence = Items([_item(PixelSpacing=[0.5, 0.5])])
    for place, slope in ((8.0, 1), (0.0, 2), (4.0, 3)):
        frame = Dataset()
        frame.PlanePositionSequence = Items([_item(ImagePositionPatient=[0, 0, place])])
        frame.PixelValueTransformationSequence = Items([_item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")])
        frames.append(frame)
    write_slice(
        tmp_path / "a.dcm", pictures, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", NumberOfFrames=3, ImagePositionPatient=None,
        ImageOrientationPatient=None, PixelSpacing=None, SharedFunctionalGroupsSequence=Items([shared]),
        PerFrameFunctionalGroupsSequence=Items(frames),
    )  # fmt: skip
    (volume,) = _load(tmp_path)
    assert np.array_equal(volume.array.T, [pictures[1] * 2, pictures[2] * 3, pictures[0]])
    assert volume.spacing_mm == pytest.approx((0.5, 0.5, 4))
    assert len(volume.sop_instance_uids) == 3


def _item(**tags: object) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def test_slices_of_another_size_are_resampled_onto_the_commonest_grid(tmp_path: Path) -> None:
    def ramp(edge: int, spacing: float) -> np.ndarray:
        along = (np.arange(edge) + 0.5) * spacing * 100
        return (along[None, :] + 2 * along[:, None]).astype(np.uint16)

    for k in range(4):
        edge, spacing = (32, 0.5) if k == 2 else (16, 1.0)
        write_slice(
            tmp_path / f"{k}.dcm", ramp(edge, spacing), SOPInstanceUID=f"4.{k}", PixelSpacing=[spacing, spacing],
            ImagePositionPatient=[spacing / 2, spacing / 2, 4.0 * k], ImageOrientationPatient=list(AXIAL),
        )  # fmt: skip
    (volume,) = _load(tmp_path)
    assert volume.array.shape == (16, 16, 4)
    assert np.abs(volume.array[:, :, 2] - volume.array[:, :, 1]).max() <= 1
    assert volume.flags == ("slices of several sizes (3 of 16 × 16, 1 of 32 × 32): resampled onto 16 × 16",)


def test_a_copy_of_a_volume_is_left_out(tmp_path: Path) -> None:
    write_stack(tmp_path / "a", [0, 4, 8])
    for file in (tmp_path / "a").iterdir():
        data = pydicom.dcmread(file)
        data.SOPInstanceUID += ".9"
        (tmp_path / "b").mkdir(exist_ok=True)
        data.save_as(tmp_path / "b" / file.name)
    (volume,) = _load(tmp_path)
    assert volume.flags[-1] == "left out: 1 copy with the same voxels"


def test_a_refused_series_is_named(tmp_path: Path) -> None:
    write_stack(tmp_path, [0, 3, 7, 12], SeriesDescription="SAG T2", SeriesNumber=4)
    with pytest.raises(VolumeGeometryError, match=r"^Series 4 'SAG T2': The distances"):
        _load(tmp_path)


def test_left_is_left_whatever_way_the_slices_run(tmp_path: Path) -> None:
    for name, places in (("up", [0, 4, 8]), ("down", [8, 4, 0])):
        write_stack(tmp_path / name, places, orientation=SAGITTAL)
        volume = _load(tmp_path / name)[0].to_ras()
        assert np.allclose(volume.affine[:3, :3], np.diag([4, 0.5, 0.5]))
        assert apply_affine(volume.affine, (0, 0, 0))[0] == pytest.approx(0)


def _nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 4, 1]) if affine is None else affine), path)
    return path


def test_a_nifti_keeps_voxels_and_affine(tmp_path: Path) -> None:
    array, affine = np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([4.0, 1, 1, 1])
    affine[:3, 3] = 10, 20, 30
    volume = load_nifti(_nifti(tmp_path / "a.nii.gz", array, affine))
    assert np.array_equal(volume.array, array)
    assert np.allclose(volume.affine, affine)
    assert (volume.slice_axis, volume.series_instance_uid, volume.array.dtype) == (0, None, np.float32)


def test_a_nifti_of_one_frame_is_taken_and_of_several_refused(tmp_path: Path) -> None:
    assert load_nifti(_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5, 1), np.float32))).array.shape == (3, 4, 5)
    with pytest.raises(VolumeGeometryError, match=r"shape \(3, 4, 5, 2\); one 3D volume is needed"):
        load_nifti(_nifti(tmp_path / "b.nii", np.zeros((3, 4, 5, 2), np.float32)))


def _with_sform(path: Path, rows: np.ndarray) -> Path:
    image = nibabel.load(_nifti(path, np.zeros((3, 4, 5), np.float32)))
    header = image.header.copy()
    header["sform_code"], header["qform_code"] = 1, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = rows[:3]
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), None, header), path)
    return path


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])]
)
def test_a_zero_or_singular_affine_is_refused(tmp_path: Path, affine: np.ndarray) -> None:
    with pytest.raises(VolumeGeometryError, match=r"a.nii: The affine is singular"):
        load_nifti(_with_sform(tmp_path / "a.nii", affine))


def test_a_nifti_without_orientation_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), None)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(VolumeGeometryError, match="left and right would be a guess"):
        load_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(UnreadableInputError, match="1 of 60 voxels that are NaN or infinite"):
        load_nifti(_nifti(tmp_path / "a.nii", array))


@pytest.mark.parametrize("edge", [0.0, -1.0])
def test_voxel_edges_that_nibabel_would_mend_are_refused_where_they_place_the_voxels(tmp_path: Path, edge: float) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    image.set_qform(np.eye(4), code=1)
    for sform_code in (1, 0):
        image.set_sform(np.eye(4), code=sform_code)
        path = tmp_path / f"{sform_code}.nii"
        nibabel.save(image, path)
        with path.open("r+b") as stream:
            stream.seek(80)  # pixdim[1]
            stream.write(np.float32(edge).tobytes())
    assert load_nifti(tmp_path / "1.nii").spacing_mm == (1.0, 1.0, 1.0)
    with pytest.raises(VolumeGeometryError, match=rf"voxel edges of {edge:g} × 1 × 1; each must be above 0"):
        load_nifti(tmp_path / "0.nii")


def test_a_colour_nifti_is_refused(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(UnreadableInputError, match="in colour"):
        load_nifti(_nifti(tmp_path / "a.nii", array))


def test_a_complex_nifti_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"complex numbers, no intensities\. Give the magnitude"):
        load_nifti(_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.complex64)))


def test_a_nifti_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(UnreadableInputError, match="27000000 million voxels; at most 500 million are read"):
        load_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1000.0), ("meter", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_a_nifti_is_read_in_millimetres_whatever_its_unit(tmp_path: Path, unit: str, factor: float) -> None:
    affine_mm = np.array([[0.0, 0, 4, -10], [-0.5, 0, 0, 20], [0, 0.5, 0, 30], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([factor, factor, factor, 1]) @ affine_mm)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    volume = load_nifti(tmp_path / "a.nii")
    assert np.allclose(volume.affine, affine_mm, atol=1e-4)
    assert [unit in flag for flag in volume.flags] == ([True] if factor != 1 else [])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_broken_nifti_is_refused(tmp_path: Path, name: str) -> None:
    path = _nifti(tmp_path / name, np.random.default_rng(0).random((30, 30, 30)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableInputError, match=r"cut off, broken, .* Copy or convert it again"):
        load_nifti(path)


def test_a_text_file_named_nii_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("text")
    with pytest.raises(UnreadableInputError, match="cannot be read as NIfTI"):
        load_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_becomes_grey_rows_and_columns(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (48, 64), 100 if mode == "L" else (100, 100, 100)).save(tmp_path / name)
    picture = load_picture(tmp_path / name)
    assert (picture.shape, picture.dtype) == ((64, 48), np.float32)
    assert np.allclose(picture, 100, atol=2)


def test_a_picture_of_one_pixel_is_refused(tmp_path: Path) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableInputError, match="1 × 1 pixels; a picture of a spine needs at least 32"):
        load_picture(tmp_path / "a.png")


@pytest.mark.parametrize("edge", [8_001, 9_500, 13_500])
def test_a_picture_of_too_many_pixels_is_refused_and_never_unpacked(tmp_path: Path, edge: int) -> None:
    """Pillow warns of the second and refuses the third itself."""
    Image.new("1", (edge, edge)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableInputError, match="at most 64 million"):
        load_picture(tmp_path / "a.png")


def test_another_picture_format_is_named_wrong(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.bmp")
    with pytest.raises(UnreadableInputError, match="Wrong format"):
        load_picture(tmp_path / "a.bmp")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_cut_picture_is_refused(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1500])
    with pytest.raises(UnreadableInputError, match="cut off or broken"):
        load_picture(tmp_path / name)


@pytest.mark.parametrize(("lean", "is_taken"), [(0.03, True), (0.2, False)])
def test_a_sheared_affine_is_refused(tmp_path: Path, lean: float, is_taken: bool) -> None:
    affine = np.diag([4.0, 1.0, 1.0, 1.0])
    affine[1, 2] = lean
    path = tmp_path / "sheared.nii"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((8, 40, 40)).astype(np.float32), affine), path)
    if is_taken:
        assert load_nifti(path).affine[1, 2] == pytest.approx(lean)
        return
    with pytest.raises(VolumeGeometryError, match=r"11 degrees askew.*sheared"):
        load_nifti(path)
