from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from tiny_bundles import write_bundles
from tiny_studies import ALL_SERIES, AXIAL_T2, SAGITTAL_T1, SAGITTAL_T2, SeriesSpec, StudySpec, write_study

import monai_spine.pipeline
from monai_spine.anatomy import DISCS, TARGETS, Condition, Level, Vertebra
from monai_spine.errors import (
    AnatomyError,
    LevelsNotFoundError,
    SeriesSelectionError,
    StudyError,
    UnreadableInputError,
    VolumeGeometryError,
    WeightsError,
)
from monai_spine.models import GRADERS, SLICE_GRADERS, check_models
from monai_spine.pipeline import Analysis, Models, Progress, Settings, analyze, analyze_study, load_models
from monai_spine.result import StudyResult
from monai_spine.series import Role

SCHEMA = Path(monai_spine.pipeline.__file__).parent / "report" / "result.schema.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return load_models(write_bundles(tmp_path_factory.mktemp("bundles")), device="cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "whole")


def _nifti(path: Path, affine: np.ndarray | None = None) -> Path:
    affine = np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(np.arange(5 * 64 * 64, dtype=np.float32).reshape(5, 64, 64), None)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def test_steps_are_announced_in_order_and_the_analysis_comes_last(study, models):
    steps = list(analyze_study(study, models=models))
    assert [step.stage for step in steps[:-1] if isinstance(step, Progress)] == ["read", "localize", "grade", "write"]
    fractions = [step.fraction for step in steps[:-1] if isinstance(step, Progress)]
    assert fractions == sorted(fractions)
    assert isinstance(steps[-1], Analysis)


def test_a_result_answers_for_all_targets_and_fits_its_schema(study, models):
    analysis = analyze(study, models=models)
    content = analysis.result.to_json()
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert [grade.target for grade in analysis.result.grades] == list(TARGETS)
    assert [level.level for level in analysis.result.levels.levels] == list(DISCS)
    assert analysis.result.levels.vertebrae[0].vertebra is Vertebra.T12
    assert all(grade.probabilities or grade.reason for grade in analysis.result.grades)


def test_provenance_says_with_what_and_how_it_was_made(study, models):
    how = analyze(study, models=models, settings=Settings(levels=(Level.L4_L5,))).result.to_json()["provenance"]
    assert how["device"] == "cpu"
    assert set(how["seconds"]) == {"read", "localize", "grade"}
    assert how["settings"]["levels"] == ["L4/L5"]
    assert {"monai_spine", "torch", "monai", "pydicom"} <= set(how["versions"])
    names = [bundle["name"] for bundle in how["bundles"]]
    graders = [f"{condition.slug}_grading" for condition in Condition]
    assert names == ["lumbar_level_localization", "lumbar_level_naming", "lumbar_level_refinement", *graders]
    assert all(len(bundle["weights_sha256"]["models/model.pt"]) == 64 for bundle in how["bundles"])
    assert how["notice"].startswith("For research use, not for diagnosis.")
    assert "a stand-in for tests" in how["notice"]


def test_images_show_what_was_localised_and_what_was_graded(study, models):
    analysis = analyze(study, models=models)
    assert list(analysis.images.sagittal) == [Role.SAGITTAL_T2, Role.SAGITTAL_T1]
    assert set(analysis.images.crops) >= {grade.target.slug for grade in analysis.result.grades if grade.status == "graded"}
    assert len(analysis.images.dicom_files) == 15


def test_levels_that_were_not_asked_for_are_not_graded(study, models):
    result = analyze(study, models=models, settings=Settings(levels=(Level.L4_L5, Level.L5_S1))).result
    assert {grade.target.level for grade in result.grades} == {Level.L4_L5, Level.L5_S1}
    assert len(result.grades) == 10


def test_a_study_with_t1_only_is_localised_on_it_and_says_what_is_missing(tmp_path, models):
    result = analyze(write_study(tmp_path / "t1", [SAGITTAL_T1]), models=models).result
    by_status = {grade.target.condition: (grade.status, grade.reason) for grade in result.grades}
    assert by_status[Condition.NEURAL_FORAMINAL_NARROWING] == ("graded", None)
    assert by_status[Condition.SPINAL_CANAL_STENOSIS] == ("not_assessable", "the study has no sagittal T2 series")
    assert by_status[Condition.SUBARTICULAR_STENOSIS] == ("not_assessable", "the study has no axial T2 series")
    assert {level.series_instance_uid for level in result.levels.levels} == {result.series[0].series_instance_uid}


