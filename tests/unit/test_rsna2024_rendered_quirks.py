"""More oddities of the real data: in headers and tables of simulated studies, and replicas of the real studies that have them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from tiny_rsna2024 import Row, edit_points, edit_series, edit_train, folder_of, series_of, write_data

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Severity, Target
from monai_spine.phantom.replica.export import _copy_tables, _write_study
from monai_spine.phantom.replica.tables import ReplicaTables
from monai_spine.studies.instance_table import InstanceRow, locate_voxel, read_instances
from monai_spine.studies.prepared import PreparedCase, read_datalist
from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_prepare import prepare

STUDY = "900000001"
LOWEST = [target for target in TARGETS if target.slug.endswith("subarticular_stenosis_l5_s1")]
FORAMEN = Target.parse("left_neural_foraminal_narrowing_l4_l5")
NO_T2_NO_POINTS, NO_T1, CANAL_ON_T1 = 3008676218, 2492114990, 3637444890
FAR_NUMBERS, TWO_SIZES, MISPLACED = 2581283971, 74782131, 677672203
REAL = (NO_T2_NO_POINTS, NO_T1, CANAL_ON_T1, FAR_NUMBERS, TWO_SIZES, MISPLACED)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=1)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(source, out)
    return out


@pytest.fixture(scope="module")
def true(whole: Path) -> PreparedCase:
    return read_datalist(whole).cases[0]


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "data")


def prepared(data: Path, out: Path) -> tuple[PreparedCase, list[Quirk]]:
    """The one case, and the quirks that undisturbed data do not have."""
    result = prepare(data, out)
    (case,) = read_datalist(result.path).cases
    return case, [quirk for quirk in result.quirks if quirk.kind != "several_blocks"]


def edit_headers(folder: Path, edit: Callable[[pydicom.Dataset], object]) -> None:
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        edit(dataset)
        dataset.save_as(file)


def lowest_block(whole: Path, true: PreparedCase) -> list[InstanceRow]:
    rows = read_instances(whole / "volumes" / STUDY)
    return [row for row in rows if f"volumes/{STUDY}/{row.volume}" == true.targets[LOWEST[0]].image]


def tilted(dataset: pydicom.Dataset, pivot_lps_mm: np.ndarray, radians: float) -> None:
    """Turn a slice about the patient's transverse axis through a point."""
    turn = np.array([[1, 0, 0], [0, np.cos(radians), -np.sin(radians)], [0, np.sin(radians), np.cos(radians)]])
    corner = turn @ (np.asarray(dataset.ImagePositionPatient, float) - pivot_lps_mm) + pivot_lps_mm
    axes = np.reshape(np.asarray(dataset.ImageOrientationPatient, float), (2, 3)) @ turn.T
    dataset.ImagePositionPatient = [round(value, 6) for value in corner.tolist()]
    dataset.ImageOrientationPatient = [round(value, 8) for value in axes.ravel().tolist()]


def test_an_axial_block_that_its_headers_call_coronal_is_flagged_and_its_points_keep_their_place(
    data: Path, whole: Path, true: PreparedCase, tmp_path: Path
) -> None:
    block, folder = lowest_block(whole, true), folder_of(data, STUDY, "Axial T2")
    right, front, up = np.mean([true.targets[target].point_ras_mm for target in LOWEST], axis=0)
    for row in block:
        path = folder / f"{row.instance_number}.dcm"
        dataset = pydicom.dcmread(path)
        tilted(dataset, np.array([-right, -front, up]), np.deg2rad(60))
        dataset.save_as(path)
    case, quirks = prepared(data, tmp_path / "out")
    (quirk,) = [quirk for quirk in quirks if quirk.kind == "other_plane"]
    assert quirk.series_id == int(folder.name)
    assert quirk.seen == f"{len(block)} of {len(list(folder.iterdir()))} slices of the Axial T2 series lie coronal"
    for target in TARGETS:
        assert case.targets[target].point_ras_mm == pytest.approx(true.targets[target].point_ras_mm, abs=1.5)
    image = case.targets[LOWEST[0]].image
    assert image is not None
    assert {volume.image: volume.role for volume in case.volumes}[image] == "axial_t2"
    affine = nib.load(tmp_path / "out" / image).affine
    row, x, y = locate_voxel(read_instances(tmp_path / "out" / "volumes" / STUDY), Path(image).name, affine, (3, 5, 1))
    assert row.instance_number in {one.instance_number for one in block}
    assert (x, y) == pytest.approx((3, 5), abs=1e-3)


