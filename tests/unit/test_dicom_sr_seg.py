"""DICOM SEG and SR written from a result."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from report_cases import UIDS, body_map, case

from monai_spine.anatomy import DISCS, TARGETS, Condition, Level, Severity, Side, Target, Vertebra
from monai_spine.errors import OutputError
from monai_spine.geometry import apply_affine, lps_from_ras
from monai_spine.grades import SINGLE_SLICE
from monai_spine.level_doubts import Doubt
from monai_spine.levels import BODY_VALUES
from monai_spine.report import check_formats, write_result
from monai_spine.report.dicom_codes import SCHEME, condition_code, level_code, probability_code, severity_code, vertebra_code
from monai_spine.report.dicom_source import read_headers
from monai_spine.report.writing import OutputFormatError
from monai_spine.result import RESEARCH_NOTICE

hd = pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")

FRAME = "1.2.826.0.1.99"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def write_slice(folder: Path, series: str, number: int) -> Path:
    """One sagittal slice as an MR scanner writes it, 8 × 8 pixels."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MR_IMAGE_STORAGE
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"{series}.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.826.0.1", series, FRAME
    image.PatientID, image.PatientName, image.Modality = "P1", "Phantom^One", "MR"
    image.SeriesNumber, image.InstanceNumber = 1, number
    image.ImagePositionPatient, image.ImageOrientationPatient = [4.0 * number, -50, 50], [0, 1, 0, 0, 0, -1]
    image.PixelSpacing, image.SliceThickness = [1.0, 1.0], 4.0
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.PixelData = 15, 0, bytes(128)
    path = folder / f"{series}.{number}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `dicom` folder of a study with three slices per series."""
    folder = tmp_path_factory.mktemp("study")
    result, images = case()
    files = {f"{uid}.{number}": write_slice(folder, uid, number) for uid in UIDS.values() for number in range(3)}
    write_result(result, replace(images, dicom_files=files), folder / "out", formats=("seg", "sr"))
    return folder / "out" / "dicom"


def test_the_segmentation_has_one_segment_per_vertebra_and_refers_to_the_series_of_the_levels(written: Path) -> None:
    segmentation = hd.seg.segread(written / "segmentation.dcm")
    labels = [item.SegmentLabel for item in segmentation.SegmentSequence]
    assert labels == ["T12", "L1", "L2", "L3", "L4", "L5", "S1"]
    assert [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in segmentation.SegmentSequence][:2] == [
        "T12 vertebra",
        "L1 vertebra",
    ]
    assert {item.SegmentAlgorithmType for item in segmentation.SegmentSequence} == {"AUTOMATIC"}
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == UIDS["sagittal_t2"]
    assert (segmentation.FrameOfReferenceUID, segmentation.PatientID, segmentation.StudyInstanceUID) == (
        FRAME,
        "P1",
        "1.2.826.0.1",
    )


def test_the_segmentation_lies_where_the_bodies_were_found(written: Path) -> None:
    bodies, volume = body_map(), hd.seg.segread(written / "segmentation.dcm").get_volume(combine_segments=True)
    for segment, body in ((1, Vertebra.T12), (2, Vertebra.L1), (5, Vertebra.L4), (7, Vertebra.S1)):
        found_lps = apply_affine(volume.affine, np.argwhere(volume.array == segment))
        wanted_lps = lps_from_ras(apply_affine(bodies.affine, np.argwhere(bodies.array == BODY_VALUES[body])))
        assert len(found_lps) == len(wanted_lps)
        np.testing.assert_allclose(found_lps.mean(axis=0), wanted_lps.mean(axis=0), atol=1e-2)


def test_the_report_has_one_group_per_target_with_its_grade_side_and_point(written: Path) -> None:
    document = hd.sr.srread(written / "report.dcm")
    groups = {
        group.tracking_identifier: group
        for group in (*document.content.get_planar_roi_measurement_groups(), *document.content.get_image_measurement_groups())
    }
    assert set(groups) == {target.slug for target in TARGETS}
    group = groups["left_subarticular_stenosis_l4_l5"]
    assert group.finding_type == condition_code(Condition.SUBARTICULAR_STENOSIS)
    assert group.finding_sites[0].topographical_modifier is None
    assert (group.finding_sites[0].value, group.finding_sites[0].laterality) == (level_code(Level.L4_L5), pydicom_code("Left"))
    assert group.get_qualitative_evaluations()[0].value == severity_code(Severity.SEVERE)
    assert [measurement.value for measurement in group.get_measurements()] == pytest.approx([0.03, 0.16, 0.81])
    assert group.get_measurements()[2].name == probability_code(Severity.SEVERE)
    result, _ = case()
    grade = result.grade_of(Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, Level.L4_L5))
    assert grade is not None
    assert grade.point_ras_mm is not None
    np.testing.assert_allclose(group.roi.value[0], lps_from_ras(grade.point_ras_mm), atol=1e-4)
    assert group.roi.value[0][0] > 0, "the patient's left is positive in LPS"
    assert group.roi.frame_of_reference_uid == FRAME


