"""The oddities of the real data, each made on simulated studies, and the right outcome of preparing them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from tiny_rsna2024 import Row, edit_header, edit_points, edit_series, edit_train, folder_of, series_of, write_data

from monai_spine.anatomy import LEVELS, Severity, Target
from monai_spine.studies.instance_table import locate_voxel, read_instances
from monai_spine.studies.prepared import PreparedCase, read_datalist
from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_prepare import Prepared, PrepareOptions, prepare

STUDY = "900000001"
LEFT, RIGHT = "Left Subarticular Stenosis", "Right Subarticular Stenosis"
CANAL = "Spinal Canal Stenosis"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=1)


@pytest.fixture(scope="module")
def true(source: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCase:
    return the_case(prepare(source, tmp_path_factory.mktemp("prepared") / "out"))


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[PreparedCase, list[Quirk]]]]:
    """Prepare the data; the case, and the quirks that undisturbed data do not have."""

    def invoke(*, corrections: bool = True) -> tuple[PreparedCase, list[Quirk]]:
        prepared = prepare(data, tmp_path / "out", PrepareOptions(corrections=corrections, resume=True))
        return the_case(prepared), [quirk for quirk in prepared.quirks if quirk.kind != "several_blocks"]

    return invoke


def the_case(prepared: Prepared) -> PreparedCase:
    (case,) = read_datalist(prepared.path).cases
    return case


def kinds(quirks: list[Quirk]) -> list[str]:
    return [quirk.kind for quirk in quirks]


def target(condition: str, level: str) -> Target:
    return Target.parse(f"{condition} {level}".lower().replace(" ", "_").replace("/", "_"))


def rename(data: Path, names: dict[tuple[str, str], tuple[str, str]]) -> None:
    """Change condition and level of points, as if they had been mixed up."""

    def edit(row: Row) -> Row:
        condition, level = names.get((row["condition"], row["level"]), (row["condition"], row["level"]))
        return {**row, "condition": condition, "level": level}

    edit_points(data, edit)


def test_undisturbed_data_have_no_quirk_but_blocks(run: Callable[..., tuple[PreparedCase, list[Quirk]]]) -> None:
    assert run()[1] == []


def test_swapped_sides_are_named_by_place_with_their_grades(data: Path, true: PreparedCase, run) -> None:
    rename(data, {(LEFT, "L4/L5"): (RIGHT, "L4/L5"), (RIGHT, "L4/L5"): (LEFT, "L4/L5")})
    edit_train(
        data, lambda row: {**row, "left_subarticular_stenosis_l4_l5": "Severe", "right_subarticular_stenosis_l4_l5": "Moderate"}
    )
    case, (quirk,) = run()
    left, right = target(LEFT, "L4/L5"), target(RIGHT, "L4/L5")
    assert case.targets[left].point_ras_mm == true.targets[left].point_ras_mm
    assert case.targets[right].point_ras_mm == true.targets[right].point_ras_mm
    assert case.targets[left].severity is Severity.MODERATE, "the reader who wrote 'right' saw this place"
    assert case.targets[right].severity is Severity.SEVERE
    assert quirk.kind == "sides_swapped"
    assert quirk.done.startswith("named by place, each grade with its point")


def test_without_corrections_swapped_sides_are_found_and_left(data: Path, true: PreparedCase, run) -> None:
    rename(data, {(LEFT, "L4/L5"): (RIGHT, "L4/L5"), (RIGHT, "L4/L5"): (LEFT, "L4/L5")})
    case, (quirk,) = run(corrections=False)
    assert case.targets[target(LEFT, "L4/L5")].point_ras_mm == true.targets[target(RIGHT, "L4/L5")].point_ras_mm
    assert (quirk.kind, quirk.done) == ("sides_swapped", "nothing, as corrections are turned off")


@pytest.mark.parametrize(("wrong", "kept"), [("Left", "Right"), ("Right", "Left")])
def test_of_two_sides_on_one_slice_the_one_beyond_the_middle_is_set_aside(data: Path, run, wrong: str, kept: str) -> None:
    condition = "Neural Foraminal Narrowing"
    numbers: dict[str, str] = {}

    def note(row: Row) -> Row:
        if row["level"] == "L4/L5" and condition in row["condition"]:
            numbers[row["condition"].split()[0]] = row["instance_number"]
        return row

    edit_points(data, note)
    name = f"{wrong} {condition}"
    edit_points(
        data,
        lambda row: {**row, "instance_number": numbers[kept]} if (row["condition"], row["level"]) == (name, "L4/L5") else row,
    )
    case, (quirk,) = run()
    assert target(name, "L4/L5") not in case.targets
    assert target(f"{kept} {condition}", "L4/L5") in case.targets
    assert (quirk.kind, quirk.targets) == ("sides_alike", (target(name, "L4/L5").slug,))


def test_exchanged_levels_are_named_by_place(data: Path, true: PreparedCase, run) -> None:
    rename(data, {(CANAL, "L3/L4"): (CANAL, "L4/L5"), (CANAL, "L4/L5"): (CANAL, "L3/L4")})
    case, (quirk,) = run()
    assert case.canals == true.canals
    assert quirk.kind == "levels_out_of_order"


def test_a_condition_named_one_level_off_is_moved_and_what_is_left_over_set_aside(data: Path, true: PreparedCase, run) -> None:
    up = {level.label: upper.label for upper, level in pairwise(LEVELS)}
    edit_points(data, lambda row: {**row, "level": "?"} if (row["condition"], row["level"]) == (CANAL, "L1/L2") else row)
    rename(data, {(CANAL, lower): (CANAL, upper) for lower, upper in up.items()})
    edit_points(data, lambda row: None if row["level"] == "?" else row)
    case, quirks = run()
    assert case.canals == {level: point for level, point in true.canals.items() if level is not LEVELS[0]}
    assert kinds(quirks) == ["label_without_point", "levels_off_by_one"]
    assert "one level lower than its name" in quirks[1].seen


def test_a_point_in_the_corner_is_set_aside(data: Path, true: PreparedCase, run) -> None:
    edit_points(
        data, lambda row: {**row, "x": "5.0", "y": "5.0"} if (row["condition"], row["level"]) == (CANAL, "L1/L2") else row
    )
    case, (quirk,) = run()
    assert quirk.kind == "corner_point"
    assert set(case.canals) == set(true.canals) - {LEVELS[0]}


def test_canal_points_on_a_t1_series_count_by_their_place(data: Path, tmp_path: Path, true: PreparedCase, run) -> None:
    prepare(data, tmp_path / "out")
    rows = read_instances(tmp_path / "out" / "volumes" / STUDY)
    t1 = [row for row in rows if row.series_id == int(series_of(data, STUDY, "Sagittal T1"))]

    def move(row: Row) -> Row:
        if row["condition"] != CANAL:
            return row
        point = true.canals[target(CANAL, row["level"]).level]
        slice_ = min(t1, key=lambda one: abs(one.pixel_of(point)[2]))
        x, y, _ = slice_.pixel_of(point)
        return {
            **row,
            "series_id": str(slice_.series_id),
            "instance_number": str(slice_.instance_number),
            "x": str(x),
            "y": str(y),
        }

    edit_points(data, move)
    case, (quirk,) = run()
    assert (quirk.kind, len(quirk.targets)) == ("other_series_kind", 5)
    for level, point in true.canals.items():
        assert case.canals[level][1:] == pytest.approx(point[1:], abs=0.5)
        assert case.canals[level][0] == pytest.approx(point[0], abs=3)


def renumber(data: Path, description: str, number_of: Callable[[int], int]) -> None:
    folder, series = folder_of(data, STUDY, description), series_of(data, STUDY, description)
    files = list(folder.glob("*.dcm"))
    for file in files:
        file.rename(folder / f"{number_of(int(file.stem))}.new")
    for file in folder.glob("*.new"):
        file.rename(file.with_suffix(".dcm"))
    edit_points(
        data,
        lambda row: (
            {**row, "instance_number": str(number_of(int(row["instance_number"])))} if row["series_id"] == series else row
        ),
    )


def test_numbers_beyond_the_count_change_nothing(data: Path, true: PreparedCase, run) -> None:
    renumber(data, "Axial T2", lambda number: 5030 + number)
    case, (quirk,) = run()
    assert case == true
    assert quirk.kind == "numbers_beyond_count"


def test_numbers_that_do_not_follow_the_position_change_nothing(data: Path, true: PreparedCase, run) -> None:
    count = len(list(folder_of(data, STUDY, "Sagittal T1").glob("*.dcm")))
    renumber(
        data, "Sagittal T1", lambda number: (number * 2 - 1) % count + 1 if count % 2 else (number * 3 - 1) % (count + 1) + 1
    )
    case, quirks = run()
    assert case == true
    assert "number_not_position" in kinds(quirks)


def double(path: Path) -> None:
    """Store a slice with four pixels for each one, over the same field."""
    dataset = pydicom.dcmread(path)
    pixels = np.kron(dataset.pixel_array, np.ones((2, 2), np.uint16))
    dataset.Rows, dataset.Columns = pixels.shape
    down, along = (float(value) / 2 for value in dataset.PixelSpacing)
    row, column = np.reshape(np.asarray(dataset.ImageOrientationPatient, dtype=float), (2, 3))
    corner = np.asarray(dataset.ImagePositionPatient, dtype=float) - row * along / 2 - column * down / 2
    dataset.PixelSpacing, dataset.ImagePositionPatient = [down, along], [round(value, 6) for value in corner.tolist()]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)


def test_slices_of_another_size_join_their_block_and_lead_back_to_their_own_pixels(data: Path, tmp_path: Path, run) -> None:
    folder = folder_of(data, STUDY, "Axial T2")
    double(folder / "2.dcm")
    _, quirks = run()
    assert "several_sizes" in kinds(quirks)
    rows = read_instances(tmp_path / "out" / "volumes" / STUDY)
    (odd,) = [row for row in rows if (row.series_id, row.instance_number) == (int(folder.name), 2)]
    image = nib.load(tmp_path / "out" / "volumes" / STUDY / odd.volume)
    row, x, y = locate_voxel(rows, odd.volume, np.asarray(image.affine), (20, 30, odd.slice_index))
    assert row == odd
    assert (x, y) == pytest.approx((40.5, 60.5), abs=0.01)
    assert image.get_fdata()[20, 30, odd.slice_index] == pydicom.dcmread(folder / "2.dcm").pixel_array[60, 40]


def test_blocks_of_one_patient_in_two_series_are_all_there(data: Path, true: PreparedCase, run) -> None:
    folder, new = folder_of(data, STUDY, "Axial T2"), "4290000001"
    (folder.parent / new).mkdir()
    moved = [file for file in folder.glob("*.dcm") if int(file.stem) > 10]
    for file in moved:
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID[:-2]}.7"
        dataset.save_as(folder.parent / new / file.name)
        file.unlink()
    path = data / "train_series_descriptions.csv"
    path.write_text(f"{path.read_text()}{STUDY},{new},Axial T2\n")
    gone = {file.stem for file in moved}
    edit_points(
        data,
        lambda row: (
            {**row, "series_id": new} if (row["series_id"], row["instance_number"] in gone) == (folder.name, True) else row
        ),
    )
    case, quirks = run()
    assert all(replace(found, image=None) == replace(true.targets[target], image=None) for target, found in case.targets.items())
    assert case.targets.keys() == true.targets.keys()
    assert len({volume.series_instance_uid for volume in case.volumes if volume.role == "axial_t2"}) == 2
    assert "several_series" in kinds(quirks)


def test_slices_that_lie_in_another_plane_are_flagged_and_the_table_followed(data: Path, run) -> None:
    t1, t2 = (series_of(data, STUDY, name) for name in ("Sagittal T1", "Axial T2"))
    names = {t1: "Axial T2", t2: "Sagittal T1"}
    edit_series(data, lambda row: {**row, "series_description": names.get(row["series_id"], row["series_description"])})
    case, quirks = run()
    planes = [quirk for quirk in quirks if quirk.kind == "other_plane"]
    assert {quirk.series_id for quirk in planes} == {int(t1), int(t2)}
    assert any("lie sagittal" in quirk.seen for quirk in planes)
    assert case.volumes[0].role == "axial_t2"


def test_a_series_that_forms_no_volume_is_left_out_alone(data: Path, true: PreparedCase, run) -> None:
    for file in folder_of(data, STUDY, "Sagittal T1").glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        first = pydicom.dcmread(folder_of(data, STUDY, "Sagittal T1") / "1.dcm")
        dataset.ImagePositionPatient = first.ImagePositionPatient
        dataset.save_as(file)
    case, quirks = run()
    assert {volume.role for volume in case.volumes} == {"sagittal_t2", "axial_t2"}
    assert "series_left_out" in kinds(quirks)
    assert case.canals == true.canals


@pytest.mark.parametrize(("frame", "found"), [("1.2.3.4", ["several_frames"]), (None, ["levels_off_by_one"])])
def test_points_are_compared_within_one_frame_of_reference_only(data: Path, run, frame: str | None, found: list[str]) -> None:
    for file in folder_of(data, STUDY, "Sagittal T1").glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = frame or dataset.FrameOfReferenceUID
        right, back, up = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [right, back, up - 40]
        dataset.save_as(file)
    assert kinds(run()[1]) == found


def test_two_series_of_a_kind_are_both_written(data: Path, true: PreparedCase, run) -> None:
    folder, new = folder_of(data, STUDY, "Sagittal T1"), "4290000001"
    shutil.copytree(folder, folder.parent / new)
    for file in (folder.parent / new).glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID[:-2]}.7"
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID[:-2]}.7"
        dataset.save_as(file)
    path = data / "train_series_descriptions.csv"
    path.write_text(f"{path.read_text()}{STUDY},{new},Sagittal T1\n")
    case, quirks = run()
    assert [volume.role for volume in case.volumes].count("sagittal_t1") == 2
    assert case.targets == true.targets
    assert kinds(quirks) == ["several_series"]


def test_a_series_that_shows_nothing_is_flagged(data: Path, run) -> None:
    folder = folder_of(data, STUDY, "Sagittal T1")
    for path in folder.glob("*.dcm"):
        edit_header(path, PixelData=bytes(len(pydicom.dcmread(path).PixelData)))
    _, (quirk,) = run()
    assert (quirk.kind, quirk.series_id) == ("image_flag", int(folder.name))
    assert quirk.seen == "every voxel is 0: the volume shows nothing"


def test_series_whose_folders_are_exchanged_are_flagged_by_their_headers(data: Path, run) -> None:
    t1, t2 = (folder_of(data, STUDY, name) for name in ("Sagittal T1", "Sagittal T2/STIR"))
    names = {t1.name: "Sagittal T2/STIR", t2.name: "Sagittal T1"}
    edit_series(data, lambda row: {**row, "series_description": names.get(row["series_id"], row["series_description"])})
    found = {quirk.series_id: quirk for quirk in run()[1] if quirk.kind == "other_headers"}
    assert set(found) == {int(t1.name), int(t2.name)}
    assert found[int(t1.name)].seen.startswith("Sagittal T2/STIR by the table, but Sagittal T1 by its headers (sagittal")


def test_a_series_of_another_modality_is_flagged(data: Path, run) -> None:
    folder = folder_of(data, STUDY, "Axial T2")
    for path in folder.glob("*.dcm"):
        edit_header(path, Modality="CT")
    _, (quirk,) = run()
    assert (quirk.kind, quirk.series_id) == ("other_headers", int(folder.name))
    assert quirk.seen == "Axial T2 by the table, but Modality is CT, not MR"


def test_pixels_beyond_what_float32_holds_whole_are_flagged(data: Path, run) -> None:
    path = folder_of(data, STUDY, "Sagittal T1") / "1.dcm"
    pixels = pydicom.dcmread(path).pixel_array.astype(np.int32)
    pixels[3, 4] = 2**24 + 1
    edit_header(path, BitsAllocated=32, BitsStored=32, HighBit=31, PixelRepresentation=1, PixelData=pixels.tobytes())
    _, (quirk,) = run()
    assert quirk.kind == "image_flag"
    assert quirk.seen.startswith("voxels of up to 16777216")
