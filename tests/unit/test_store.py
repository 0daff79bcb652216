from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine.errors import OutputError
from monai_spine.store import ExistingResults, OutputFolderError, ResultsFolder, study_names, write_text


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


def test_a_study_cannot_take_the_name_of_a_table(tmp_path):
    folder = tmp_path / "run.json"
    folder.mkdir()
    assert study_names([folder]) == ("run.json_2",)


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_text(tmp_path / "run.json", "{}")
    assert list(tmp_path.iterdir()) == []