def pydicom_code(keyword: str) -> object:
    from pydicom.sr.codedict import codes

    return getattr(codes.SCT, keyword)


def test_a_target_without_a_grade_says_so_and_has_no_point(written: Path) -> None:
    document = hd.sr.srread(written / "report.dcm")
    groups = {group.tracking_identifier: group for group in document.content.get_image_measurement_groups()}
    assert set(groups) == {"left_subarticular_stenosis_l1_l2", "right_subarticular_stenosis_l1_l2"}
    group = groups["left_subarticular_stenosis_l1_l2"]
    assert group.get_qualitative_evaluations()[0].value.meaning == "Not assessable"
    assert group.get_measurements() == []
    assert [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT" and "block" in item.TextValue] == [
        "only 33 % of its 64 × 64 × 32 mm block lies inside the scan (at least 50 % is needed)"
    ]


def test_a_finding_on_one_slice_has_an_evaluation_that_says_so(tmp_path: Path) -> None:
    result, images = case()
    seen = Doubt(SINGLE_SLICE, "graded on one slice: what lies beside it was not seen", Level.L4_L5)
    grades = tuple(replace(grade, doubts=(seen,)) if grade.target.level is Level.L4_L5 else grade for grade in result.grades)
    files = {f"{uid}.{number}": write_slice(tmp_path, uid, number) for uid in UIDS.values() for number in range(3)}
    write_result(replace(result, grades=grades), replace(images, dicom_files=files), tmp_path / "out", formats=("sr",))
    groups = hd.sr.srread(tmp_path / "out" / "dicom" / "report.dcm").content.get_planar_roi_measurement_groups()
    said = {
        group.tracking_identifier
        for group in groups
        for one in group.get_qualitative_evaluations()
        if "slice" in one.value.meaning
    }
    assert said == {target.slug for target in TARGETS if target.level is Level.L4_L5}


def test_the_report_says_what_it_is_not_for_and_what_its_graders_have_learnt_from(written: Path) -> None:
    document = pydicom.dcmread(written / "report.dcm")
    said = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"]
    assert case()[0].notice in said
    assert RESEARCH_NOTICE in case()[0].notice


def test_a_finding_that_is_left_to_a_reader_has_an_evaluation_that_says_so(written: Path) -> None:
    document = hd.sr.srread(written / "report.dcm")
    said = {
        group.tracking_identifier: [(one.name.value, one.value.value) for one in group.get_qualitative_evaluations()[1:]]
        for group in document.content.get_planar_roi_measurement_groups()
    }
    assert said.pop("spinal_canal_stenosis_l3_l4") == [("READER_DECISION", "REFERRAL")]
    assert set(map(tuple, said.values())) == {()}


def test_the_report_is_a_tid_1500_in_the_study_of_its_images_and_is_not_final(written: Path) -> None:
    document = pydicom.dcmread(written / "report.dcm")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (document.StudyInstanceUID, document.PatientID, document.VerificationFlag) == ("1.2.826.0.1", "P1", "UNVERIFIED")
    assert document.SeriesDescription == "Lumbar findings (research use, not for diagnosis)"


def test_every_level_vertebra_and_grade_has_a_code() -> None:
    assert [level_code(level).meaning for level in DISCS[::5]] == [
        "Level of T12/L1 intervertebral disc",
        "Level of L5/S1 intervertebral disc",
    ]
    assert {vertebra_code(vertebra).scheme_designator for vertebra in Vertebra if vertebra is not Vertebra.L6} == {"SCT"}
    assert [severity_code(severity).scheme_designator for severity in Severity] == [SCHEME, "SCT", "SCT"]


def test_dicom_output_of_a_study_that_is_no_dicom_is_refused(tmp_path: Path) -> None:
    result, images = case()
    with pytest.raises(OutputFormatError, match=r"is none\. Leave out seg and sr"):
        write_result(result, images, tmp_path / "out", formats=("sr",))
    assert list(tmp_path.iterdir()) == []


def test_a_header_without_a_frame_of_reference_is_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path, "1.2.3", 1)
    image = pydicom.dcmread(path)
    del image.FrameOfReferenceUID
    image.save_as(path)
    with pytest.raises(OutputError, match=r"1\.2\.3\.1\.dcm cannot be referred to: it lacks FrameOfReferenceUID"):
        read_headers({"1.2.3.1": path})


def test_a_series_in_two_frames_of_reference_is_refused(tmp_path: Path) -> None:
    paths = {f"1.2.3.{number}": write_slice(tmp_path, "1.2.3", number) for number in (1, 2)}
    image = pydicom.dcmread(paths["1.2.3.2"])
    image.FrameOfReferenceUID = generate_uid()
    image.save_as(paths["1.2.3.2"])
    with pytest.raises(OutputError, match="has 2 frames of reference"):
        read_headers(paths)


def test_without_highdicom_the_message_names_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_spine.report.dicom_source import highdicom_modules

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r"pip install 'monai_spine\[dicom\]'"):
        highdicom_modules()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputFormatError, match=r"pip install 'monai_spine\[dicom\]'"):
        check_formats(("json", "sr"))
