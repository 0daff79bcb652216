"""A prepared study of simulated lesions, made of another prepared study."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_spine.anatomy import Condition, Level, Severity, Target
from monai_spine.errors import OutputError, SpineError, TableError
from monai_spine.geometry import lies_inside
from monai_spine.phantom import prepare_phantom
from monai_spine.phantom.lesions import base_levels, find_canals
from monai_spine.phantom.lesions.losses import severity_of_share
from monai_spine.phantom.lesions.study import prepare_lesions
from monai_spine.phantom.readers import latent_of_narrowing, latent_of_shares, narrowing, reader_shares
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import PreparedTarget, PreparedVolume, read_datalist, write_datalist
from monai_spine.training.grading_crops import items_of
from monai_spine.volume import load_nifti


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bases")
    return prepare_phantom(out, splits={"training": 1, "validation": 1}, seed=9, max_matrix=224).parent


@pytest.fixture(scope="module")
def lesions(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_lesions(bases, tmp_path_factory.mktemp("lesions"), copies=3, seed=2).parent


def test_each_copy_has_lesions_of_its_own_graded_by_what_the_sac_lost(bases: Path, lesions: Path) -> None:
    with (lesions / "lesions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    before = {case.case: case.targets for case in read_datalist(bases).cases}
    targets = {(case.case, target): found for case in read_datalist(lesions).cases for target, found in case.targets.items()}
    assert len(rows) > 9
    for row in rows:
        target = Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.parse(row["level"]))
        shares = before[row["case"].rpartition("_")[0]][target].shares
        assert shares is not None
        share = float(row["share"]) if json.loads(row["lesions"]) else 0.0
        lost = 1 - (1 - float(narrowing(latent_of_shares(target, shares)))) * (1 - share)
        found = targets[row["case"], target]
        assert found.severity is severity_of_share(lost)
        np.testing.assert_allclose(found.shares or (), reader_shares(target, latent_of_narrowing(lost)), atol=1e-4)
    assert {Severity.NORMAL_MILD, Severity.MODERATE} <= {found.severity for found in targets.values()}
    assert len({row["lesions"] for row in rows if row["family"] != "none"}) == sum(row["family"] != "none" for row in rows)
    assert "lipomatosis" not in {row["family"] for row in rows}
    worn = [float(row["share"]) for row in rows if row["family"] == "degeneration"]
    assert worn
    assert max(worn) < 0.2


def test_where_discs_are_graded_a_lesion_makes_another_grade_of_them(bases: Path, tmp_path: Path) -> None:
    whole = read_datalist(bases)
    graded = [replace(case, degeneration={level.label: "normal" for level in case.discs}) for case in whole.cases]
    write_splits(replace(whole, cases=tuple(graded)), tmp_path / "graded", splits=whole.splits)
    folder = prepare_lesions(tmp_path / "graded", tmp_path / "lesions", copies=2, seed=2).parent
    with (folder / "lesions.csv").open(encoding="utf-8") as file:
        drawn = {(row["case"], row["level"]): (row["family"], float(row["share"])) for row in csv.DictReader(file)}
    found = {(case.case, level): grade for case in read_datalist(folder).cases for level, grade in case.degeneration.items()}
    assert len(set(found.values())) > 2
    for place, grade in found.items():
        family, share = drawn[place]
        assert grade == (family if family in ("bulge", "protrusion", "extrusion") else "normal")
        assert grade == "normal" or share >= 0.08
        assert family not in ("stenosis", "lipomatosis", "listhesis")


def test_all_series_of_a_copy_show_its_lesions_and_recesses_and_foramina_are_graded_by_what_is_left(
    bases: Path, lesions: Path
) -> None:
    before, after = read_datalist(bases), read_datalist(lesions)
    scans = {case.case: case for case in before.cases}
    drawn: dict[str, str] = {}
    with (lesions / "lesions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            drawn[row["case"]] = drawn.get(row["case"], "") + row["lesions"]
    worse, changed = 0, set()
    for copy in after.cases:
        base = scans[copy.case.rpartition("_")[0]]
        assert len(copy.volumes) == len(base.volumes)
        for target, found in copy.targets.items():
            assert found.point_ras_mm == base.targets[target].point_ras_mm or "Listhesis" in drawn[copy.case]
            assert found.point_ras_mm == pytest.approx(base.targets[target].point_ras_mm, abs=9.0)
            if target.side is not None:
                worse += _latent(target, found) > _latent(target, base.targets[target]) + 0.2
                assert _latent(target, found) > _latent(target, base.targets[target]) - 1e-6
        for old, new in zip(sorted(base.volumes, key=_order), sorted(copy.volumes, key=_order), strict=True):
            assert old.role == new.role
            scan, shown = nib.load(before.root / old.image), nib.load(after.root / new.image)
            offset = np.round(np.linalg.solve(scan.affine, shown.affine[:, 3])[:3]).astype(int)
            part = np.asarray(scan.dataobj)[tuple(slice(at, at + size) for at, size in zip(offset, shown.shape, strict=True))]
            if (np.abs(np.asarray(shown.dataobj) - part) > 1e-3).any():
                changed.add(new.role)
    assert worse > 5
    assert changed == {"sagittal_t2", "sagittal_t1", "axial_t2"}


def test_the_number_of_processes_changes_nothing(bases: Path, lesions: Path, tmp_path: Path) -> None:
    folder = prepare_lesions(bases, tmp_path, copies=3, seed=2, jobs=2).parent
    for name in ("datalist.json", "lesions.csv"):
        assert (folder / name).read_text(encoding="utf-8") == (lesions / name).read_text(encoding="utf-8")


def _latent(target: Target, found: PreparedTarget) -> float:
    assert found.shares is not None
    return max(latent_of_shares(target, found.shares), -3.0)


def _order(volume: PreparedVolume) -> str:
    return Path(volume.image).name


def test_copies_stay_on_the_side_and_with_the_patient_of_their_scan(bases: Path, lesions: Path) -> None:
    before, after = read_datalist(bases), read_datalist(lesions)
    for split in ("training", "validation"):
        assert {case.patient for case in after.cases_of(split)} == {case.patient for case in before.cases_of(split)}
    assert after.source == "simulated"


def test_a_copy_shows_the_scan_around_the_column_and_changes_it_near_lesions_alone(bases: Path, lesions: Path) -> None:
    before, after = read_datalist(bases), read_datalist(lesions)
    case = next(case for case in after.cases if case.case == f"{before.cases[0].case}_0")
    base = next(volume for volume in before.cases[0].volumes if volume.role == "sagittal_t2")
    scan, copy = nib.load(before.root / base.image), nib.load(after.root / case.volumes[0].image)
    offset = np.round(np.linalg.solve(scan.affine, copy.affine[:, 3])[:3]).astype(int)
    part = np.asarray(scan.dataobj)[tuple(slice(at, at + size) for at, size in zip(offset, copy.shape, strict=True))]
    changed = np.abs(np.asarray(copy.dataobj) - part) > 1e-3
    assert 0.001 < changed.mean() < 0.5
    points = np.array([target.point_ras_mm for target in case.targets.values()])
    assert lies_inside(points, np.asarray(copy.affine, float), copy.shape).all()


def test_a_grader_learns_from_several_prepared_studies_at_once(bases: Path, lesions: Path) -> None:
    wanted = {"condition": "spinal_canal_stenosis", "role": "sagittal_t2"}
    each = [items_of(folder, "training", **wanted) for folder in (bases, lesions)]
    assert items_of([bases, lesions], "training", **wanted) == each[0] + each[1]


def test_canals_are_found_in_the_planes_of_discs_also_of_the_tilted_one_above_the_sacrum(bases: Path) -> None:
    study = read_datalist(bases)
    for case in study.cases:
        scan = load_nifti(study.root / next(volume.image for volume in case.volumes if volume.role == "sagittal_t2"))
        found = find_canals(torch.from_numpy(scan.array), scan.affine, case.discs)
        away = {level: float(np.linalg.norm(np.subtract(found[level], case.canals[level]))) for level in found}
        assert Level.L5_S1 in away
        assert max(away.values()) < 4.5, away


def test_a_study_without_a_fit_level_is_refused(bases: Path, tmp_path: Path) -> None:
    document = json.loads((bases / "datalist.json").read_text(encoding="utf-8"))
    for case in document["cases"]:
        case["discs"] = {Level.L4_L5.label: case["discs"][Level.L4_L5.label]}
    (tmp_path / "datalist.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TableError, match=r"level that may bear a lesion.*1 discs: one and two are needed"):
        prepare_lesions(tmp_path, tmp_path / "out")


def test_what_was_killed_goes_on_where_it_stopped(bases: Path, lesions: Path, tmp_path: Path) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_lesions(bases, tmp_path, copies=3, seed=2, on_case=killed)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "volumes").rglob("*.nii")}
    assert done
    assert not (tmp_path / "datalist.json").exists()
    prepare_lesions(bases, tmp_path, copies=3, seed=2)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    files = {path.relative_to(lesions) for path in lesions.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == files
    for path in files:
        assert (tmp_path / path).read_bytes() == (lesions / path).read_bytes(), path


def test_lesions_are_never_written_over_anything_else(bases: Path, lesions: Path, tmp_path: Path) -> None:
    filled = tmp_path / "filled"
    (filled / "finished").mkdir(parents=True)
    (filled / "finished" / "mine.txt").write_text("kept")
    before = {path: path.read_bytes() for folder in (bases, lesions) for path in folder.rglob("*.json")}
    refused: list[tuple[Path, Path, int, type[SpineError], str]] = [
        (bases, bases, 3, OutputError, "was not made by this"),
        (bases, filled, 3, OutputError, "was not made by this"),
        (bases, lesions, 1, OutputError, "other scans, copies or seed"),
        (lesions, tmp_path, 3, TableError, "simulated lesions itself"),
    ]
    for data, out, copies, error, why in refused:
        with pytest.raises(error, match=why):
            prepare_lesions(data, out, copies=copies, seed=2)
    assert {path: path.read_bytes() for folder in (bases, lesions) for path in folder.rglob("*.json")} == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [filled / "finished" / "mine.txt"]


def test_a_level_without_a_canal_and_one_that_was_not_graded(bases: Path, tmp_path: Path) -> None:
    """The first bears no lesion; the second may."""
    study = read_datalist(bases)
    first, *others = study.cases
    target = Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.L3_L4)
    canals = {level: point for level, point in first.canals.items() if level is not Level.L4_L5}
    targets = {**first.targets, target: replace(first.targets[target], severity=None, shares=None)}
    (tmp_path / "volumes").symlink_to(bases / "volumes")
    changed = replace(first, canals=canals, targets=targets)
    write_datalist(tmp_path, study="s", source="simulated", cases=[changed, *others], splits=study.splits)
    assert Level.L3_L4 in base_levels(changed)
    made = prepare_lesions(tmp_path, tmp_path / "out", copies=1)
    with (made.parent / "lesions.csv").open(encoding="utf-8") as file:
        levels = {row["level"] for row in csv.DictReader(file) if row["case"] == f"{first.case}_0"}
    assert "L4/L5" not in levels
    assert levels


@pytest.mark.parametrize("name", ["../../escaped", "a/../../b", "/a", "..", ".", "", "./a", "a//b", "a/./b", "a\0"])
def test_no_case_is_written_outside_its_folder(bases: Path, tmp_path: Path, name: str) -> None:
    study = read_datalist(bases)
    with pytest.raises(TableError, match="no path inside a folder"):
        write_datalist(tmp_path, study="s", source="real", cases=[replace(study.cases[0], case=name)], splits={})


def test_lesions_of_a_case_that_lies_in_a_subfolder(bases: Path, tmp_path: Path) -> None:
    case = replace(read_datalist(bases).cases[0], case="p1/t2")
    (tmp_path / "volumes").symlink_to(bases / "volumes")
    write_datalist(tmp_path, study="s", source="simulated", cases=[case], splits={})
    made = prepare_lesions(tmp_path, tmp_path / "out", copies=1)
    assert (made.parent / "volumes" / "p1" / "t2_0" / "sagittal_t2.nii").is_file()


def test_canals_without_a_point_of_their_own_are_no_targets_of_a_copy(bases: Path, tmp_path: Path) -> None:
    case = read_datalist(bases).cases[0]
    alone = replace(case, canals={Level.L4_L5: case.canals[Level.L4_L5]})
    (tmp_path / "volumes").symlink_to(bases / "volumes")
    write_datalist(tmp_path, study="s", source="simulated", cases=[alone], splits={})
    made = read_datalist(prepare_lesions(tmp_path, tmp_path / "out", copies=1).parent)
    canals = {target.level for target in made.cases[0].targets if target.condition is Condition.SPINAL_CANAL_STENOSIS}
    assert canals == {Level.L4_L5}
