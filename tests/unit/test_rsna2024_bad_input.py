"""Tables and files that do not fit: one message with file, row and remedy; with keep_going the study alone is set aside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_rsna2024 import Row, edit_points, edit_series, edit_train, folder_of, series_of, write_data

from monai_spine.errors import SpineError, TableError
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024_prepare import PrepareOptions, prepare

BAD, GOOD = "900000001", "900000002"
CANAL = "spinal_canal_stenosis_l4_l5"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=2)


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "data")


def of_bad(**changes: str) -> Callable[[Row], Row]:
    return lambda row: {**row, **changes} if row["study_id"] == BAD else row


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


def unknown_label(data: Path) -> None:
    edit_train(data, of_bad(**{CANAL: "severe"}))


def unknown_description(data: Path) -> None:
    edit_series(data, of_bad(series_description="Coronal T2"))


def duplicate_study(data: Path) -> None:
    add_line(data / "train.csv", (data / "train.csv").read_text().splitlines()[1])


def duplicate_point(data: Path) -> None:
    path = data / "train_label_coordinates.csv"
    add_line(path, path.read_text().splitlines()[1])


def ids_as_floats(data: Path) -> None:
    edit_train(data, of_bad(study_id=f"{BAD}.0"))


def point_outside(data: Path) -> None:
    edit_points(data, lambda row: {**row, "x": "64.2"} if (row["study_id"], row["level"]) == (BAD, "L4/L5") else row)


def point_on_no_file(data: Path) -> None:
    edit_points(data, of_bad(instance_number="77"))


def point_on_no_series(data: Path) -> None:
    edit_points(data, of_bad(series_id="12345"))


def series_not_on_disk(data: Path) -> None:
    shutil.rmtree(folder_of(data, BAD, "Axial T2"))


def series_not_in_table(data: Path) -> None:
    axial = series_of(data, BAD, "Axial T2")
    edit_series(data, lambda row: None if row["series_id"] == axial else row)
    edit_points(data, lambda row: None if row["series_id"] == axial else row)


def study_without_series(data: Path) -> None:
    edit_series(data, lambda row: None if row["study_id"] == BAD else row)


def study_not_on_disk(data: Path) -> None:
    shutil.rmtree(data / "train_images" / BAD)


def study_not_in_train(data: Path) -> None:
    edit_train(data, lambda row: None if row["study_id"] == BAD else row)


def file_of_text(data: Path) -> None:
    (folder_of(data, BAD, "Axial T2") / "3.dcm").write_text("To whom it may concern")


def file_cut_off(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "3.dcm"
    path.write_bytes(path.read_bytes()[:-500])


def file_without_number(data: Path) -> None:
    folder = folder_of(data, BAD, "Axial T2")
    (folder / "3.dcm").rename(folder / "three.dcm")


def empty_series(data: Path) -> None:
    folder = folder_of(data, BAD, "Axial T2")
    shutil.rmtree(folder)
    folder.mkdir()


CASES = {
    unknown_label: rf"train\.csv, line 2: {CANAL} is 'severe'\. Choose from: Normal/Mild, Moderate, Severe, nothing",
    unknown_description: r"train_series_descriptions\.csv, line 2: series_description is 'Coronal T2' .*Choose from: Sagittal T1",
    duplicate_study: rf"train\.csv, line 4: a second row for study_id '{BAD}'\. Keep one row",
    duplicate_point: rf"coordinates\.csv, line 52: a second row for study_id '{BAD}', condition .* Keep one row",
    ids_as_floats: rf"train\.csv, line 2: study_id '{BAD}\.0' is not a whole number\. .*exported again as integers",
    point_outside: r"coordinates\.csv, line \d+: x 64\.2, y .* lies outside of .*\d+\.dcm, which has 64 × 64 pixels\. Correct",
    point_on_no_file: r"coordinates\.csv, line 2: .*77\.dcm is not there\. Restore the file, or correct instance_number",
    point_on_no_series: rf"coordinates\.csv, line 2: series_id 12345 is no series of study {BAD} in .*Add its row there",
    series_not_on_disk: r"train_images.*\d+ is not there, though .*descriptions\.csv names it\. Restore the series, or remove",
    series_not_in_table: r"train_images.*\d+ is no series of .*descriptions\.csv\. Add its row there, or move the folder away",
    study_without_series: rf"descriptions\.csv has no series of study {BAD}, which .*train\.csv labels\. Add its rows",
    study_not_on_disk: rf"{BAD} is not there, though .* names study {BAD}\. Restore it, or remove its rows",
    study_not_in_train: rf"coordinates\.csv, line 2: study_id {BAD} is not in .*train\.csv\. Add its labels there",
    file_of_text: r"3\.dcm cannot be read: not DICOM.*Restore the file from the data set",
    file_cut_off: r"The pixels of .*3\.dcm cannot be read .*cut off",
    file_without_number: r"three\.dcm is not named by an instance number\. Rename it",
    empty_series: r"holds no \.dcm file\. Restore the series from the data set",
}


@pytest.mark.parametrize("spoil", CASES)
def test_bad_input_is_refused_with_its_place_and_a_remedy(data: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(data)
    with pytest.raises(SpineError, match=CASES[spoil]):
        prepare(data, tmp_path / "out")
    assert not (tmp_path / "out" / ".complete").exists()
    assert not list((tmp_path / "out").glob("volumes/.*"))


@pytest.mark.parametrize("spoil", CASES)
def test_the_bad_study_alone_is_set_aside_on_request(data: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(data)
    prepared = prepare(data, tmp_path / "out", PrepareOptions(keep_going=True))
    assert [case.case for case in read_datalist(prepared.path).cases] == [GOOD]
    said = {
        one.study.removesuffix(".0"): one.reason for one in prepared.set_aside if not one.reason.endswith("move the folder away.")
    }
    said |= {one.study: one.reason for one in prepared.set_aside if spoil is series_not_in_table}
    assert set(said) == {BAD}
    assert re.search(CASES[spoil].replace(" .*", ".*"), next(iter(one.reason for one in prepared.set_aside)))
    assert BAD in (tmp_path / "out" / "set_aside.csv").read_text()
    assert BAD in prepared.report.read_text()


def test_a_missing_column_is_refused_whatever_is_asked(data: Path, tmp_path: Path) -> None:
    path = data / "train_label_coordinates.csv"
    path.write_text(path.read_text().replace("instance_number", "instance", 1))
    with pytest.raises(TableError, match=r"coordinates\.csv has no column instance_number: .*rename its columns"):
        prepare(data, tmp_path / "out", PrepareOptions(keep_going=True))


def test_a_missing_table_and_a_missing_folder_of_images_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "train_images")
    with pytest.raises(TableError, match=r"train_images is not there\. DATA is the folder that holds train\.csv"):
        prepare(data, tmp_path / "out", PrepareOptions(keep_going=True))
    (data / "train.csv").unlink()
    with pytest.raises(TableError, match=r"train\.csv cannot be read"):
        prepare(data, tmp_path / "out", PrepareOptions(keep_going=True))


def test_nothing_left_to_prepare_is_refused(data: Path, tmp_path: Path) -> None:
    edit_train(data, lambda row: {**row, CANAL: "?"})
    with pytest.raises(TableError, match=r"leaves no study to prepare\. The first: .*line 2"):
        prepare(data, tmp_path / "out", PrepareOptions(keep_going=True))