def test_each_block_of_an_axial_series_keeps_its_own_orientation(whole: Path, true: PreparedCase) -> None:
    normals = {}
    for row in read_instances(whole / "volumes" / STUDY):
        if row.volume.startswith("axial"):
            affine = nib.load(whole / "volumes" / STUDY / row.volume).affine
            back, up = affine[1:3, 2] / np.linalg.norm(affine[:3, 2])
            normals[row.volume] = float(np.rad2deg(np.arctan2(back, up)))
            assert abs(np.dot(affine[:3, 2] / np.linalg.norm(affine[:3, 2]), np.array(row.normal_lps()) * [-1, -1, 1])) > 0.9999
    assert len(normals) > 1
    assert max(normals.values()) - min(normals.values()) > 5, "degrees between the blocks"
    for target in TARGETS:
        if target.condition is Condition.SUBARTICULAR_STENOSIS:
            assert Path(str(true.targets[target].image)).name in normals


def test_ids_beyond_32_bits_lead_from_tables_to_files_and_into_the_data_list(
    data: Path, true: PreparedCase, tmp_path: Path
) -> None:
    study, series = "4290709089", "4294967000"
    old = series_of(data, STUDY, "Axial T2")
    (data / "train_images" / STUDY).rename(data / "train_images" / study)
    (data / "train_images" / study / old).rename(data / "train_images" / study / series)

    def renamed(row: Row) -> Row:
        return {**row, "study_id": study, **({"series_id": series} if row.get("series_id") == old else {})}

    for edit in (edit_train, edit_points, edit_series):
        edit(data, renamed)
    case, quirks = prepared(data, tmp_path / "out")
    assert (case.case, quirks) == (study, [])
    assert {row.series_id for row in read_instances(tmp_path / "out" / "volumes" / study)} >= {int(series)}
    assert {target: found.point_ras_mm for target, found in case.targets.items()} == {
        target: found.point_ras_mm for target, found in true.targets.items()
    }


@pytest.mark.parametrize("description", ["Sagittal T1", "Sagittal T2/STIR"])
def test_slices_that_run_the_other_way_keep_left_and_right(
    data: Path, true: PreparedCase, tmp_path: Path, description: str
) -> None:
    folder = folder_of(data, STUDY, description)
    count = len(list(folder.glob("*.dcm")))
    for file in list(folder.glob("*.dcm")):
        file.rename(folder / f"{count + 1 - int(file.stem)}.new")
    for file in folder.glob("*.new"):
        file.rename(file.with_suffix(".dcm"))
    edit_headers(folder, lambda header: setattr(header, "InstanceNumber", count + 1 - int(header.InstanceNumber)))

    def turned(row: Row) -> Row:
        own = row["series_id"] == folder.name
        return {**row, "instance_number": str(count + 1 - int(row["instance_number"]))} if own else row

    edit_points(data, turned)
    case, quirks = prepared(data, tmp_path / "out")
    assert case == true
    assert quirks == []


def test_without_spacing_tags_the_distance_of_slices_comes_from_positions(
    data: Path, whole: Path, true: PreparedCase, tmp_path: Path
) -> None:
    def spoil(header: pydicom.Dataset) -> None:
        header.pop("SpacingBetweenSlices", None)
        header.SliceThickness = 1

    for folder in (data / "train_images" / STUDY).iterdir():
        edit_headers(folder, spoil)
    case, quirks = prepared(data, tmp_path / "out")
    assert case == true
    assert quirks == []
    for volume in case.volumes:
        np.testing.assert_allclose(nib.load(tmp_path / "out" / volume.image).affine, nib.load(whole / volume.image).affine)


