"""Preparing a study's own NIfTI files and points: each point where it was seen, patients apart, odd input refused by name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_spine.anatomy import DISCS, Level, Side, Vertebra
from monai_spine.errors import OutputError, SpineError, TableError, UnreadableInputError, VolumeGeometryError
from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.studies import nifti_points
from monai_spine.studies.nifti_points import split_patients
from monai_spine.studies.prepared import Datalist, read_datalist, summary_of
from monai_spine.training.datalists import localizer_items
from monai_spine.training.naming_crops import naming_items
from monai_spine.training.refinement_crops import refinement_items

SHAPE = (40, 60, 8)
AFFINE = np.array([[0.0, 0, -4, 14], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1]])
"""As scanners store sagittal slices: i to the back, j to the feet, k to the left."""
VOXELS = {level.label: (18 + at, 8 + 9 * at, 3) for at, level in enumerate(DISCS)}
"""A bright voxel at each disc."""
MM, VOXEL = ("r", "a", "s"), ("i", "j", "k")
Row = tuple[Any, ...]


def write_image(path: Path, *, affine: np.ndarray = AFFINE, shape: Sequence[int] = SHAPE) -> Path:
    voxels = np.zeros(shape, np.int16)
    for place in VOXELS.values():
        voxels[place] = 1000
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nib.Nifti1Header()
    header.set_sform(affine, code=1)
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return path


def write_bodies(path: Path, values: Sequence[float] = (4, 5, 6), *, shape: Sequence[int] = SHAPE) -> Path:
    labels = np.zeros(shape, np.float32)
    for at, value in enumerate(values):
        labels[10:20, 5 * at : 5 * at + 4, 2:5] = value
    nib.save(nib.Nifti1Image(labels, AFFINE), path)
    return path


def rows_of(image: str, *, frame: Sequence[str] = MM, **more: tuple[float, float, float]) -> list[Row]:
    """A row for each disc, and for whatever else is given in voxels."""
    places = {**VOXELS, **more}
    if tuple(frame) == MM:
        places = {name: tuple(apply_affine(AFFINE, place)) for name, place in places.items()}
    return [(image, name, *place) for name, place in places.items()]


def write_table(path: Path, rows: Sequence[Row], columns: Sequence[str] = ("image", "structure", *MM)) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def study(folder: Path, *, images: int = 2, frame: Sequence[str] = MM) -> Path:
    """A folder with images `scan_0.nii.gz`, … and their points."""
    names = [f"scan_{number}.nii.gz" for number in range(images)]
    for name in names:
        write_image(folder / name)
    rows = [row for name in names for row in rows_of(name, frame=frame)]
    write_table(folder / "points.csv", rows, ("image", "structure", *frame))
    return folder


def prepared(data: Path, **options: Any) -> Datalist:
    return read_datalist(nifti_points.prepare(data, data.parent / "out", **options))


@pytest.mark.parametrize("frame", [MM, VOXEL])
def test_each_disc_lies_on_the_voxel_where_it_was_seen(tmp_path: Path, frame: Sequence[str]) -> None:
    datalist = prepared(study(tmp_path / "data", frame=frame))
    assert (datalist.study, datalist.source) == ("out", "real")
    assert [case.case for case in datalist.cases] == ["scan_0", "scan_1"]
    for case in datalist.cases:
        (volume,) = case.volumes
        stored = nib.load(datalist.root / volume.image)
        assert set(case.discs) == set(DISCS)
        for level, point in case.discs.items():
            at = np.round(apply_affine(invert_affine(stored.affine), point)).astype(int)
            assert np.asarray(stored.dataobj)[tuple(at)] == 1000, level
        assert case.discs[Level.T12_L1][2] > case.discs[Level.L5_S1][2], "the head is up"


def test_every_kind_of_structure_finds_its_place(tmp_path: Path) -> None:
    data = study(tmp_path / "data")
    more = {"canal L4/L5": (30.0, 45.0, 3.0), "L4": (19.0, 40.0, 3.0), "T12": (17.0, 4.0, 3.0)}
    more |= {"left foramen L4/L5": (26.0, 44.0, 6.0), "right foramen L4/L5": (26.0, 44.0, 0.0)}
    write_table(data / "points.csv", [*rows_of("scan_0.nii.gz", **more), *rows_of("scan_1.nii.gz")])
    datalist = prepared(data, held_out=0)
    first, second = datalist.cases
    assert first.canals == {Level.L4_L5: pytest.approx(tuple(apply_affine(AFFINE, more["canal L4/L5"])))}
    assert set(first.vertebrae) == {Vertebra.L4, Vertebra.T12}
    assert {(target.side, found.severity) for target, found in first.targets.items()} == {(Side.LEFT, None), (Side.RIGHT, None)}
    assert all((found.point_ras_mm[0] < 0) == (target.side is Side.LEFT) for target, found in first.targets.items())
    assert not second.canals
    assert not second.vertebrae
    assert first.estimated == second.estimated == ()

    item = localizer_items(datalist, "training")[0]
    known = np.isfinite(item["points"]).all(1)
    assert known[:6].all()
    assert known[6:].tolist() == [False, False, False, False, True, False]
    assert np.isfinite(item["foramina"]).all(-1).sum() == 2


def test_all_three_networks_find_their_examples(tmp_path: Path) -> None:
    root = prepared(study(tmp_path / "data", images=3), held_out=0.4).root
    assert len(refinement_items(root, "training")) == 2 * len(DISCS)
    assert {item["label"] for item in naming_items(root, "validation")} >= set(range(1, 7))


def test_an_image_in_a_subfolder_is_found_by_its_path_or_its_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for place in ("p1/t2.nii.gz", "p2/t2.nii.gz", "p2/deep/other.nii", "unlabelled.nii.gz"):
        write_image(data / place)
    rows = [*rows_of("p1/t2.nii.gz"), *rows_of("./p2/t2.nii.gz"), *rows_of("other.nii")]
    datalist = prepared(data, points=write_table(tmp_path / "mine.csv", rows), name="our study")
    assert datalist.study == "our study"
    assert [case.case for case in datalist.cases] == ["p1/t2", "p2/deep/other", "p2/t2"]
    assert len({case.patient for case in datalist.cases}) == 3
    assert all((datalist.root / case.volumes[0].image).is_file() for case in datalist.cases)

    write_table(tmp_path / "mine.csv", rows_of("t2.nii.gz"))
    with pytest.raises(TableError, match=r"2 images are called 't2\.nii\.gz'.*Give their paths"):
        prepared(data, points=tmp_path / "mine.csv")


def test_bodies_that_occur_in_the_label_map_are_labelled(tmp_path: Path) -> None:
    data = study(tmp_path / "data")
    write_bodies(data / "scan_1_bodies.nii.gz")
    without, with_map = prepared(data).cases
    assert (without.volumes[0].bodies, without.volumes[0].bodies_labelled) == (None, ())
    (volume,) = with_map.volumes
    assert volume.bodies_labelled == (Vertebra.L4, Vertebra.L5, Vertebra.S1)
    stored = nib.load(tmp_path / "out" / str(volume.bodies))
    assert stored.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(stored.dataobj), np.asarray(nib.load(data / "scan_1_bodies.nii.gz").dataobj))


def test_the_line_that_sums_up_counts_what_is_there(tmp_path: Path) -> None:
    data = study(tmp_path / "data", images=3)
    write_bodies(data / "scan_1_bodies.nii.gz")
    assert summary_of(prepared(data, name="mine")) == (
        "mine: 2 cases of 2 patients for training, 1 cases of 1 patients for validation; "
        "18 discs, 0 canal points, 1 label maps of bodies"
    )


def test_a_patient_lies_in_one_split_only(tmp_path: Path) -> None:
    data = study(tmp_path / "data", images=6)
    rows = [
        (image, f"patient {int(image[5]) // 2}", *place)
        for number in range(6)
        for image, *place in rows_of(f"scan_{number}.nii.gz")
    ]
    write_table(data / "points.csv", rows, ("image", "patient", "structure", *MM))
    datalist = prepared(data, held_out=0.34)
    patients = {split: {case.patient for case in datalist.cases_of(split)} for split in ("training", "validation")}
    assert len(patients["validation"]) == 1
    assert len(datalist.splits["validation"]) == 2
    assert not patients["training"] & patients["validation"]


def test_the_split_is_the_same_whatever_the_order_and_changes_little_with_one_more() -> None:
    patients = {f"case {number}": f"patient {number // 2}" for number in range(40)}
    splits = split_patients(patients)
    assert len(splits["validation"]) == 8
    assert splits == split_patients(dict(reversed(patients.items())))
    more = split_patients({**patients, "case 40": "patient 20"})
    assert len(set(splits["validation"]) - set(more["validation"])) <= 2


@pytest.mark.parametrize(("held_out", "validation"), [(0, 0), (0.01, 1), (0.5, 2), (0.99, 3), (1, 4)])
def test_a_share_between_0_and_1_leaves_one_patient_for_either_part(held_out: float, validation: int) -> None:
    splits = split_patients({name: name for name in "abcd"}, held_out)
    assert len(splits["validation"]) == validation
    assert sorted(splits["training"] + splits["validation"]) == list("abcd")


@pytest.mark.parametrize("held_out", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(held_out: float) -> None:
    with pytest.raises(TableError, match="must lie in 0 to 1, got"):
        split_patients({"a": "a", "b": "b"}, held_out)


def test_one_patient_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="One patient cannot be split"):
        prepared(study(tmp_path / "data", images=1))


FIRST = rows_of("scan_0.nii.gz")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a header and no row"),
        ([*FIRST, ("scan_0.nii.gz", "L4-L5", 0, 0, 0)], r"line 8: structure is 'L4-L5'.*T12/L1 to L5/S1.*T12\)"),
        ([*FIRST, ("scan_0.nii.gz", "left foramen T12/L1", 0, 0, 0)], "structure is 'left foramen T12/L1'"),
        (rows_of("scan_7.nii.gz"), r"line 2: there is no image 'scan_7\.nii\.gz' in .* \(5 more like it\)"),
        (rows_of("../data/scan_0.nii.gz"), r"there is no image '\.\./data/scan_0\.nii\.gz'"),
        ([*FIRST, FIRST[2]], r"line 8: a second point for L2/L3 of .*scan_0\.nii\.gz"),
        ([("./scan_0.nii.gz", *FIRST[2][1:]), *FIRST], r"line 5: a second point for L2/L3"),
        ([*FIRST, ("scan_0.nii.gz", "L4", "x", 0, 0)], "r is 'x', which is not a number"),
        ([*FIRST, ("scan_0.nii.gz", "L4", 0, 0, 90)], r"line 8: L4 at RAS mm \[0\.0, 0\.0, 90\.0\] lies outside of .*LPS"),
        ([*FIRST, ("scan_1.nii.gz", "L4", 0, 0, 0)], r"names no disc of scan_1 \(1 such images\)"),
        (
            [(name, other[1], *place) for (name, _, *place), other in zip(FIRST, FIRST[::-1], strict=True)],
            r"scan_0\.nii\.gz: L1/L2 does not lie below T12/L1 \(S -14 and -23 mm\)",
        ),
        ([(*row[:2], *(value / 10 for value in row[2:])) for row in FIRST], "T12/L1 and L1/L2 lie 1 mm apart; discs lie 8 to 65"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_by_line(tmp_path: Path, rows: list[Row], message: str) -> None:
    data = study(tmp_path / "data")
    write_table(data / "points.csv", rows)
    with pytest.raises(TableError, match=message):
        prepared(data, held_out=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("i", "inside"), [(-0.5, True), (-0.51, False), (SHAPE[0] - 0.5, True), (SHAPE[0] - 0.4, False)])
def test_an_image_ends_half_a_voxel_from_the_last_centre(tmp_path: Path, i: float, inside: bool) -> None:
    data = study(tmp_path / "data", images=1, frame=VOXEL)
    rows = rows_of("scan_0.nii.gz", frame=VOXEL, L4=(i, 10, 3))
    write_table(data / "points.csv", rows, ("image", "structure", *VOXEL))
    if inside:
        assert Vertebra.L4 in prepared(data, held_out=0).cases[0].vertebrae
    else:
        with pytest.raises(TableError, match=r"L4 at voxel .*lies outside of .*40 × 60 × 8 voxels.*counted from 0"):
            prepared(data, held_out=0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("image", "structure", *MM, *VOXEL), "both kinds of columns"),
        (("image", "structure", "x", "y", "z"), "neither of the columns r, a, s"),
        (("image", "structure", "r", "a", "z"), "has no column s"),
        (("file", "structure", *MM), "has no column image"),
    ],
)
def test_columns_of_no_kind_or_of_both_are_refused(tmp_path: Path, columns: Sequence[str], message: str) -> None:
    data = study(tmp_path / "data")
    write_table(data / "points.csv", [("scan_0.nii.gz", "L4/L5", *[1] * (len(columns) - 2))], columns)
    with pytest.raises(TableError, match=message):
        prepared(data)


@pytest.mark.parametrize(("patients", "message"), [(("a", "b"), "is 'b', but 'a' in an earlier row"), (("a", ""), "is empty")])
def test_an_image_of_two_patients_or_of_none_is_refused(tmp_path: Path, patients: Sequence[str], message: str) -> None:
    data = study(tmp_path / "data")
    rows = [(FIRST[at][0], patient, *FIRST[at][1:]) for at, patient in enumerate(patients)]
    write_table(data / "points.csv", rows, ("image", "patient", "structure", *MM))
    with pytest.raises(TableError, match=message):
        prepared(data)


@pytest.mark.parametrize(
    ("spoilt", "error", "message"),
    [
        ({"shape": (*SHAPE, 2)}, VolumeGeometryError, r"scan_1\.nii\.gz has the shape \(40, 60, 8, 2\); one 3D volume is needed"),
        ({"affine": np.zeros((4, 4)) + np.diag([0.0, 1, 1, 1])}, VolumeGeometryError, r"scan_1\.nii\.gz.*singular"),
        ({"affine": np.diag([np.nan, 1, 1, 1])}, VolumeGeometryError, r"scan_1\.nii\.gz"),
    ],
)
def test_an_image_without_place_or_with_a_time_axis_is_refused_before_anything_is_written(
    tmp_path: Path, spoilt: dict[str, Any], error: type[SpineError], message: str
) -> None:
    data = study(tmp_path / "data")
    write_image(data / "scan_1.nii.gz", **spoilt)
    with pytest.raises(error, match=message):
        prepared(data)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"values": (4, 20)}, r"scan_0_bodies\.nii\.gz holds the values \[0\.0, 4\.0, 20\.0\].*1 = L1.*7 = T12"),
        ({"values": (1.5,)}, r"holds the values \[0\.0, 1\.5\]"),
        ({"values": ()}, r"holds the values \[0\.0\]"),
        (
            {"shape": (40, 60, 9)},
            r"scan_0\.nii\.gz: the volume \(\(40, 60, 8\)\) and its labels .* different grids.*scan_0_bodies",
        ),
    ],
)
def test_a_label_map_of_something_else_is_refused(tmp_path: Path, spoilt: dict[str, Any], message: str) -> None:
    data = study(tmp_path / "data")
    write_bodies(data / "scan_0_bodies.nii.gz", **spoilt)
    with pytest.raises(UnreadableInputError, match=message):
        prepared(data)
    assert not (tmp_path / "out").exists()


def test_two_images_that_differ_in_their_suffix_only_are_refused(tmp_path: Path) -> None:
    data = study(tmp_path / "data")
    write_image(data / "scan_0.nii")
    write_table(data / "points.csv", [*FIRST, *rows_of("scan_0.nii")])
    with pytest.raises(TableError, match=r"scan_0\.nii differs from scan_0\.nii\.gz in its suffix only"):
        prepared(data)


def test_folders_and_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    data = study(tmp_path / "data")
    for inside in (data, data / "out"):
        with pytest.raises(OutputError, match="Choose a folder outside"):
            nifti_points.prepare(data, inside)
    with pytest.raises(UnreadableInputError, match="does not exist, or is no folder"):
        nifti_points.prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(TableError, match=r"'\.\./mine' cannot name a study"):
        prepared(data, name="../mine")
    with pytest.raises(TableError, match=r"none\.csv cannot be read"):
        prepared(data, points=tmp_path / "none.csv")


def test_preparing_again_gives_the_same_list_and_leaves_no_part_behind(tmp_path: Path) -> None:
    data = study(tmp_path / "data")
    once = nifti_points.prepare(data, tmp_path / "out").read_bytes()
    assert nifti_points.prepare(data, tmp_path / "out").read_bytes() == once
    assert not list((tmp_path / "out").rglob("*part*"))
