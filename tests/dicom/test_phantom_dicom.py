"""Simulated studies as DICOM: what is written is read back in its place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pydicom
import pytest

from monai_spine.anatomy import TARGETS
from monai_spine.geometry import apply_affine, slice_affine
from monai_spine.phantom import write_phantom_studies
from monai_spine.phantom.simulate import simulate_patient


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom")
    write_phantom_studies(out, studies=2, seed=5, max_matrix=192)
    return out


def test_the_tables_have_the_competitions_form(written):
    train = pd.read_csv(written / "train.csv")
    points = pd.read_csv(written / "train_label_coordinates.csv")
    assert len(train) == 2
    assert len(train.columns) == 26
    assert len(points) == 2 * len(TARGETS)
    assert (written / "sample_submission.csv").read_text().startswith("row_id,normal_mild,moderate,severe\n")


def test_each_mark_lies_on_its_target(written):
    points = pd.read_csv(written / "train_label_coordinates.csv")
    for index in range(2):
        simulated = simulate_patient(index, seed=5, max_matrix=192)
        for mark in points[points.study_id == simulated.study_id].itertuples():
            folder = written / "train_images" / str(mark.study_id) / str(mark.series_id)
            header = pydicom.dcmread(folder / f"{mark.instance_number}.dcm", stop_before_pixels=True)
            affine = slice_affine(
                header.ImagePositionPatient, header.ImageOrientationPatient, pixel_spacing_mm=header.PixelSpacing,
                step_lps_mm=np.cross(header.ImageOrientationPatient[:3], header.ImageOrientationPatient[3:]),
            )  # fmt: skip
            name = f"{mark.condition} {mark.level}"
            target = next(target for target in TARGETS if target.label == name)
            distance = np.linalg.norm(apply_affine(affine, [mark.x, mark.y, 0]) - simulated.spine.target_point(target))
            assert distance < 5.0, name  # a straight stack may end just short of the lowest recess


def test_the_same_seed_writes_the_same_pixels(written, tmp_path):
    write_phantom_studies(tmp_path, studies=1, seed=5, max_matrix=192)
    for path in sorted((tmp_path / "train_images").rglob("*.dcm"))[::9]:
        same = written / path.relative_to(tmp_path)
        assert same.read_bytes() == path.read_bytes()


def test_a_study_that_is_there_is_kept(written):
    kept = next((written / "train_images").rglob("*.dcm"))
    before = kept.stat().st_mtime_ns
    write_phantom_studies(written, studies=2, seed=5, max_matrix=192)
    assert kept.stat().st_mtime_ns == before