def test_exchanged_sides_of_a_foramen_are_named_by_place(data: Path, true: PreparedCase, tmp_path: Path) -> None:
    sides = {"Left": "Right", "Right": "Left"}

    def swapped(row: Row) -> Row:
        side, _, rest = row["condition"].partition(" ")
        own = rest == "Neural Foraminal Narrowing" and row["level"] == "L4/L5"
        return {**row, "condition": f"{sides[side]} {rest}"} if own else row

    edit_points(data, swapped)
    edit_train(data, lambda row: {**row, FORAMEN.slug: "Severe", FORAMEN.mirrored.slug: "Normal/Mild"})
    case, (quirk,) = prepared(data, tmp_path / "out")
    assert quirk.kind == "sides_swapped"
    assert case.targets[FORAMEN].point_ras_mm == true.targets[FORAMEN].point_ras_mm
    assert case.targets[FORAMEN].severity is Severity.NORMAL_MILD
    assert case.targets[FORAMEN.mirrored].severity is Severity.SEVERE


def test_a_point_without_a_label_and_a_label_without_a_point_train_nothing(
    data: Path, true: PreparedCase, tmp_path: Path
) -> None:
    edit_train(data, lambda row: {**row, FORAMEN.slug: ""})
    edit_points(
        data, lambda row: None if (row["condition"], row["level"]) == ("Right Neural Foraminal Narrowing", "L4/L5") else row
    )
    case, quirks = prepared(data, tmp_path / "out")
    assert (case.targets[FORAMEN].point_ras_mm, case.targets[FORAMEN].severity) == (true.targets[FORAMEN].point_ras_mm, None)
    assert FORAMEN.mirrored not in case.targets
    assert {quirk.kind: quirk.targets for quirk in quirks} == {
        "missing_label": (FORAMEN.slug,),
        "label_without_point": (FORAMEN.mirrored.slug,),
        "point_without_label": (FORAMEN.slug,),
    }


def test_directions_that_span_no_plane_leave_out_their_slice_and_its_points(data: Path, tmp_path: Path) -> None:
    folder = folder_of(data, STUDY, "Axial T2")
    edit_headers(folder, lambda header: setattr(header, "ImageOrientationPatient", [0, 0, 0, 0, 0, 0]))
    case, quirks = prepared(data, tmp_path / "out")
    assert {volume.role for volume in case.volumes} == {"sagittal_t1", "sagittal_t2"}
    assert {target.condition for target in case.targets} == {
        Condition.SPINAL_CANAL_STENOSIS, Condition.NEURAL_FORAMINAL_NARROWING
    }  # fmt: skip
    assert [quirk.kind for quirk in quirks] == ["slices_left_out", "series_left_out"]


@pytest.fixture(scope="module")
def tables(rsna_tables_dir: Path) -> ReplicaTables:
    return ReplicaTables.read(rsna_tables_dir)


@pytest.fixture(scope="module")
def replica(tables: ReplicaTables, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, PreparedCase], list[Quirk]]:
    """Real studies, rendered and prepared: folder, cases and quirks."""
    data, out = tmp_path_factory.mktemp("replica"), tmp_path_factory.mktemp("prepared") / "out"
    for study in REAL:
        _write_study(data, 0, 64, tables.studies[study])
    _copy_tables(data, tables, REAL, 64)
    result = prepare(data, out)
    return out, {int(case.case): case for case in read_datalist(result.path).cases}, list(result.quirks)


def quirks_of(quirks: list[Quirk], study: int, kind: str) -> list[Quirk]:
    return [quirk for quirk in quirks if (quirk.study_id, quirk.kind) == (study, kind)]