def test_a_study_without_a_sagittal_series_is_refused_with_what_it_has(tmp_path, models):
    with pytest.raises(SeriesSelectionError, match=r"no sagittal series.* \('AX T2 TSE': .*--series"):
        analyze(write_study(tmp_path / "axial", [AXIAL_T2]), models=models)


def test_series_that_are_not_used_are_never_read(tmp_path, models):
    folder = write_study(tmp_path / "study", [*ALL_SERIES, SAGITTAL_T1])
    for file in (folder / "series_4").iterdir():
        file.write_bytes(file.read_bytes()[:-4000])
    used = [role.used for role in analyze(folder, models=models).result.series]
    assert sorted(used) == [False, True, True, True]


def test_settings_take_names_for_what_they_name():
    named = Settings(levels=("l4_l5", "L5/S1"), series={"sagittal_t2": "1.2"}, nifti_role="axial_t2")
    assert named == Settings(levels=(Level.L4_L5, Level.L5_S1), series={Role.SAGITTAL_T2: "1.2"}, nifti_role=Role.AXIAL_T2)
    with pytest.raises(AnatomyError, match="Unknown level 'L4/L6'"):
        Settings(levels=("L4/L6",))
    with pytest.raises(SeriesSelectionError, match="Unknown role 'axial'"):
        Settings(series={"axial": "1.2"})


def test_a_chosen_series_is_taken_whatever_the_headers_say(study, models):
    uid = next(role.series_instance_uid for role in analyze(study, models=models).result.series if role.role is Role.SAGITTAL_T1)
    result = analyze(study, models=models, settings=Settings(series={Role.SAGITTAL_T2: uid})).result
    graded = {grade.series_instance_uid for grade in result.grades if grade.target.condition is Condition.SPINAL_CANAL_STENOSIS}
    assert graded == {uid}


def test_a_nifti_of_unknown_weighting_gets_levels_and_no_grades(tmp_path, models):
    result = analyze(_nifti(tmp_path / "spine.nii.gz"), models=models).result
    assert len(result.levels.levels) == len(DISCS)
    assert {grade.status for grade in result.grades} == {"not_assessable"}
    assert [role.role for role in result.series] == [Role.SAGITTAL]


def test_a_nifti_whose_role_is_given_is_graded_as_far_as_it_goes(tmp_path, models):
    result = analyze(_nifti(tmp_path / "spine.nii.gz"), models=models, settings=Settings(nifti_role=Role.SAGITTAL_T2)).result
    graded = {grade.target.condition for grade in result.grades if grade.status == "graded"}
    assert graded == {Condition.SPINAL_CANAL_STENOSIS}


def test_a_picture_without_geometry_is_refused_with_what_is_needed(tmp_path, models):
    Image.new("L", (320, 384)).save(tmp_path / "spine.png")
    with pytest.raises(StudyError, match=r"one picture of 320 × 384 pixels: .*Give the DICOM study or a NIfTI volume"):
        analyze(tmp_path / "spine.png", models=models)


def test_a_singular_affine_is_refused(tmp_path, models):
    with pytest.raises(VolumeGeometryError, match="singular"):
        analyze(_nifti(tmp_path / "flat.nii", np.diag([4.0, 0.0, 4.0, 1.0])), models=models)


def _cut(folder: Path, series: int, number: int = 3) -> None:
    """Cut off the pixels of one slice."""
    file = folder / f"series_{series}" / f"{number}.dcm"
    file.write_bytes(file.read_bytes()[:-2000])


def _shear(folder: Path, series: int) -> None:
    """Move the slices of a series sideways, as a tilted gantry does."""
    for number, file in enumerate(sorted((folder / f"series_{series}").iterdir())):
        data = pydicom.dcmread(file)
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y + 3.0 * number, z]
        data.save_as(file)


def _statuses(result: StudyResult) -> dict[Condition, tuple[str, str]]:
    """Status and reason of each condition at L3/L4, which every series of these studies shows."""
    grades = [grade for grade in result.grades if grade.target.level is Level.L3_L4]
    return {grade.target.condition: (grade.status, grade.reason or "") for grade in grades}


@pytest.mark.parametrize(
    ("series", "condition", "role"),
    [
        (1, Condition.NEURAL_FORAMINAL_NARROWING, "sagittal T1"),
        (2, Condition.SPINAL_CANAL_STENOSIS, "sagittal T2"),
        (3, Condition.SUBARTICULAR_STENOSIS, "axial T2"),
    ],
)
def test_one_unreadable_series_costs_its_own_findings_only(tmp_path, models, series, condition, role):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="truncated"))
    _cut(folder, series)
    result = analyze(folder, models=models).result
    statuses = _statuses(result)
    status, why = statuses.pop(condition)
    assert status == "not_assessable"
    assert re.match(rf"the {role} series cannot be used \(The pixels of .*3\.dcm cannot be read", why)
    assert set(statuses.values()) == {("graded", "")}
    (broken,) = [verdict for verdict in result.series if not verdict.used]
    assert re.search(r"; set aside: The pixels of .*3\.dcm", broken.reason)
    assert any(re.match(r"a series was set aside: The pixels of .*3\.dcm", flag) for flag in result.flags)


