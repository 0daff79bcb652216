"""Replicas of RSNA 2024 studies on disk: the competition's layout, its rows, and pixels where the points say."""

from __future__ import annotations

import csv
import json

import numpy as np
import pydicom
import pytest

from monai_spine.errors import OutputError
from monai_spine.geometry import apply_affine, slice_affine
from monai_spine.phantom import write_replica
from monai_spine.phantom.floor import floor
from monai_spine.phantom.replica.export import _copy_tables, _write_study
from monai_spine.phantom.replica.study import replicate
from monai_spine.phantom.replica.tables import COPIED_TABLES, ReplicaTables
from monai_spine.phantom.structures import lies_in

SEED, EDGE = 5, 96


@pytest.fixture(scope="module")
def written(rsna_tables_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("replica")
    write_replica(out, tables=rsna_tables_dir, studies=3, seed=SEED, max_matrix=EDGE)
    return out


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_the_series_and_instances_of_the_tables(written, rsna_tables_dir):
    tables = ReplicaTables.read(rsna_tables_dir)
    studies = [int(row["study_id"]) for row in _rows(written / "train.csv")]
    assert len(studies) == 3
    for study in studies:
        table = tables.studies[study]
        folders = {folder.name for folder in (written / "train_images" / str(study)).iterdir()}
        assert folders == {str(series.series_id) for series in table.series}
        for series in table.series:
            files = list((written / "train_images" / str(study) / str(series.series_id)).glob("*.dcm"))
            assert len(files) == series.slices
            assert {point.instance for point in table.points_on(series)} <= {int(path.stem) for path in files}


def test_rows_are_the_real_ones_and_points_are_scaled_with_the_matrix(written, rsna_tables_dir):
    studies = {row["study_id"] for row in _rows(written / "train.csv")}
    for name in COPIED_TABLES:
        real = [row for row in _rows(rsna_tables_dir / name) if row["study_id"] in studies]
        ours = _rows(written / name)
        key = sorted if name != "train.csv" else list
        untouched = [column for column in real[0] if column not in ("x", "y")]
        assert key([[row[c] for c in untouched] for row in ours]) == key([[row[c] for c in untouched] for row in real])
    for row in _rows(written / "train_label_coordinates.csv"):
        assert 0 <= float(row["x"]) < EDGE
        assert 0 <= float(row["y"]) < EDGE


def test_without_a_smaller_matrix_every_row_is_the_real_one_to_the_byte(rsna_tables_dir, tmp_path):
    tables = ReplicaTables.read(rsna_tables_dir)
    chosen = tuple(tables.studies)[5:9]
    _copy_tables(tmp_path, tables, chosen, 1024)
    for name in COPIED_TABLES:
        real = (rsna_tables_dir / name).read_bytes().splitlines(keepends=True)
        wanted = [line for line in real[1:] if int(line.split(b",")[0]) in chosen]
        assert sorted((tmp_path / name).read_bytes().splitlines(keepends=True)[1:]) == sorted(wanted)


def test_points_of_the_written_table_lie_in_their_structures_by_the_headers(written, rsna_tables_dir):
    tables, hits = ReplicaTables.read(rsna_tables_dir), []
    for study in {int(row["study_id"]) for row in _rows(written / "train.csv")}:
        replica = replicate(tables.studies[study], seed=SEED, max_matrix=EDGE)
        targets = {(point.target.kind.label, point.target.level.label): point.target for point in replica.table.points}
        for row in _rows(written / "train_label_coordinates.csv"):
            if int(row["study_id"]) == study:
                path = written / "train_images" / row["study_id"] / row["series_id"] / f"{row['instance_number']}.dcm"
                place = _locate(pydicom.dcmread(path, stop_before_pixels=True), float(row["x"]), float(row["y"]))
                hits.append(lies_in(replica.simulated.patient, targets[row["condition"], row["level"]], tuple(place)))
    assert np.mean(hits) > 0.85


def _locate(header, x, y):
    affine = slice_affine(
        header.ImagePositionPatient, header.ImageOrientationPatient, pixel_spacing_mm=header.PixelSpacing,
        step_lps_mm=np.cross(header.ImageOrientationPatient[:3], header.ImageOrientationPatient[3:]),
    )  # fmt: skip
    return apply_affine(affine, [x, y, 0]).tolist()


def test_headers_and_pixels_agree_and_spacing_tags_are_missing_in_some(written):
    headers = [pydicom.dcmread(path) for path in sorted((written / "train_images").rglob("*.dcm"))[::7]]
    for header in headers:
        assert header.pixel_array.shape == (header.Rows, header.Columns)
        assert max(header.Rows, header.Columns) == EDGE
        assert header.pixel_array.max() > 50
        assert str(header.InstanceNumber) == header.filename.rsplit("/", 1)[-1].removesuffix(".dcm")


def test_over_many_series_every_combination_of_spacing_tags_occurs(rsna_tables_dir):
    tables = ReplicaTables.read(rsna_tables_dir)
    tags = {tag for table in list(tables.studies.values())[:15] for tag in replicate(table, seed=0).spacing_tags}
    assert tags == {(), ("SliceThickness",), ("SliceThickness", "SpacingBetweenSlices")}


def test_a_series_with_matrices_of_two_sizes_is_written_so(rsna_tables_dir, tmp_path):
    tables = ReplicaTables.read(rsna_tables_dir)
    table = next(one for one in tables.studies.values() if any(series.other_shape for series in one.series))
    mixed = next(series for series in table.series if series.other_shape)
    _write_study(tmp_path, SEED, EDGE, table)
    folder = tmp_path / "train_images" / str(table.study_id) / str(mixed.series_id)
    sizes = {pydicom.dcmread(path, stop_before_pixels=True).Rows for path in folder.iterdir()}
    assert sizes == {EDGE, round(mixed.shape[0] * EDGE / mixed.other_shape[0])}


def test_a_run_goes_on_where_it_was_cut_off(written, rsna_tables_dir):
    folders = sorted((written / "train_images").iterdir())
    lost, kept = folders[0], next(folders[1].rglob("*.dcm"))
    before, stamp = {path: path.read_bytes() for path in lost.rglob("*.dcm")}, kept.stat().st_mtime_ns
    half = lost.with_name(f".{lost.name}.part")
    lost.rename(half)
    next(half.rglob("*.dcm")).write_bytes(b"cut off")
    write_replica(written, tables=rsna_tables_dir, studies=3, seed=SEED, max_matrix=EDGE)
    assert {path: path.read_bytes() for path in lost.rglob("*.dcm")} == before
    assert kept.stat().st_mtime_ns == stamp
    assert not half.exists()


def test_a_folder_written_with_other_settings_is_refused(written, rsna_tables_dir, tmp_path):
    with pytest.raises(OutputError, match=r"holds a replica made with .*Choose another folder"):
        write_replica(written, tables=rsna_tables_dir, studies=3, seed=SEED, max_matrix=EDGE + 1)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match="holds other files"):
        write_replica(tmp_path, tables=rsna_tables_dir, studies=1, seed=0)


def test_the_best_possible_score_is_known_and_better_than_the_prior(written):
    bounds = floor(written)
    assert bounds.floor.score < bounds.prior.score
    assert json.loads((written / "replica.json").read_text()) == {"seed": SEED, "max_matrix": EDGE}
