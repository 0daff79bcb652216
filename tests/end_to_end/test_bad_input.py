"""Each bad input gets one clear message, its exit code, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import re
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_studies import SAGITTAL_T1, SAGITTAL_T2, StudySpec, write_study


def _empty_folder(place: Path) -> Path:
    place.mkdir()
    return place


def _no_mr(place: Path) -> Path:
    return write_study(place, [SAGITTAL_T2], StudySpec(modality="CT", slices=2))


def _text_named_dcm(place: Path) -> Path:
    place.mkdir()
    (place / "1.dcm").write_text("To whom it may concern")
    return place


def _truncated_pixels(place: Path) -> Path:
    write_study(place, [SAGITTAL_T2])
    file = place / "series_1" / "3.dcm"
    file.write_bytes(file.read_bytes()[:-4000])
    return place


def _zip_with(place: Path, name: str, content: bytes) -> Path:
    path = place.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def _zip_that_climbs(place: Path) -> Path:
    return _zip_with(place, "../../escaped.dcm", b"outside")


def _zip_bomb(place: Path) -> Path:
    return _zip_with(place, "1.dcm", bytes(80 * 1024**2))


def _two_patients(place: Path) -> Path:
    write_study(place / "a", [SAGITTAL_T2], StudySpec(patient_id="A", slices=2))
    write_study(place / "b", [SAGITTAL_T2], StudySpec(patient_id="B", slices=2))
    merged = place / "merged"
    merged.mkdir()
    for number, file in enumerate(sorted(place.glob("?/*/*.dcm"))):
        shutil.copy(file, merged / f"{number}.dcm")
    return merged


def _nifti(place: Path, affine: np.ndarray, value: float = 1.0) -> Path:
    path = place.with_suffix(".nii")
    image = nib.Nifti1Image(np.full((5, 64, 64), value, np.float32), None)
    image.header.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def _zero_affine(place: Path) -> Path:
    return _nifti(place, np.diag([0.0, 0.0, 0.0, 1.0]))


def _singular_affine(place: Path) -> Path:
    return _nifti(place, np.array([[4.0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 4, 0], [0, 0, 0, 1]]))


def _nan_voxels(place: Path) -> Path:
    return _nifti(place, np.diag([4.0, 4, 4, 1]), np.nan)


def _one_pixel(place: Path) -> Path:
    path = place.with_suffix(".png")
    Image.new("L", (1, 1)).save(path)
    return path


def _nothing(place: Path) -> Path:
    return place


CASES = [
    (_nothing, "does not exist. Check the path"),
    (_empty_folder, "is empty: there is nothing to read. Give the folder that holds the images"),
    (_no_mr, "holds no MR image: 2 files: modality CT, not MR"),
    (_text_named_dcm, "holds no MR image: 1 file: .*Check the export"),
    (_truncated_pixels, r"3\.dcm cannot be read .*Export it again"),
    (_zip_that_climbs, r"\.\./\.\./escaped\.dcm"),
    (_zip_bomb, r"unpack.*nothing was unpacked|80 MB|times"),
    (_two_patients, r"holds images of 2 patients \(PatientID 'A', 'B'\).*Give each patient a folder"),
    (_zero_affine, "The affine is singular .*Rewrite the file's header"),
    (_singular_affine, "The affine is singular .*Rewrite the file's header"),
    (_nan_voxels, "20480 of 20480 voxels that are NaN or infinite"),
    (_one_pixel, r"has 1 × 1 pixels.*Give the picture in its true size"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__.strip("_") for make, _ in CASES])
def test_an_unusable_study_is_named_once_and_leaves_nothing(make, message, tmp_path, run):
    source = make(tmp_path / "study")
    before = sorted(tmp_path.parent.rglob("*"))
    result = run("analyze", source, "-o", tmp_path / "out")
    assert result.exit_code == 3, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert re.search(message, said[0]), said[0]
    assert "Traceback" not in result.output
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_study_with_t1_only_is_graded_as_far_as_it_goes_and_says_so(tmp_path, run):
    result = run("analyze", write_study(tmp_path / "t1", [SAGITTAL_T1]), "-o", tmp_path / "out", "--formats", "json")
    assert result.exit_code == 0, result.output
    assert "10 of 25 findings graded; the study has no axial T2 series; the study has no sagittal T2 series" in result.stderr
    assert "15 of 25 rows hold the prior" in result.stdout
    grades = json.loads((tmp_path / "out" / "t1" / "result.json").read_text())["grades"]
    assert {(grade["condition"], grade["status"]) for grade in grades} == {
        ("neural_foraminal_narrowing", "graded"),
        ("spinal_canal_stenosis", "not_assessable"),
        ("subarticular_stenosis", "not_assessable"),
    }


def test_altered_weights_are_refused_before_anything_is_written(tmp_path, run, study, bundles):
    altered = shutil.copytree(bundles, tmp_path / "bundles")
    with (altered / "neural_foraminal_narrowing_grading" / "models" / "model.pt").open("ab") as file:
        file.write(b"!")
    result = run("analyze", study, "-o", tmp_path / "out", "--bundles", altered)
    assert result.exit_code == 4
    assert re.search(r"Error: .*foraminal_narrowing_grading/models/model\.pt .*its SHA-256 is .*Restore the file", result.stderr)
    assert not (tmp_path / "out").exists()


def test_missing_bundles_are_refused_before_anything_is_written(tmp_path, run, study):
    (tmp_path / "bundles").mkdir()
    result = run("analyze", study, "-o", tmp_path / "out", "--bundles", tmp_path / "bundles")
    assert result.exit_code == 4
    assert "with --bundles" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_a_usage_error(tmp_path, run, study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("analyze", study, "-o", tmp_path / "out", "--device", "cuda")
    assert result.exit_code == 2
    assert "finds 0 CUDA devices here. Use --device cpu or auto" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["result.json", "grades.csv", "report.html"])
def test_a_full_disk_stops_the_run_and_leaves_no_part_of_a_study(tmp_path, run, study, monkeypatch, file):
    write = Path.write_bytes

    def full(self, data):
        if self.name == file:
            write(self, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("monai_spine.report.figures.draw_figures", lambda *arguments: {})
    result = run("analyze", study, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert re.search("Error: .*No space left on device.*free some space", result.stderr)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_bad_study_of_ten_costs_no_other(tmp_path, run):
    for number in range(9):
        write_study(tmp_path / "studies" / f"s{number}", [SAGITTAL_T2], StudySpec(seed=str(number)))
    _truncated_pixels(tmp_path / "studies" / "bad")
    result = run("analyze", tmp_path / "studies", "-o", tmp_path / "out", "--formats", "json")
    assert result.exit_code == 5, result.output
    assert "9 studies analysed, 1 failed" in result.stdout
    out = tmp_path / "out"
    assert sorted(path.parent.name for path in out.glob("*/.complete")) == [f"s{number}" for number in range(9)]
    assert len((out / "cohort.csv").read_text().splitlines()) == 10
    assert len((out / "submission.csv").read_text().splitlines()) == 1 + 9 * 25
    header, failure = (out / "failures.csv").read_text().splitlines()
    assert header == "study,source,error,exit_code,message"
    assert re.match(r"bad,.*,UnreadableInputError,3,.*3\.dcm", failure)
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        "cohort.csv", "failures.csv", "index.html", "run.json", "submission.csv",
    }  # fmt: skip


def test_an_empty_folder_in_a_batch_is_missed_by_no_one(tmp_path, run):
    for number in range(2):
        write_study(tmp_path / "studies" / f"s{number}", [SAGITTAL_T2], StudySpec(seed=str(number)))
    (tmp_path / "studies" / "empty").mkdir()
    result = run("analyze", tmp_path / "studies", "-o", tmp_path / "out", "--formats", "json")
    assert result.exit_code == 5
    assert (tmp_path / "out" / "failures.csv").read_text().splitlines()[1].startswith("empty,")


def test_each_picture_of_a_batch_that_cannot_be_used_has_its_line(tmp_path, run):
    pictures = _empty_folder(tmp_path / "in")
    Image.new("L", (64, 64)).save(pictures / "a.gif")
    (pictures / "b.png").write_bytes(b"")
    (pictures / "c.png").symlink_to(tmp_path / "nowhere")
    (pictures / "d.png").symlink_to(pictures / "d.png")
    result = run("analyze", pictures, "-o", tmp_path / "out", "--formats", "json")
    assert result.exit_code == 5, result.output
    _, *failures = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    whys = ("Wrong format", "Wrong format", "is a link to what does not exist", "cannot be opened: Too many levels of symbolic")
    for line, name, why in zip(failures, ("a,", "b,", "c.png,", "d.png,"), whys, strict=True):
        assert line.startswith(name)
        assert why in line
