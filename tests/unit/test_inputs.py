"""Which studies an input holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_cases import write_slice, write_stack
from PIL import Image

from monai_spine.errors import StudyError, UnreadableInputError
from monai_spine.inputs import find_studies
from monai_spine.study import open_study


def _study(folder: Path, number: int, *, series: int = 2) -> Path:
    for one in range(series):
        write_stack(folder / f"{number}{one}", [0, 4], uid=f"1.{number}.{one}", StudyInstanceUID=f"9.{number}")
    return folder


def _homes(path: Path) -> list[Path]:
    return [found.home for found in find_studies(path)]


def test_one_study_is_found_as_one_input(tmp_path: Path) -> None:
    write_stack(tmp_path / "s1", [0, 4])
    write_stack(tmp_path / "s2", [0, 4], uid="1.2.3.2")
    (tmp_path / "empty").mkdir()
    (found,) = find_studies(tmp_path)
    assert (found.path, found.home, found.study_instance_uid) == (tmp_path, tmp_path, "1.2.3")


def test_a_folder_of_studies_is_a_batch_and_misses_no_subfolder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_stack(tmp_path / name / "series1", [0, 4], uid=f"1.{name == 'a':d}.1", StudyInstanceUID=f"9.{name == 'a':d}")
        write_stack(tmp_path / name / "series2", [0, 4], uid=f"1.{name == 'a':d}.2", StudyInstanceUID=f"9.{name == 'a':d}")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "broken.dcm").write_text("text")
    (tmp_path / "d.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "table.csv").write_text("a,b")
    assert [found.path.name for found in find_studies(tmp_path)] == ["a", "b", "c", "d.zip"]


def test_every_nifti_file_and_zip_is_a_study_however_deep_it_lies(tmp_path: Path) -> None:
    for name in ("sub-1/anat/a.nii", "sub-2/anat/b.nii.gz", "sub-3/c.zip"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert [found.path.name for found in find_studies(tmp_path)] == ["a.nii", "b.nii.gz", "c.zip"]
    assert [found.path.name for found in find_studies(tmp_path / "sub-3")] == ["c.zip"]
    with open_study(tmp_path / "sub-1") as study:
        assert study.kind == "nifti"


@pytest.mark.parametrize("series", [1, 3])
def test_a_lone_study_is_named_by_its_own_folder_and_read_from_what_was_given(tmp_path: Path, series: int) -> None:
    _study(tmp_path / "train_images" / "100206310", 1, series=series)
    for given in (tmp_path, tmp_path / "train_images", tmp_path / "train_images" / "100206310"):
        (found,) = find_studies(given)
        assert (found.path, found.home) == (given, tmp_path / "train_images" / "100206310")


def test_studies_have_the_same_names_alone_and_in_a_batch(tmp_path: Path) -> None:
    for number in (1, 2):
        _study(tmp_path / f"patient_{number}" / f"visit_{number}", number)
    alone = [home for number in (1, 2) for home in _homes(tmp_path / f"patient_{number}")]
    assert _homes(tmp_path) == alone == [tmp_path / f"patient_{number}" / f"visit_{number}" for number in (1, 2)]


def test_a_copy_of_a_study_costs_no_other_and_is_a_study_by_itself(tmp_path: Path) -> None:
    for number in (1, 2):
        _study(tmp_path / f"s{number}", number)
    shutil.copytree(tmp_path / "s1", tmp_path / "s1 copy")
    assert _homes(tmp_path) == [tmp_path / "s1", tmp_path / "s1 copy", tmp_path / "s2"]


def test_a_study_that_is_spread_over_several_folders_is_not_parted(tmp_path: Path) -> None:
    for disc in (1, 2):
        write_stack(tmp_path / f"disc{disc}" / "s", [0, 4], uid=f"1.1.{disc}", StudyInstanceUID="9.1")
    assert _homes(tmp_path) == [tmp_path]
    _study(tmp_path / "other", 2)
    assert _homes(tmp_path) == [tmp_path]
    with pytest.raises(StudyError, match="holds 2 studies"), open_study(tmp_path):
        pass


def test_a_folder_with_the_files_of_several_series_is_the_studys_own(tmp_path: Path) -> None:
    for series in (1, 2):
        write_stack(tmp_path / "mixed", [0, 4], uid=f"1.2.3.{series}")
    assert _homes(tmp_path) == [tmp_path / "mixed"]


def test_pictures_and_notes_beside_a_study_are_no_studies(tmp_path: Path) -> None:
    _study(tmp_path / "study", 1, series=1)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "study" / "preview.png")
    (tmp_path / "README").write_text("x")
    assert _homes(tmp_path) == [tmp_path / "study"]
    shutil.rmtree(tmp_path / "study" / "10")
    assert _homes(tmp_path) == [tmp_path / "study" / "preview.png"]


def test_every_file_that_is_named_as_a_picture_counts_also_one_that_cannot_be_opened(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "empty.PNG").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "scan.bmp").write_bytes(b"BM")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("text")
    assert [home.name for home in _homes(tmp_path)] == ["empty.PNG", "gone.png", "good.png", "scan.bmp", "text.jpg"]


def test_a_link_that_leads_nowhere_costs_no_nifti_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"")
    (tmp_path / "b.nii").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.zip").symlink_to(tmp_path / "c.zip")
    assert [home.name for home in _homes(tmp_path)] == ["a.nii", "b.nii", "c.zip"]


def test_links_to_studies_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    for number in (1, 2):
        _study(tmp_path / "store" / f"s{number}", number)
        (tmp_path / "batch").mkdir(exist_ok=True)
        (tmp_path / "batch" / f"link_{number}").symlink_to(tmp_path / "store" / f"s{number}")
        (tmp_path / "store" / f"s{number}" / "up").symlink_to(tmp_path)
        (tmp_path / "store" / f"s{number}" / "self").symlink_to(tmp_path / "store" / f"s{number}")
    (tmp_path / "store" / "s1" / "loop").symlink_to(tmp_path / "store" / "s1" / "loop")
    assert _homes(tmp_path / "batch") == [tmp_path / "batch" / "link_1", tmp_path / "batch" / "link_2"]
    with open_study(tmp_path / "batch" / "link_2") as study:
        assert len(study.series) == 2


def test_pipes_are_no_files(tmp_path: Path) -> None:
    _study(tmp_path / "study", 1)
    os.mkfifo(tmp_path / "study" / "pipe")
    with open_study(tmp_path) as study:
        assert study.set_aside == ()
    with pytest.raises(UnreadableInputError, match="is no file and no folder"):
        find_studies(tmp_path / "study" / "pipe")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    _study(tmp_path / "study", 1)
    (tmp_path / "study" / "gone.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreadableInputError, match=r"gone\.dcm is a link to what does not exist"), open_study(tmp_path):
        pass


@pytest.mark.parametrize("names", [("run.json", "submission.csv"), (".complete", "result.json")])
def test_results_are_no_input(tmp_path: Path, names: tuple[str, ...]) -> None:
    _study(tmp_path / "study", 1)
    (tmp_path / "study" / "results").mkdir()
    write_slice(tmp_path / "study" / "results" / "segmentation.dcm", StudyInstanceUID="9.1", Modality="SEG")
    for name in names:
        (tmp_path / "study" / "results" / name).touch()
    with open_study(tmp_path / "study") as study:
        assert study.set_aside == ()
    with pytest.raises(UnreadableInputError, match="holds results of monai_spine, no images"):
        find_studies(tmp_path / "study" / "results")


def test_series_folders_of_two_patients_side_by_side_are_no_batch(tmp_path: Path) -> None:
    for name, patient in (("s1", "A"), ("s2", "A"), ("s3", "B")):
        write_stack(tmp_path / name, [0, 4], uid=f"5.{name[1]}", PatientID=patient, StudyInstanceUID=f"4.{ord(patient)}")
    assert [found.path for found in find_studies(tmp_path)] == [tmp_path]
    with pytest.raises(StudyError, match="2 patients"), open_study(tmp_path):
        pass


def test_the_working_directory_is_an_input_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        _study(tmp_path / "batch" / f"s{number}", number)
    monkeypatch.chdir(tmp_path / "batch")
    assert _homes(Path()) == [Path("s1"), Path("s2")]
    monkeypatch.chdir(tmp_path / "batch" / "s2")
    assert [found.home.resolve() for found in find_studies(".")] == [tmp_path / "batch" / "s2"]
    assert _homes(Path("..")) == [Path("..") / "s1", Path("..") / "s2"]


def test_an_unreadable_folder_or_file_costs_no_other_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        _study(tmp_path / f"s{number}", number, series=1)
    scan, opened = os.scandir, Path.open

    def refused(path: Path) -> bool:
        return path == tmp_path / "s1" or (path.suffix == ".dcm" and "s2" in path.parts)

    def scandir(path: Path) -> object:
        if refused(path):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    def open_(self: Path, *arguments: object, **options: object) -> object:
        if refused(self):
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "open", open_)
    assert _homes(tmp_path) == [tmp_path / "s1", tmp_path / "s2", tmp_path / "s3"]
    for name in ("s1", "s2"):
        with pytest.raises(UnreadableInputError, match="cannot be opened: Permission denied"), open_study(tmp_path / name):
            pass
