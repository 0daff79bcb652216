"""Preparing mid-sagittal pictures: a scale of their own, points where they are seen, one patient each."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_spine.anatomy import DISCS, Vertebra
from monai_spine.errors import TableError, UnreadableInputError
from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.studies import midsagittal
from monai_spine.studies.prepared import Datalist, read_datalist

BODIES = [Vertebra(f"L{number}") for number in range(1, 6)]
COLUMNS, ROWS = 120, 200
Row = tuple[str, str, object, object]


def rows_of(name: str, step: float = 28.0) -> list[Row]:
    """Eleven points from the head down: discs in a slant to the right, bodies between them."""
    discs = [(name, level.label, 40 + 3 * at, 20 + step * at) for at, level in enumerate(DISCS)]
    return [*discs, *((name, body.label, 41.5 + 3 * at, 20 + step * (at + 0.5)) for at, body in enumerate(BODIES))]


def write_pictures(folder: Path, rows: list[Row], without: tuple[str, ...] = ()) -> Path:
    """Pictures with a bright spot at each disc, and `points.csv`."""
    (folder / "images").mkdir(parents=True)
    for name in {row[0] for row in rows} - set(without):
        y, x = np.indices((ROWS, COLUMNS))
        discs = [row for row in rows if row[0] == name and "/" in row[1]]
        grey = sum(np.exp(-((x - float(row[2])) ** 2 + (y - float(row[3])) ** 2) / 18) for row in discs)
        Image.fromarray((20 + 200 * grey).astype(np.uint8)).save(folder / "images" / f"{name}.jpg", quality=95)
    with (folder / "points.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "structure", "x_px", "y_px", "grade", "schmorl_node")])
        csv.writer(file).writerows([(*row, "disc_normal" if "/" in row[1] else "vertebra_normal", 0) for row in rows])
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Datalist:
    folder = tmp_path_factory.mktemp("midsagittal")
    rows = [row for number in range(8) for row in rows_of(f"{number:03d}", step=28.0 - number)]
    return read_datalist(midsagittal.prepare(write_pictures(folder / "data", rows), folder / "out"))


def test_every_picture_is_a_patient_and_a_fifth_is_held_out(prepared: Datalist) -> None:
    assert (prepared.study, prepared.source) == ("midsagittal", "real")
    assert [case.case for case in prepared.cases] == [case.patient for case in prepared.cases]
    assert prepared.splits["validation"] == ("002", "007")
    assert set(prepared.splits["training"]) == {"000", "001", "003", "004", "005", "006"}


def test_only_pictures_and_lesions_on_them_lack_a_scale(prepared: Datalist) -> None:
    names = [prepared.study, f"{prepared.study}_lesions", "phantom_lesions", "rsna2024"]
    assert [midsagittal.has_scale(name) for name in names] == [False, False, True, True]


def test_a_picture_becomes_one_slice_with_its_points_where_they_are_seen(prepared: Datalist) -> None:
    for case in prepared.cases:
        (volume,) = case.volumes
        stored = nib.load(prepared.root / volume.image)
        assert stored.shape == (1, COLUMNS, ROWS)
        assert set(case.discs) == set(DISCS)
        assert set(case.vertebrae) == set(BODIES)
        image = np.asarray(stored.dataobj)
        for point in case.discs.values():
            at = apply_affine(invert_affine(stored.affine), point)
            assert at[0] == pytest.approx(0)
            _, x, y = np.round(at).astype(int)
            near = image[0, x - 6 : x + 7, y - 6 : y + 7]
            assert np.hypot(*(np.array(np.unravel_index(near.argmax(), near.shape)) - 6)) <= 1.5


def test_the_head_is_up_and_the_front_to_the_left(prepared: Datalist) -> None:
    points = np.array([prepared.cases[0].discs[level] for level in DISCS])
    steps = np.diff(points, axis=0)
    assert (steps[:, 2] < 0).all(), "down the rows is towards the feet"
    assert (steps[:, 1] < 0).all(), "to the right is backwards"
    assert (points[:, 0] == 0).all()


def test_neighbouring_discs_lie_as_far_apart_as_in_an_adult(prepared: Datalist) -> None:
    for case in prepared.cases:
        points = np.array([case.discs[level] for level in DISCS])
        assert np.linalg.norm(np.diff(points, axis=0), axis=1).mean() == pytest.approx(DISC_SPACING_MM, rel=1e-4)


def test_a_gap_in_the_points_leaves_the_scale_to_the_discs_that_are_neighbours(tmp_path: Path) -> None:
    rows = [row for row in rows_of("001") if row[1] not in ("L2/L3", "L5")]
    (case,) = read_datalist(midsagittal.prepare(write_pictures(tmp_path / "data", rows), tmp_path / "out")).cases
    assert len(case.discs) == 5
    assert Vertebra.L5 not in case.vertebrae
    gap = np.subtract(case.discs[DISCS[0]], case.discs[DISCS[1]])
    assert np.linalg.norm(gap) == pytest.approx(DISC_SPACING_MM, rel=1e-4)


def test_a_picture_without_two_neighbouring_discs_has_no_scale(tmp_path: Path) -> None:
    apart = [row for row in rows_of("001") if row[1] in ("T12/L1", "L2/L3", "L1")]
    with pytest.raises(UnreadableInputError, match=r"Picture 001 has no two neighbouring discs .*correct its points"):
        midsagittal.prepare(write_pictures(tmp_path / "apart", apart), tmp_path / "out")
    same = [("001", "L1/L2", 50, 50), ("001", "L2/L3", 50, 50)]
    with pytest.raises(UnreadableInputError, match="no two neighbouring discs a pixel apart"):
        midsagittal.prepare(write_pictures(tmp_path / "same", same), tmp_path / "out")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*rows_of("001"), ("001", "L6", 50, 50)], "'L6'"),
        ([*rows_of("001"), ("001", "L1/L2", 50, 50)], "L1/L2"),
        ([*rows_of("001")[1:], ("001", "T12/L1", "left", 50)], "'left'"),
        ([], "no row"),
        ([*rows_of("001"), *rows_of("../002")], r"line 13: image is '\.\./002', which is no file's name \(10 more"),
        ([*rows_of("001"), *rows_of("")], "image is ''"),
    ],
    ids=["no_structure", "twice", "no_number", "no_row", "another_folder", "no_name"],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, rows: list[Row], said: str) -> None:
    folder = write_pictures(tmp_path, rows_of("001"))
    with (folder / "points.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "structure", "x_px", "y_px"), *rows])
    with pytest.raises(TableError, match=rf"points\.csv.*{said}"):
        midsagittal.prepare(folder, tmp_path / "out")


def graded(folder: Path, grades: dict[str, tuple[str, str]]) -> Path:
    """A picture whose structures have these grades and Schmorl nodes; the others have none."""
    with (write_pictures(folder, rows_of("001")) / "points.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("image", "structure", "x_px", "y_px", "grade", "schmorl_node"))
        csv.writer(file).writerows([(*row, *grades.get(row[1], ("", ""))) for row in rows_of("001")])
    return folder


def test_grades_and_schmorl_nodes_reach_the_data_list(tmp_path: Path) -> None:
    given = {
        "L1/L2": ("disc_schmorl_node", "0"),
        "L3/L4": ("disc_extrusion", "1"),
        "L4/L5": ("disc_bulge", "0"),
        "L5/S1": ("disc_normal", ""),
        "L4": ("vertebra_degenerative", "0"),
    }
    (case,) = read_datalist(midsagittal.prepare(graded(tmp_path / "data", given), tmp_path / "out")).cases
    assert case.degeneration == {"L3/L4": "extrusion", "L4/L5": "bulge", "L5/S1": "normal", "L4": "degenerative"}
    assert case.schmorl_nodes == {"L1/L2": True, "L3/L4": True, "L4/L5": False}


@pytest.mark.parametrize(
    ("grade", "said"),
    [
        (("disc_torn", "0"), "grade is 'disc_torn'.*disc_protrusion"),
        (("vertebra_normal", "0"), "L4/L5 is graded 'vertebra_normal'"),
    ],
)
def test_a_grade_that_its_structure_cannot_have_is_refused(tmp_path: Path, grade: tuple[str, str], said: str) -> None:
    with pytest.raises(TableError, match=rf"points\.csv, line 6: {said}"):
        midsagittal.prepare(graded(tmp_path / "data", {"L4/L5": grade}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"points\.csv"):
        midsagittal.prepare(tmp_path, tmp_path / "out")
    folder = write_pictures(tmp_path / "data", [*rows_of("001"), *rows_of("002")], without=("002",))
    with pytest.raises(UnreadableInputError, match=r"002\.jpg does not exist"):
        midsagittal.prepare(folder, tmp_path / "out")


def test_nothing_is_written_where_a_picture_or_its_points_are_wrong(tmp_path: Path) -> None:
    beyond = [*rows_of("002")[:-1], ("002", "L5", 41, ROWS + 5)]
    with pytest.raises(UnreadableInputError, match=r"Picture 002 has 120 × 200 pixels.*places L5 at \(41, 205\)"):
        midsagittal.prepare(write_pictures(tmp_path / "beyond", [*rows_of("001"), *beyond]), tmp_path / "out")
    broken = write_pictures(tmp_path / "broken", [*rows_of("001"), *rows_of("002")])
    (broken / "images" / "002.jpg").write_bytes(b"no picture")
    with pytest.raises(UnreadableInputError, match=r"002\.jpg is no PNG or JPEG"):
        midsagittal.prepare(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_pictures_have_their_discs_inside_in_the_order_of_the_column(midsagittal_dir: Path, tmp_path: Path) -> None:
    prepared = read_datalist(midsagittal.prepare(midsagittal_dir, tmp_path))
    assert len(prepared.cases) == 147
    assert len(prepared.splits["validation"]) == 29
    for case in prepared.cases:
        shape = nib.load(prepared.root / case.volumes[0].image).shape
        affine = nib.load(prepared.root / case.volumes[0].image).affine
        places = apply_affine(invert_affine(affine), np.array([case.discs[level] for level in DISCS]))[:, 1:]
        assert ((places >= 0) & (places <= np.array(shape[1:]) - 1)).all(), case.case
        assert (np.diff(places[:, 1]) > 0).all(), case.case
