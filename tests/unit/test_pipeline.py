from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_bundles import write_bundles
from tiny_studies import ALL_SERIES, AXIAL_T2, SAGITTAL_T1, StudySpec, write_study

import monai_spine.pipeline
from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level
from monai_spine.errors import LevelsNotFoundError, SeriesSelectionError, StudyError, UnreadableInputError, VolumeGeometryError
from monai_spine.pipeline import Analysis, Models, Progress, Settings, analyze, analyze_study, load_models
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
    assert {level.level for level in analysis.result.levels.levels} == set(LEVELS)
    assert all(grade.probabilities or grade.reason for grade in analysis.result.grades)


def test_provenance_says_with_what_and_how_it_was_made(study, models):
    how = analyze(study, models=models, settings=Settings(levels=(Level.L4_L5,))).result.to_json()["provenance"]
    assert how["device"] == "cpu"
    assert set(how["seconds"]) == {"read", "localize", "grade"}
    assert how["settings"]["levels"] == ["L4/L5"]
    assert {"monai_spine", "torch", "monai", "pydicom"} <= set(how["versions"])
    names = [bundle["name"] for bundle in how["bundles"]]
    assert names == ["lumbar_level_localization", *(f"{condition.slug}_grading" for condition in Condition)]
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


def test_a_chosen_series_is_taken_whatever_the_headers_say(study, models):
    uid = next(role.series_instance_uid for role in analyze(study, models=models).result.series if role.role is Role.SAGITTAL_T1)
    result = analyze(study, models=models, settings=Settings(series={Role.SAGITTAL_T2: uid})).result
    graded = {grade.series_instance_uid for grade in result.grades if grade.target.condition is Condition.SPINAL_CANAL_STENOSIS}
    assert graded == {uid}


def test_a_nifti_of_unknown_weighting_gets_levels_and_no_grades(tmp_path, models):
    result = analyze(_nifti(tmp_path / "spine.nii.gz"), models=models).result
    assert len(result.levels.levels) == 5
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


def test_truncated_pixels_of_a_used_series_are_refused(tmp_path, models):
    folder = write_study(tmp_path / "study", spec=StudySpec(seed="truncated"))
    file = folder / "series_2" / "3.dcm"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(UnreadableInputError, match=r"3\.dcm"):
        analyze(folder, models=models)


def test_a_scan_without_a_spine_is_refused(study, models, monkeypatch):
    def nothing(*args, **kwargs):
        raise LevelsNotFoundError("No lumbar spine was found")

    monkeypatch.setattr(monai_spine.pipeline, "localize_levels", nothing)
    with pytest.raises(LevelsNotFoundError, match="No lumbar spine was found"):
        analyze(study, models=models)


def test_models_are_loaded_once(models):
    folder = models.localizer.root.parent
    assert load_models(folder, device="cpu") is models
