"""RSNA 2024 data prepared: what is written, how it leads back to the files, splits, and going on after a kill."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from tiny_rsna2024 import edit_header, edit_points, edit_series, edit_train, folder_of, write_data

from monai_spine.anatomy import LEVELS, TARGETS, Condition
from monai_spine.errors import OutputError, TableError
from monai_spine.studies.instance_table import locate_voxel, read_instances
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024_images import SeriesFacts, StudyImages, VolumeFacts
from monai_spine.studies.rsna2024_patients import patients_of
from monai_spine.studies.rsna2024_prepare import PrepareOptions, prepare
from monai_spine.studies.rsna2024_splits import refuse_shared_images
from monai_spine.training.datalists import grading_items, localizer_items

STUDIES = ("900000001", "900000002", "900000003")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=3)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(source, out)
    return out


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "data")


def test_training_reads_every_finding_and_every_sagittal_scan(whole: Path) -> None:
    datalist = read_datalist(whole)
    assert sorted(case.case for case in datalist.cases) == list(STUDIES)
    assert datalist.source == "simulated"
    splits = [split for split, members in datalist.splits.items() for _ in members]
    for condition, role, count in (
        (Condition.SPINAL_CANAL_STENOSIS, "sagittal_t2", 5),
        (Condition.NEURAL_FORAMINAL_NARROWING, "sagittal_t1", 10),
        (Condition.SUBARTICULAR_STENOSIS, "axial_t2", 10),
    ):
        assert sum(len(grading_items(datalist, split, condition, role)) for split in set(splits)) == 3 * count
    items = [item for split in set(splits) for item in localizer_items(datalist, split)]
    assert len(items) == 6
    assert all(np.isfinite(item["points"]).all(1).sum() == 10 for item in items)
    assert all(item["estimated"].sum() == 5 for item in items), "discs are derived, canals were drawn"


def test_points_lie_where_the_simulated_spine_has_them(source: Path, whole: Path) -> None:
    true = pd.read_csv(source / "levels.csv", dtype={"study_id": str}).set_index(["study_id", "level"])
    for case in read_datalist(whole).cases:
        for level in LEVELS:
            row = true.loc[case.case, level.label]
            canal, disc = ([row[f"{what}_{axis}_mm"] for axis in "as"] for what in ("canal", "disc"))
            assert case.canals[level][1:] == pytest.approx(canal, abs=0.3)
            assert case.discs[level][1:] == pytest.approx(disc, abs=6)


def test_grades_are_those_of_the_table(source: Path, whole: Path) -> None:
    labels = pd.read_csv(source / "train.csv", dtype={"study_id": str}).set_index("study_id")
    for case in read_datalist(whole).cases:
        for target in TARGETS:
            severity = case.targets[target].severity
            assert severity is not None
            assert severity.label == labels.loc[case.case, target.slug]


def test_every_voxel_leads_back_to_its_instance_and_pixel(source: Path, whole: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in sorted((whole / "volumes").iterdir()):
        rows = read_instances(folder)
        assert all(row.volume for row in rows)
        for path in folder.glob("*.nii.gz"):
            image = nib.load(path)
            values = np.asarray(image.dataobj)
            assert values.dtype == np.int16
            for voxel in rng.integers(0, values.shape, (4, 3)):
                row, x, y = locate_voxel(rows, path.name, np.asarray(image.affine), voxel)
                assert (x, y) == pytest.approx(voxel[:2], abs=1e-3)
                file = source / "train_images" / folder.name / str(row.series_id) / f"{row.instance_number}.dcm"
                assert values[tuple(voxel)] == pydicom.dcmread(file).pixel_array[round(y), round(x)]


def test_a_labelled_pixel_comes_back_from_its_point(source: Path, whole: Path) -> None:
    cases = {case.case: case for case in read_datalist(whole).cases}
    names = {target.label: target for target in TARGETS}
    with (source / "train_label_coordinates.csv").open(newline="") as file:
        for point in csv.DictReader(file):
            target = names[f"{point['condition']} {point['level']}"]
            rows = read_instances(whole / "volumes" / point["study_id"])
            key = (int(point["series_id"]), int(point["instance_number"]))
            row = next(row for row in rows if (row.series_id, row.instance_number) == key)
            x, y, off = row.pixel_of(cases[point["study_id"]].targets[target].point_ras_mm)
            assert (x, y, off) == pytest.approx((float(point["x"]), float(point["y"]), 0), abs=2e-3)


def test_a_finished_folder_bears_the_mark_and_nothing_half_written(whole: Path) -> None:
    assert (whole / ".complete").is_file()
    assert all((folder / ".complete").is_file() for folder in (whole / "volumes").iterdir())
    assert not [path for path in whole.rglob("*") if "part" in path.name]


def test_a_part_that_has_no_study_is_remarked_on_in_the_report(whole: Path) -> None:
    report = (whole / "report.html").read_text()
    parts = pd.read_csv(whole / "splits.csv")["80_15_5"]
    assert "test" not in set(parts)
    assert "<p>80 / 15 / 5 test has no study: of so few patients its share comes to none." in report
    assert "80 / 15 / 5 training has no study" not in report


def test_two_processes_write_the_same(source: Path, whole: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", PrepareOptions(jobs=2))
    assert contents(tmp_path / "out") == contents(whole)


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time; from monai_spine.studies import rsna2024_prepare as p, rsna2024_images as i; write = i.save_nifti\n"
        "def slow(*a): write(*a); time.sleep(0.2)\n"
        "i.save_nifti = slow; p.prepare(*sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)])
    deadline = time.monotonic() + 60
    while not list(out.glob("volumes/*/.complete")) or not list(out.glob("volumes/.*.part/*.gz")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "datalist.json").exists()
    (out / ".datalist.1.part").write_text("what a kill while the lists are written leaves")
    first = next(iter(out.glob("volumes/*/.complete"))).parent
    kept = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    prepare(source, out, PrepareOptions(resume=True))
    assert contents(out) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == kept, "a finished study is not written again"


def test_a_study_whose_series_are_renamed_in_the_table_is_written_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(data, out)
    names = {"Sagittal T1": "Sagittal T2/STIR", "Sagittal T2/STIR": "Sagittal T1"}
    edit_series(data, lambda row: {**row, "series_description": names.get(row["series_description"], row["series_description"])})
    renewed = prepare(data, out, PrepareOptions(resume=True)).renewed
    assert renewed == dict.fromkeys(map(int, STUDIES), "the table names other series now")
    uids = {volume.image: volume.series_instance_uid for case in read_datalist(out).cases for volume in case.volumes}
    for study in STUDIES:
        uid = next(uid for image, uid in uids.items() if image.endswith(f"{study}/sagittal_t1_0.nii.gz"))
        row = next(row for row in read_instances(out / "volumes" / study) if row.volume == "sagittal_t1_0.nii.gz")
        file = data / "train_images" / study / str(row.series_id) / f"{row.instance_number}.dcm"
        assert pydicom.dcmread(file).SeriesInstanceUID == uid
        assert "T2" in pydicom.dcmread(file).SeriesDescription or "STIR" in pydicom.dcmread(file).SeriesDescription


def test_a_study_with_a_file_that_is_missing_or_cut_off_is_written_again(whole: Path, source: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    first, second, third = (out / "volumes" / study for study in STUDIES)
    (first / "sagittal_t1_0.nii.gz").unlink()
    (second / "axial_t2_0.nii.gz").write_bytes((second / "axial_t2_0.nii.gz").read_bytes()[:-9])
    (third / "study.json").write_text((third / "study.json").read_text()[:300])
    renewed = prepare(source, out, PrepareOptions(resume=True)).renewed
    assert [renewed[int(study)] for study in STUDIES] == [
        "a file of it is missing, cut off or was changed",
        "a file of it is missing, cut off or was changed",
        "study.json is missing, damaged or of an earlier version",
    ]
    assert contents(out) == contents(whole)
    lines = (first / "instances.csv").read_text().splitlines(keepends=True)
    (first / "instances.csv").write_text("".join(lines[:-1]))
    assert list(prepare(source, out, PrepareOptions(resume=True)).renewed) == [int(STUDIES[0])]
    assert contents(out) == contents(whole)


def test_a_folder_of_another_data_set_is_not_written_over(source: Path, whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    text = (out / "datalist.json").read_text()
    (out / "datalist.json").write_text(text.replace('"study": "rsna2024"', '"study": "phantom"'))
    before = contents(out)
    with pytest.raises(OutputError, match=r"datalist\.json there is of 'phantom', not of 'rsna2024'\. Choose another folder"):
        prepare(source, out, PrepareOptions(resume=True))
    assert contents(out) == before
    (out / "datalist.json").write_text(text[:100])
    prepare(source, out, PrepareOptions(resume=True))
    assert contents(out) == contents(whole)


def test_studies_that_the_tables_have_no_more_are_named_and_other_data_are_refused(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    studies = sorted(path for path in (out / "volumes").iterdir() if path.is_dir())
    shutil.copytree(studies[0], out / "volumes" / "9001")
    assert prepare(source, out, PrepareOptions(resume=True)).left == ("9001",)
    assert (out / "volumes" / "9001").is_dir()
    for study in studies:
        study.rename(study.with_name(f"9{study.name}"))
    before = contents(out)
    with pytest.raises(OutputError, match=r"finished studies, such as 9.* has none of them: this is other data"):
        prepare(source, out, PrepareOptions(resume=True))
    assert contents(out) == before


def test_a_point_that_was_changed_since_is_checked_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(data, out)
    edit_points(data, lambda row: {**row, "x": "700"} if row["study_id"] == STUDIES[1] else row)
    with pytest.raises(TableError, match=r"coordinates\.csv, line 27: x 700, .* lies outside of"):
        prepare(data, out, PrepareOptions(resume=True))
    prepared = prepare(data, out, PrepareOptions(resume=True, keep_going=True))
    assert [one.study for one in prepared.set_aside] == [STUDIES[1]]


def test_a_folder_that_is_not_empty_needs_resume_and_foreign_files_are_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    with pytest.raises(OutputError, match=r"not empty.*add --resume"):
        prepare(source, tmp_path)
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(OutputError, match=r"holds 'thesis\.docx', which is not of prepared data"):
        prepare(source, tmp_path, PrepareOptions(resume=True))


def test_a_study_without_points_is_left_out_and_listed(data: Path, tmp_path: Path) -> None:
    edit_points(data, lambda row: None if row["study_id"] == STUDIES[0] else row)
    prepared = prepare(data, tmp_path / "out")
    assert [case.case for case in read_datalist(prepared.path).cases] == list(STUDIES[1:])
    assert [quirk.study_id for quirk in prepared.quirks if quirk.kind == "no_points"] == [int(STUDIES[0])]


def test_tables_without_any_point_are_refused(data: Path, tmp_path: Path) -> None:
    edit_points(data, lambda _: None)
    with pytest.raises(TableError, match=r"coordinates\.csv has no point of any study"):
        prepare(data, tmp_path / "out")


def test_lists_of_an_earlier_run_do_not_outlive_its_studies(data: Path, tmp_path: Path) -> None:
    prepare(data, tmp_path / "out")
    assert (tmp_path / "out" / "splits").is_dir()
    edit_points(data, lambda row: None if row["study_id"] != STUDIES[0] else row)
    prepare(data, tmp_path / "out", PrepareOptions(resume=True))
    assert not (tmp_path / "out" / "splits").exists()
    assert read_datalist(tmp_path / "out").splits["training"] == (STUDIES[0],)


def test_images_of_two_studies_that_are_alike_never_lie_in_two_parts(data: Path, tmp_path: Path) -> None:
    copy = "900000009"
    shutil.copytree(data / "train_images" / STUDIES[0], data / "train_images" / copy)
    for name in ("train.csv", "train_label_coordinates.csv", "train_series_descriptions.csv"):
        lines = (data / name).read_text().splitlines()
        more = [line.replace(STUDIES[0], copy, 1) for line in lines if line.startswith(STUDIES[0])]
        (data / name).write_text("\n".join([*lines, *more]) + "\n")
    prepared = prepare(data, tmp_path / "out")
    patients = {case.case: case.patient for case in read_datalist(prepared.path).cases}
    assert patients[copy] == patients[STUDIES[0]] == STUDIES[0]
    assert [quirk.kind for quirk in prepared.quirks if quirk.study_id == int(STUDIES[0])].count("same_images") == 1


def images(study: int, patient: str, checksum: int) -> StudyImages:
    volume = VolumeFacts("a.nii.gz", (1, 1, 1), (1.0, 1.0, 1.0), checksum, ())
    patients = (patient,) if patient else ()
    return StudyImages(study, (SeriesFacts(1, "axial_t2", "1", "1", (volume,), patients, ()),))  # type: ignore[arg-type]


def test_patients_hang_together_by_id_and_by_image() -> None:
    patients, _ = patients_of([images(1, "A", 10), images(2, "A", 11), images(3, "B", 11), images(4, "", 12), images(5, "", 13)])
    assert patients == {1: "1", 2: "1", 3: "1", 4: "4", 5: "5"}


def test_a_patient_id_that_all_share_parts_nobody() -> None:
    patients, (quirk,) = patients_of([images(k, "ANONYMOUS", k) for k in range(20)])
    assert len(set(patients.values())) == 20
    assert quirk.seen == "PatientID 'ANONYMOUS' in 20 studies"


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_a_file_of_another_study_ties_both_together_and_is_said(data: Path, tmp_path: Path, keyword: str) -> None:
    theirs = pydicom.dcmread(next((data / "train_images" / STUDIES[2]).rglob("1.dcm")))[keyword].value
    folder = folder_of(data, STUDIES[0], "Axial T2")
    edit_header(folder / "2.dcm", **{keyword: theirs})
    prepared = prepare(data, tmp_path / "out")
    patients = {case.case: case.patient for case in read_datalist(prepared.path).cases}
    assert patients == {STUDIES[0]: STUDIES[0], STUDIES[1]: STUDIES[1], STUDIES[2]: STUDIES[0]}
    (quirk,) = [quirk for quirk in prepared.quirks if quirk.kind == "several_patients"]
    assert quirk.study_id == int(STUDIES[0])
    assert f"{keyword} {str(theirs)!r} in series {folder.name}" in quirk.seen


def test_a_split_with_one_image_on_both_sides_is_refused() -> None:
    alike = [images(1, "", 7), images(2, "", 7)]
    with pytest.raises(TableError, match="Studies 1 and 2 have the same images, and lie in 'training' and in 'test'"):
        refuse_shared_images({"1": "training", "2": "test"}, alike)
    refuse_shared_images({"1": "test", "2": "test"}, alike)


def test_series_that_the_table_lacks_leave_the_rest_in_use(data: Path, tmp_path: Path) -> None:
    gone = {
        row["series_id"]
        for row in series_rows(data)
        if (row["study_id"], row["series_description"]) == (STUDIES[0], "Sagittal T1")
    }
    edit_series(data, lambda row: None if row["series_id"] in gone else row)
    edit_points(data, lambda row: None if row["series_id"] in gone else row)
    shutil.rmtree(data / "train_images" / STUDIES[0] / next(iter(gone)))
    prepared = prepare(data, tmp_path / "out")
    case = next(case for case in read_datalist(prepared.path).cases if case.case == STUDIES[0])
    assert {volume.role for volume in case.volumes} == {"sagittal_t2", "axial_t2"}
    assert len(case.targets) == 15
    assert {"no_series", "label_without_point"} <= {quirk.kind for quirk in prepared.quirks if quirk.study_id == int(case.case)}


def series_rows(data: Path) -> list[dict[str, str]]:
    with (data / "train_series_descriptions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_missing_labels_leave_a_place_without_a_grade(data: Path, tmp_path: Path) -> None:
    slug = "left_subarticular_stenosis_l1_l2"
    edit_train(data, lambda row: {**row, slug: ""})
    prepared = prepare(data, tmp_path / "out")
    document = json.loads(prepared.path.read_text())
    assert all(case["targets"][slug]["severity"] is None for case in document["cases"])
    assert sum(len(quirk.targets) for quirk in prepared.quirks if quirk.kind == "missing_label") == 3
    assert "1 without a label" not in prepared.report.read_text()
    assert "3 without a label" in prepared.report.read_text()


def test_a_study_whose_files_were_changed_since_is_written_again_and_said(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not prepare(data, out).renewed
    before = {path: path.stat().st_mtime_ns for path in (out / "volumes").rglob("*.nii.gz")}
    file = next((data / "train_images" / STUDIES[1]).rglob("3.dcm"))
    dataset = pydicom.dcmread(file)
    dataset.PixelData = (dataset.pixel_array // 2).tobytes()
    dataset.save_as(file)
    renewed = prepare(data, out, PrepareOptions(resume=True)).renewed
    assert set(renewed) == {int(STUDIES[1])}
    assert "its files are not those that it was made from" in renewed[int(STUDIES[1])]
    touched = {path.parent.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert touched == {STUDIES[1]}
    prepare(data, tmp_path / "anew")
    assert contents(out) == contents(tmp_path / "anew")
    file.unlink()
    with pytest.raises(TableError, match=r"3\.dcm is not there\. Restore the file"):
        prepare(data, out, PrepareOptions(resume=True))
