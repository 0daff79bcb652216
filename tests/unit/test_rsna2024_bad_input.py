"""Tables and files that do not fit: one message with file, row and remedy; with keep_going the study alone is set aside."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tiny_rsna2024 import Row, edit_header, edit_points, edit_series, edit_train, folder_of, series_of, write_data

from monai_spine.errors import SpineError, TableError
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024_prepare import PrepareOptions, prepare
from monai_spine.studies.rsna2024_tables import read_tables

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


def contradicting_study(data: Path) -> None:
    line = (data / "train.csv").read_text().splitlines()[1]
    add_line(data / "train.csv", ",".join([line.split(",")[0], *["Severe"] * 25]))


def contradicting_point(data: Path) -> None:
    path = data / "train_label_coordinates.csv"
    add_line(path, ",".join([*path.read_text().splitlines()[1].split(",")[:-2], "1.5", "2.5"]))


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


def file_named_in_capitals(data: Path) -> None:
    folder = folder_of(data, BAD, "Axial T2")
    (folder / "2.dcm").rename(folder / "2.DCM")


def file_there_twice(data: Path) -> None:
    folder = folder_of(data, BAD, "Axial T2")
    shutil.copy(folder / "2.dcm", folder / "02.dcm")


def empty_file(data: Path) -> None:
    (folder_of(data, BAD, "Axial T2") / "2.dcm").write_bytes(b"")


def header_cut_off(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "2.dcm"
    path.write_bytes(path.read_bytes()[:900])


def link_to_nowhere(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "2.dcm"
    path.unlink()
    path.symlink_to("nowhere.dcm")


def pipe(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "2.dcm"
    path.unlink()
    os.mkfifo(path)


def folder_for_file(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "2.dcm"
    path.unlink()
    path.mkdir()


def point_that_is_no_number(data: Path) -> None:
    edit_points(data, of_bad(x="nan"))


def point_below_zero(data: Path) -> None:
    edit_points(data, of_bad(y="-0.6"))


def instance_as_float(data: Path) -> None:
    edit_points(data, of_bad(instance_number="3.0"))


def empty_series(data: Path) -> None:
    folder = folder_of(data, BAD, "Axial T2")
    shutil.rmtree(folder)
    folder.mkdir()


def uids_of_another_series(data: Path) -> None:
    """The T1 series under the SOPInstanceUIDs of the T2 series."""
    t1, t2 = (sorted(folder_of(data, BAD, name).glob("*.dcm")) for name in ("Sagittal T1", "Sagittal T2/STIR"))
    for path, other in zip(t1, t2, strict=False):
        edit_header(path, SOPInstanceUID=pydicom.dcmread(other).SOPInstanceUID)


def one_uid_for_a_series(data: Path) -> None:
    for path in folder_of(data, BAD, "Axial T2").glob("*.dcm"):
        edit_header(path, SOPInstanceUID="1.2.3")


def pixel_that_is_nan(data: Path) -> None:
    path = folder_of(data, BAD, "Axial T2") / "3.dcm"
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.astype(np.float32)
    pixels[20, 30] = np.nan
    del dataset.PixelData
    dataset.BitsAllocated, dataset.FloatPixelData = 32, pixels.tobytes()
    dataset.save_as(path)


def slope_beyond_all_numbers(data: Path) -> None:
    edit_header(folder_of(data, BAD, "Axial T2") / "3.dcm", RescaleSlope="1e38", RescaleIntercept="0")


def points_without_a_study(data: Path) -> None:
    edit_points(data, of_bad(study_id=""))


def point_of_an_overflowed_study(data: Path) -> None:
    edit_points(data, lambda row: {**row, "study_id": "-908480123"} if (row["study_id"], row["level"]) == (BAD, "L4/L5") else row)


CASES = {
    unknown_label: rf"train\.csv, line 2: {CANAL} is 'severe'\. Choose from: Normal/Mild, Moderate, Severe, nothing",
    unknown_description: r"train_series_descriptions\.csv, line 2: series_description is 'Coronal T2' .*Choose from: Sagittal T1",
    duplicate_study: rf"train\.csv, line 4: a second row for study_id '{BAD}', the same as line 2\. Keep one row",
    contradicting_study: rf"train\.csv, line 4: a second row for study_id '{BAD}', which contradicts line 2\. Keep one row",
    duplicate_point: rf"coordinates\.csv, line 52: a second row for study_id '{BAD}', condition .*, the same as line 2\. Keep",
    contradicting_point: r"coordinates\.csv, line 52: a second row for .*, which contradicts line 2\. Keep one row",
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
    file_without_number: r"three\.dcm is not named as <instance number>\.dcm\. Rename it",
    file_named_in_capitals: r"2\.DCM is not named as <instance number>\.dcm\. Rename it",
    file_there_twice: r"02\.dcm is not named as <instance number>\.dcm\. Rename it, or move it away",
    empty_file: r"2\.dcm cannot be read: not DICOM: .*Restore the file from the data set",
    header_cut_off: r"2\.dcm cannot be read: .*Restore the file from the data set",
    link_to_nowhere: r"2\.dcm leads nowhere\. Restore the file from the data set",
    pipe: r"2\.dcm is no file\. Restore the file from the data set",
    folder_for_file: r"2\.dcm is no file\. Restore the file from the data set",
    point_that_is_no_number: r"coordinates\.csv, line 2: x is 'nan', which is not finite .*Replace what is infinite or NaN",
    point_below_zero: r"coordinates\.csv, line 2: x .*, y -0\.6 lies outside of .*\.dcm, which has 64 × 64 pixels\. Correct",
    instance_as_float: r"coordinates\.csv, line 2: instance_number '3\.0' is not a whole number .*as integers",
    uids_of_another_series: r"\d+/\d+\.dcm has the SOPInstanceUID of .*/\d+\.dcm: their slices cannot be told apart\. Restore",
    one_uid_for_a_series: r"2\.dcm has the SOPInstanceUID of .*/1\.dcm: their slices cannot be told apart\. Restore",
    pixel_that_is_nan: r"3\.dcm has pixels that are NaN or infinite, .*Restore the file from the data set",
    slope_beyond_all_numbers: r"3\.dcm has pixels that are NaN or infinite, .* by RescaleSlope and RescaleIntercept",
    points_without_a_study: r"coordinates\.csv, line 2: study_id '' is not a whole number .*24 more",
    point_of_an_overflowed_study: r"coordinates\.csv, line \d+: study_id '-908480123' is not a whole number .*4 more",
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
    (one,) = prepared.set_aside
    assert one.study == BAD
    assert re.search(CASES[spoil].replace(" .*", ".*"), one.reason)
    assert BAD in (tmp_path / "out" / "set_aside.csv").read_text()
    assert BAD in prepared.report.read_text()


def test_rows_that_nothing_ties_to_a_study_are_named_one_by_one(data: Path) -> None:
    axial = series_of(data, BAD, "Axial T2")
    edit_points(data, lambda row: {**row, "study_id": "", "series_id": ""} if row["series_id"] == axial else row)
    tables = read_tables(data, keep_going=True)
    lines = (data / "train_label_coordinates.csv").read_text().splitlines()
    empty = [number for number, line in enumerate(lines, start=1) if line.startswith(",")]
    assert len(empty) == 10
    assert [one.study for one in tables.set_aside] == [f"train_label_coordinates.csv, line {line}" for line in empty]
    assert all(one.reason.endswith("give it in every row.") for one in tables.set_aside)


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


def test_a_file_that_may_not_be_read_is_named_with_its_remedy(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, opened = folder_of(data, BAD, "Axial T2") / "2.dcm", Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpineError, match=r"2\.dcm cannot be opened \(Permission denied\)\. Check its permissions"):
        prepare(data, tmp_path / "out")
    prepared = prepare(data, tmp_path / "out", PrepareOptions(keep_going=True, resume=True))
    assert [one.study for one in prepared.set_aside] == [BAD]


@pytest.mark.parametrize("name", ["train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv"])
def test_a_table_with_other_marks_or_line_ends_is_read_the_same_or_refused(data: Path, name: str) -> None:
    wanted, path = read_tables(data).studies, data / name
    text = path.read_bytes()
    for same in (b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n")):
        path.write_bytes(same)
        assert read_tables(data).studies == wanted
    for other, complaint in (
        (text.replace(b",", b";"), r"line 1: its cells are parted by ';', not by commas\. Export the table again as CSV"),
        (text.replace(b",", b"\t"), r"line 1: its cells are parted by '\\t', not by commas"),
        (text.replace(b"\n9", b"\n\x009", 1), r"line 2: it holds a zero byte, .*damaged\. Restore it|is no CSV file in UTF-8"),
        (text.replace(b"\n9", b"\n\xe99", 2), r"is no CSV file in UTF-8 \(line 2: .*0xe9.*\)\. Export the table again as CSV"),
        (text.replace(b"\n9", b'\n"9', 1), r"is no CSV file in UTF-8 \(line 2: unexpected end of data\)\. Export"),
        (text.replace(b"\n9", b"\n" + b"9" * 200_000, 1), r"is no CSV file in UTF-8 \(line 2: field larger than .*\)\. Export"),
        (text.decode().encode("utf-16"), r"is no CSV file in UTF-8 .*Export the table again as CSV"),
        (text[:-25], r"line \d+: .*(cells under a header|Choose from)"),
    ):
        path.write_bytes(other)
        with pytest.raises(TableError, match=rf"{re.escape(name)}.*{complaint}"):
            read_tables(data)


def test_tables_without_a_row_are_refused_before_an_image_is_read(data: Path, tmp_path: Path) -> None:
    for name, complaint in (
        ("train_label_coordinates.csv", r"coordinates\.csv has no point of any study"),
        ("train_series_descriptions.csv", rf"descriptions\.csv has no series of study {BAD}"),
        ("train.csv", r"train\.csv has a header and no study"),
    ):
        path = data / name
        path.write_text(path.read_text().splitlines()[0] + "\n")
        with pytest.raises(TableError, match=complaint):
            prepare(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
