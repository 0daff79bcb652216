from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine.store import ExistingResults, OutputFolderError, ResultsFolder, study_names


def _finished(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / ".complete").touch()


def test_a_new_folder_is_accepted_and_not_made(tmp_path):
    ResultsFolder(tmp_path / "new").check()
    assert not (tmp_path / "new").exists()


def test_results_that_are_there_are_refused_without_leave(tmp_path):
    _finished(tmp_path, "study")
    with pytest.raises(OutputFolderError, match=r"is not empty \(it holds 'study'\).*--resume.*--overwrite"):
        ResultsFolder(tmp_path).check()


@pytest.mark.parametrize("existing", [ExistingResults.RESUME, ExistingResults.OVERWRITE])
def test_what_monai_spine_did_not_write_is_never_replaced(tmp_path, existing):
    _finished(tmp_path, "study")
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(OutputFolderError, match=r"'thesis.doc', which monai_spine did not write"):
        ResultsFolder(tmp_path, existing).check()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "figures/drawing.svg", "figures.png"])
def test_what_was_added_to_the_results_of_a_study_is_never_replaced(tmp_path, name):
    _finished(tmp_path, "study")
    (tmp_path / "study" / "figures").mkdir()
    for known in ("result.json", ".DS_Store", "figures/sagittal.png"):
        (tmp_path / "study" / known).touch()
    ResultsFolder(tmp_path, ExistingResults.OVERWRITE).check()
    (tmp_path / "study" / name).touch()
    with pytest.raises(OutputFolderError, match=rf"'study/{name}', which monai_spine did not write"):
        ResultsFolder(tmp_path, ExistingResults.OVERWRITE).check()
    ResultsFolder(tmp_path, ExistingResults.RESUME).check()


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OutputFolderError, match=r"file is a file"):
        ResultsFolder(tmp_path / "file" / "new" / "out").check()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(OutputFolderError, match="you may not write to"):
        ResultsFolder(tmp_path / "new" / "out").check()


def test_folders_that_nothing_came_into_are_removed_and_others_are_not(tmp_path):
    with ResultsFolder(tmp_path / "new" / "out").made_on_demand():
        assert (tmp_path / "new" / "out").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with ResultsFolder(tmp_path / "mine" / "out").made_on_demand():
        (tmp_path / "mine" / "out" / "run.json").touch()
    with ResultsFolder(tmp_path / "mine").made_on_demand():
        pass
    assert (tmp_path / "mine" / "out" / "run.json").is_file()


def test_a_folder_that_cannot_be_made_is_refused_before_any_work():
    place = Path("/proc/monai_spine_results")
    if not place.parent.is_dir():
        pytest.skip("this system has no /proc, in which nobody may make a folder")
    refused = pytest.raises(OutputFolderError, match=r"cannot be made \(No such file or directory\)\. Choose another folder")
    with refused, ResultsFolder(place).made_on_demand():
        pytest.fail("nothing is worth doing that cannot be kept")


def test_a_file_is_no_folder_for_results(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputFolderError, match="is a file"):
        ResultsFolder(tmp_path / "out").check()


def test_only_finished_studies_outside_the_run_are_removed(tmp_path):
    _finished(tmp_path, "kept")
    _finished(tmp_path, "old")
    (tmp_path / "foreign").mkdir()
    ResultsFolder(tmp_path).keep_only(["kept"])
    assert sorted(child.name for child in tmp_path.iterdir()) == ["foreign", "kept"]


def test_names_come_from_the_inputs_and_are_never_double(tmp_path):
    folder = tmp_path / "a" / "spine"
    folder.mkdir(parents=True)
    files = [tmp_path / "spine.nii.gz", tmp_path / "b c.zip", tmp_path / "1.2.840.nii"]
    for file in files:
        file.touch()
    assert study_names([folder, *files]) == ("spine", "spine_2", "b_c", "1.2.840")


def test_names_keep_the_letters_of_every_language_and_no_two_differ_by_case_alone():
    given = ["Müller, Ü", "腰椎", "a", "A"]
    assert study_names([Path("x") / name for name in given]) == ("Müller_Ü", "腰椎", "a", "A_2")
    assert study_names([Path("x") / "__"]) == ("study",)
    assert study_names([Path("x") / ("椎" * 84)] * 2) == ("椎" * 66, "椎" * 66 + "_2")
    assert study_names([Path("x") / "M\udcfcller"]) == ("M_ller",)


def test_a_study_cannot_take_the_name_of_a_table(tmp_path):
    folder = tmp_path / "run.json"
    folder.mkdir()
    assert study_names([folder]) == ("run.json_2",)
