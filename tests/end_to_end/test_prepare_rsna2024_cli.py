"""`monai-spine prepare rsna2024` as it is typed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_rsna2024 import edit_points, folder_of, write_data

BAD = "900000002"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=2)


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "data")


def test_it_prints_what_was_prepared_and_where_the_report_lies(run, data: Path, tmp_path: Path) -> None:
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"2 studies prepared, 0 set aside: {tmp_path / 'out' / 'report.html'}",
        str(tmp_path / "out" / "datalist.json"),
    ]
    assert result.stderr == ""


def test_splits_that_need_more_patients_are_named(run, data: Path, tmp_path: Path) -> None:
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "Not made, as there are fewer patients than parts: 70_15_15, 80_15_5, fold (of splits.csv)" in result.stderr
    assert not (tmp_path / "out" / "folds").exists()


def test_a_bad_file_ends_it_with_one_message_and_resume_goes_on(run, data: Path, tmp_path: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "3.dcm"
    content = path.read_bytes()
    path.write_bytes(b"")
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        f"Error: {path} cannot be read: not DICOM: it lacks the mark of the format. Restore the file from the data set."
    ]
    path.write_bytes(content)
    assert run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet").exit_code == 2
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet", "--resume")
    assert result.exit_code == 0
    assert result.stdout.startswith("2 studies prepared, 0 set aside")


def test_a_set_aside_study_is_named_and_the_exit_code_says_so(run, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder_of(data, BAD, "Axial T2"))
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet", "--keep-going")
    assert result.exit_code == 5
    assert result.stderr.startswith(f"Set aside: {BAD}: ")
    assert "1 studies prepared" not in result.stdout
    assert result.stdout.startswith("1 study prepared, 1 set aside: ")


def test_a_study_without_any_point_is_counted_apart_by_the_command_and_by_the_report(run, data: Path, tmp_path: Path) -> None:
    edit_points(data, lambda row: None if row["study_id"] == BAD else row)
    result = run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 study prepared, 1 without any point (in no data list), 0 set aside: ")
    report = (tmp_path / "out" / "report.html").read_text()
    assert "1 study prepared, 1 without any point</h1>" in report
    assert "<b>2</b> studies with images, 1 of them without any point and in no data list" in report


def test_no_corrections_is_said_in_the_report(run, data: Path, tmp_path: Path) -> None:
    assert run("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet", "--no-corrections").exit_code == 0
    assert "left as they are in the tables (--no-corrections)" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_that_is_written_again_is_named_with_the_reason(run, data: Path, tmp_path: Path) -> None:
    arguments = ("prepare", "rsna2024", data, "-o", tmp_path / "out", "--quiet")
    assert run(*arguments).exit_code == 0
    os.utime(folder_of(data, BAD, "Axial T2") / "3.dcm", (0, 0))
    result = run(*arguments, "--resume")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"Written anew: {BAD}: its files are not those that it was made from (names, sizes or times differ)"
    ]
    assert run(*arguments, "--resume").stderr == ""