def test_a_series_whose_slices_form_no_volume_is_set_aside_with_the_cause(tmp_path, models):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="sheared"))
    _shear(folder, 3)
    statuses = _statuses(analyze(folder, models=models).result)
    why = r"axial T2 series cannot be used \(Series 3 'AX T2 TSE': .*sheared"
    assert re.search(why, statuses[Condition.SUBARTICULAR_STENOSIS][1])
    assert statuses[Condition.SPINAL_CANAL_STENOSIS] == ("graded", "")


def test_a_study_whose_sagittal_series_cannot_be_read_is_refused_with_the_cause(tmp_path, models):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="truncated"))
    _cut(folder, 1)
    _cut(folder, 2)
    with pytest.raises(UnreadableInputError, match=r"series_2/3\.dcm cannot be read"):
        analyze(folder, models=models)


def test_the_next_best_series_takes_the_place_of_an_unreadable_one(tmp_path, models):
    suppressed = SeriesSpec("SAG T2 FS", 100, 3500, SAGITTAL_T2.orientation)
    folder = write_study(tmp_path / "study", [SAGITTAL_T1, SAGITTAL_T2, suppressed])
    _cut(folder, 2)
    result = analyze(folder, models=models).result
    assert [verdict.used for verdict in result.series] == [True, False, True]
    assert _statuses(result)[Condition.SPINAL_CANAL_STENOSIS] == ("graded", "")
    chosen = Settings(series={Role.SAGITTAL_T2: result.series[1].series_instance_uid})
    result = analyze(folder, models=models, settings=chosen).result
    assert [verdict.used for verdict in result.series] == [True, False, False]
    assert "3.dcm" in _statuses(result)[Condition.SPINAL_CANAL_STENOSIS][1]


def _blank(data: pydicom.Dataset) -> None:
    data.PixelData = bytes(len(data.PixelData))


def _endless(data: pydicom.Dataset) -> None:
    data.RescaleSlope, data.RescaleIntercept = "1e39", "0"


def _vast(data: pydicom.Dataset) -> None:
    data.PixelSpacing = [400, 400]


def _minute(data: pydicom.Dataset) -> None:
    data.PixelSpacing = [0.004, 0.004]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_blank, "The pixels of series 2 'SAG T2 TSE' are blank: all have the value 0"),
        (_endless, "hold values that are NaN or infinite"),
        (_vast, "span 25600 mm; a scan of the spine spans 40 to 2000 mm"),
        (_minute, "span 20 mm; a scan of the spine spans 40 to 2000 mm"),
    ],
)
def test_what_no_scan_looks_like_is_not_graded(tmp_path, models, change, reason):
    folder = write_study(tmp_path / "study")
    for file in (folder / "series_2").iterdir():
        data = pydicom.dcmread(file)
        change(data)
        data.save_as(file)
    status, why = _statuses(analyze(folder, models=models).result)[Condition.SPINAL_CANAL_STENOSIS]
    assert status == "not_assessable"
    assert reason in why


def test_a_nifti_of_two_slices_is_refused(tmp_path, models):
    path = _nifti(tmp_path / "a.nii")
    nib.save(nib.load(path).slicer[:2], tmp_path / "b.nii")
    with pytest.raises(VolumeGeometryError, match="has 2 × 64 × 64 voxels: at least 3 slices are needed"):
        analyze(tmp_path / "b.nii", models=models)


def test_a_nifti_of_one_slice_is_graded_where_it_is_said_to_be_sagittal_t2(tmp_path, models):
    scan = nib.load(_nifti(tmp_path / "a.nii"))
    middle = scan.shape[0] // 2
    nib.save(scan.slicer[middle : middle + 1], tmp_path / "one.nii")
    with pytest.raises(VolumeGeometryError, match="of a single mid-sagittal slice, say with --role what it is"):
        analyze(tmp_path / "one.nii", models=models)
    result = analyze(tmp_path / "one.nii", models=models, settings=Settings(nifti_role="sagittal_t2")).result
    assert "spinal canal stenosis was graded on one slice: what lies beside it was not seen" in result.flags
    grades = result.grades
    seen = {grade.flags for grade in grades if grade.status == "graded"}
    assert {grade.target.condition for grade in grades if grade.status == "graded"} == {Condition.SPINAL_CANAL_STENOSIS}
    assert all("single_slice" in flags for flags in seen)


