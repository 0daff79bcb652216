"""Preparing the real lumbar volumes: orientation, points between endplates, patients kept apart."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest

from monai_spine.anatomy import LEVELS, Vertebra
from monai_spine.errors import UnreadableInputError
from monai_spine.levels import BODY_VALUES
from monai_spine.studies.endplates import canal_behind, disc_below, disc_between
from monai_spine.studies.lumbar_volumes import prepare, split_by_patient
from monai_spine.training.datalists import read_datalist

CHOSEN = ("IVD_20", "VB1_08", "VB2_08", "VB3_03")


def block(center: tuple[float, float, float], tilt: float = 0.0) -> np.ndarray:
    """Voxel centres of a body 44 × 34 × 26 mm, its plates turned in the sagittal plane."""
    r, a, s = np.meshgrid(np.arange(-22, 23, 4.0), np.arange(-17, 18, 1.0), np.arange(-13, 14, 1.0), indexing="ij")
    turned_a, turned_s = np.cos(tilt) * a - np.sin(tilt) * s, np.sin(tilt) * a + np.cos(tilt) * s
    return np.stack([r, turned_a, turned_s], -1).reshape(-1, 3) + center


def test_a_disc_lies_midway_between_facing_endplates():
    gap = disc_between(block((0, 0, 18)), block((0, 0, -18)))
    np.testing.assert_allclose(gap.mean(0), [0, 0, 0], atol=1.0)


def test_bodies_that_touch_have_no_disc():
    with pytest.raises(ValueError, match="no gap between bodies"):
        disc_between(block((0, 0, 10)), block((0, 0, -10)))


def test_the_disc_below_follows_the_tilt_of_the_endplate():
    tilt = np.radians(20)
    found = disc_below(block((0, 0, 0), tilt), (0.0, 3.0, 20.0))
    down = np.array([0, np.sin(tilt), -np.cos(tilt)])
    np.testing.assert_allclose(found, 18 * down, atol=1.5)


def test_the_canal_lies_behind_the_posterior_margin():
    canal = canal_behind((0.0, 0.0, 0.0), np.concatenate([block((0, 0, 18)), block((0, 0, -18))]), np.array([0, 0, -1.0]))
    np.testing.assert_allclose(canal, [0, -25.5, 0], atol=1.0)


def test_a_fifth_of_the_patients_is_held_out_and_no_patient_is_split():
    patients = {f"VB3_{number:02d}": f"VB3_{number:02d}" for number in range(40)} | {"VB1_02": "VB1_02", "VB1_03": "VB1_02"}
    splits = split_by_patient(patients)
    assert len(splits["validation"]) == 8
    assert {"VB1_02", "VB1_03"} <= set(splits["training"])
    assert splits == split_by_patient(dict(reversed(patients.items())))


def _write_case(folder, values, name="VB3_99"):
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.int16), np.eye(4)), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(values.astype(np.uint8), np.eye(4)), folder / f"{name}_labels.nii.gz")
    return folder


def _two_voxels():
    values = np.zeros((40, 40, 40))
    values[5, 5, 5], values[5, 5, 25] = 1, 2
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((40, 40, 40)), r"VB3_99_labels\.nii\.gz marks no vertebra and no disc"),
        (
            np.zeros((40, 40, 39)),
            r"VB3_99: the volume \(\(40, 40, 40\)\) and its labels \(\(40, 40, 39\)\) lie on different grids",
        ),
        (_two_voxels(), r"VB3_99_labels\.nii\.gz: its bodies let no disc be placed \(.*Restore it from the set"),
    ],
)
def test_a_label_map_that_says_nothing_is_refused_by_name(tmp_path, values, message):
    with pytest.raises(UnreadableInputError, match=message):
        prepare(_write_case(tmp_path / "data", values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_foreign_is_refused_before_anything_is_written(tmp_path):
    data = _write_case(tmp_path / "data", np.zeros((40, 40, 40)))
    _write_case(data, np.zeros((40, 40, 40)), name="XX_1")
    with pytest.raises(UnreadableInputError, match="'XX_1' is of no known set"):
        prepare(data, tmp_path / "out")
    (data / "VB3_99.nii.gz").unlink()
    with pytest.raises(UnreadableInputError, match=r"labels of VB3_99, but no VB3_99\.nii\.gz"):
        prepare(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["VB3_99.nii.gz", "VB3_99_labels.nii.gz"])
def test_a_cut_file_is_named(tmp_path, name):
    data = _write_case(tmp_path / "data", np.random.default_rng(0).integers(0, 9, (40, 40, 40)))
    (data / name).write_bytes((data / name).read_bytes()[:60])
    with pytest.raises(UnreadableInputError, match=rf"{name} cannot be read as NIfTI"):
        prepare(data, tmp_path / "out")


def test_a_folder_without_volumes_is_refused(tmp_path):
    with pytest.raises(UnreadableInputError, match="does not exist, or is no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UnreadableInputError, match="holds no NAME_labels"):
        prepare(tmp_path, tmp_path / "out")


@pytest.fixture(scope="module")
def prepared(lumbar_volumes_dir, tmp_path_factory):
    source = tmp_path_factory.mktemp("lumbar")
    for name in CHOSEN:
        for end in (".nii.gz", "_labels.nii.gz"):
            (source / f"{name}{end}").symlink_to(lumbar_volumes_dir / f"{name}{end}")
    return read_datalist(prepare(source, tmp_path_factory.mktemp("prepared")))


def stated(folder) -> dict:
    with (folder / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["volume"], row["structure"]): np.array([float(row[axis]) for axis in ("r_mm", "a_mm", "s_mm")]) for row in rows}


def test_points_agree_with_the_published_ones(prepared, lumbar_volumes_dir):
    known = stated(lumbar_volumes_dir)
    for case in prepared.cases:
        points = {place.label: point for place, point in {**case.discs, **case.vertebrae}.items()}
        for name, point in points.items():
            if (case.case, name) in known:
                np.testing.assert_allclose(point, known[case.case, name], atol=1.5)


def test_discs_lie_between_their_vertebrae_and_in_order(prepared):
    for case in prepared.cases:
        heights = [case.discs[level][2] for level in LEVELS]
        assert heights == sorted(heights, reverse=True)
        for level in LEVELS[:4]:
            if level.vertebra_above in case.vertebrae and level.vertebra_below in case.vertebrae:
                middle = np.mean([case.vertebrae[level.vertebra_above], case.vertebrae[level.vertebra_below]], axis=0)
                assert np.linalg.norm(middle - case.discs[level]) < 8


def test_what_was_derived_is_called_estimated(prepared):
    cases = {case.case: case for case in prepared.cases}
    assert "disc L5/S1" in cases["VB3_03"].estimated
    assert "disc L5/S1" not in cases["VB1_08"].estimated
    assert cases["IVD_20"].estimated == ()
    assert all(f"canal {level.label}" in cases["VB2_08"].estimated for level in LEVELS)


def test_an_estimated_l5_s1_lies_within_7_mm_of_the_drawn_one(prepared):
    case = next(case for case in prepared.cases if case.case == "VB1_08")
    labels = nib.load(prepared.root / case.volumes[0].bodies)
    from monai_spine.studies.endplates import mask_points

    l5 = mask_points(np.asarray(labels.dataobj) == 5, labels.affine)
    assert np.linalg.norm(np.subtract(disc_below(l5, case.discs[LEVELS[3]]), case.discs[LEVELS[4]])) < 7


def test_masks_hold_the_bodies_that_they_are_said_to_mark(prepared):
    for case in prepared.cases:
        (volume,) = case.volumes
        image = nib.load(prepared.root / volume.image)
        if volume.bodies is None:
            assert case.case.startswith("IVD")
            continue
        labels = nib.load(prepared.root / volume.bodies)
        values = set(np.unique(np.asarray(labels.dataobj)).tolist()) - {0}
        assert labels.shape == image.shape
        assert values == {BODY_VALUES[body] for body in volume.bodies_labelled}
        assert values - {BODY_VALUES[Vertebra.S1], BODY_VALUES[Vertebra.T12]} == {1, 2, 3, 4, 5}