def test_a_replica_without_t2_and_points_is_written_and_in_no_list(replica) -> None:
    out, cases, quirks = replica
    assert set(cases) == set(REAL) - {NO_T2_NO_POINTS}
    assert quirks_of(quirks, NO_T2_NO_POINTS, "no_points")
    assert [quirk.seen for quirk in quirks_of(quirks, NO_T2_NO_POINTS, "no_series")] == ["no Sagittal T2/STIR series"]
    assert list((out / "volumes" / str(NO_T2_NO_POINTS)).glob("sagittal_t1_*.nii.gz"))


def test_a_replica_without_t1_has_all_points_that_the_table_has(replica, tables: ReplicaTables) -> None:
    _, cases, quirks = replica
    assert [quirk.seen for quirk in quirks_of(quirks, NO_T1, "no_series")] == ["no Sagittal T1 series"]
    assert {volume.role for volume in cases[NO_T1].volumes} == {"sagittal_t2", "axial_t2"}
    assert {point.target for point in tables.studies[NO_T1].points} == set(cases[NO_T1].targets)


def test_canal_points_of_a_replica_on_t1_lie_one_below_the_other_between_its_foramina(replica) -> None:
    _, cases, quirks = replica
    (quirk,) = quirks_of(quirks, CANAL_ON_T1, "other_series_kind")
    assert len(quirk.targets) == 5
    case = cases[CANAL_ON_T1]
    heights = [case.canals[level][2] for level in LEVELS]
    assert heights == sorted(heights, reverse=True)
    for level in (Level.L3_L4, Level.L4_L5):
        left, right = (
            case.targets[Target.parse(f"{side}_neural_foraminal_narrowing_{level.slug}")].point_ras_mm[0]
            for side in ("left", "right")
        )
        assert left < case.canals[level][0] < right


def test_instance_numbers_of_a_replica_beyond_its_slices_lead_to_their_files(replica) -> None:
    out, cases, quirks = replica
    (quirk,) = quirks_of(quirks, FAR_NUMBERS, "numbers_beyond_count")
    rows = [row for row in read_instances(out / "volumes" / str(FAR_NUMBERS)) if row.series_id == quirk.series_id]
    assert {5031, 5046} <= {row.instance_number for row in rows}
    assert len(rows) == 50
    for target, found in cases[FAR_NUMBERS].targets.items():
        if target.condition is Condition.SUBARTICULAR_STENOSIS:
            off = min(abs(row.pixel_of(found.point_ras_mm)[2]) for row in rows)
            assert off < 0.01, "mm from the nearest slice"


def test_slices_of_two_sizes_in_blocks_of_their_own_are_not_resampled_and_lead_back_to_their_pixels(replica) -> None:
    out, _, quirks = replica
    (quirk,) = quirks_of(quirks, TWO_SIZES, "several_blocks")
    folder = out / "volumes" / str(TWO_SIZES)
    rows = [row for row in read_instances(folder) if row.series_id == quirk.series_id]
    assert {row.rows for row in rows} == {61, 64}
    images = {row.volume: nib.load(folder / row.volume) for row in rows}
    assert len(images) == 3
    for row in rows:
        assert (row.columns, row.rows) == images[row.volume].shape[:2]
        found, x, y = locate_voxel(rows, row.volume, images[row.volume].affine, (1, 2, row.slice_index))
        assert found == row
        assert (x, y) == pytest.approx((1, 2), abs=1e-3)


def test_a_listed_correction_takes_its_point_out_of_a_replica(replica) -> None:
    _, cases, quirks = replica
    target = Target.parse("left_subarticular_stenosis_l4_l5")
    assert [quirk.targets for quirk in quirks_of(quirks, MISPLACED, "listed")] == [(target.slug,)]
    assert target not in cases[MISPLACED].targets
    assert target.mirrored in cases[MISPLACED].targets
    assert not quirks_of(quirks, MISPLACED, "sides_swapped")