def test_a_single_slice_is_graded_by_the_grader_for_slices_where_there_is_one(tmp_path):
    folder = write_bundles(tmp_path / "bundles")
    volumes, slices = (folder / names[Condition.SPINAL_CANAL_STENOSIS] for names in (GRADERS, SLICE_GRADERS))
    shutil.copytree(volumes, slices)
    models = load_models(folder, device="cpu")
    scan = nib.load(_nifti(tmp_path / "whole.nii"))
    nib.save(scan.slicer[2:3], tmp_path / "one.nii")
    for name, used in (("whole", volumes), ("one", slices)):
        result = analyze(tmp_path / f"{name}.nii", models=models, settings=Settings(nifti_role="sagittal_t2")).result
        canals = [grade for grade in result.grades if grade.target.condition is Condition.SPINAL_CANAL_STENOSIS]
        assert {grade.status for grade in canals} == {"graded"}
        names = {bundle["name"] for bundle in result.to_json()["provenance"]["bundles"]}
        assert names & {volumes.name, slices.name} == {used.name}


def test_a_damaged_bundle_for_slices_is_known_before_any_study(tmp_path):
    folder = write_bundles(tmp_path / "bundles")
    slices = folder / SLICE_GRADERS[Condition.SPINAL_CANAL_STENOSIS]
    shutil.copytree(folder / GRADERS[Condition.SPINAL_CANAL_STENOSIS], slices)
    (slices / "models" / "model.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=slices.name):
        check_models(folder, device="cpu")


def test_an_archive_is_named_and_not_where_it_was_unpacked(tmp_path, models):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="zipped"))
    _cut(folder, 3)
    archive = shutil.make_archive(str(tmp_path / "one"), "zip", folder)
    _cut(folder, 1)
    _cut(folder, 2)
    unusable = shutil.make_archive(str(tmp_path / "two"), "zip", folder)
    why = _statuses(analyze(Path(archive), models=models).result)[Condition.SUBARTICULAR_STENOSIS][1]
    assert f"The pixels of {archive}/series_3/3.dcm" in why
    with pytest.raises(UnreadableInputError, match=re.escape(f"The pixels of {unusable}/series_2/3.dcm")):
        analyze(Path(unusable), models=models)


def test_a_damaged_file_is_mentioned_as_a_slice_may_be_missing(tmp_path, models):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="damaged", slices=7))
    file = folder / "series_2" / "1.dcm"
    file.write_bytes(file.read_bytes()[:600])
    (folder / "README").write_text("no image, and no slice")
    (flag,) = analyze(folder, models=models).result.flags
    assert flag.startswith("files left out, so that slices may be missing: series_2/1.dcm: ")


def test_a_series_in_two_frames_of_reference_is_mentioned(tmp_path, models, study):
    folder = shutil.copytree(study, tmp_path / "study")
    data = pydicom.dcmread(folder / "series_2" / "4.dcm")
    data.FrameOfReferenceUID = "1.2.3.4"
    data.save_as(folder / "series_2" / "4.dcm")
    (flag,) = analyze(folder, models=models).result.flags
    assert flag.startswith("series 2 'SAG T2 TSE' has slices in 2 frames of reference")


def test_series_in_another_frame_of_reference_are_mentioned(tmp_path, models, study):
    folder = shutil.copytree(study, tmp_path / "study")
    for file in (folder / "series_3").iterdir():
        data = pydicom.dcmread(file)
        data.FrameOfReferenceUID = "1.2.3.4"
        data.save_as(file)
    (flag,) = analyze(folder, models=models).result.to_json()["flags"]
    assert flag.startswith(
        "series 3 'AX T2 TSE' and series 2 'SAG T2 TSE', on which the levels were found, have different frames of reference"
    )
    assert analyze(study, models=models).result.flags == ()


def test_a_scan_without_a_spine_is_refused(study, models, monkeypatch):
    def nothing(*args, **kwargs):
        raise LevelsNotFoundError("No lumbar spine was found")

    monkeypatch.setattr(monai_spine.pipeline, "localize_levels", nothing)
    with pytest.raises(LevelsNotFoundError, match="No lumbar spine was found"):
        analyze(study, models=models)


def test_models_are_loaded_once(models):
    folder = models.localizer.bundle.root.parent
    assert load_models(folder, device="cpu") is models
