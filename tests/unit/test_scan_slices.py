"""Slices are cut within their own scan, sides keep their names in a mirror, and a marker lies on its point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_prepared import ROLE_OF, write_tiny_prepared

from monai_spine.anatomy import KINDS, Condition, Target
from monai_spine.training.condition_crops import condition_items
from monai_spine.training.scan_slices import ScanSlices

ROLES = {condition.slug: role for condition, role in ROLE_OF.items()}
CROP = {"roles": ROLES, "size_mm": [4.0, 40.0, 40.0], "shape": [1, 40, 40], "min_coverage": 0.25}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)
    return condition_items(folder, "training", roles=ROLES)


def place_of(slices: ScanSlices, condition: Condition) -> int:
    return next(at for at, item in enumerate(slices.items) if Target.parse(item["target"]).condition is condition)


def test_scans_of_all_roles_give_pictures_of_one_shape(items: list[dict[str, Any]]) -> None:
    slices = ScanSlices(items, CROP)
    assert len(slices) == len(items)
    assert {tuple(slices[at]["image"].shape) for at in range(len(slices))} == {(1, 1, 40, 40)}


def test_an_axial_picture_shows_right_and_front_a_sagittal_one_front_and_head(items: list[dict[str, Any]]) -> None:
    """The canal is a column along S: a band in a sagittal slice, a disc in an axial one."""
    slices = ScanSlices(items, CROP)
    sagittal = slices[place_of(slices, Condition.SPINAL_CANAL_STENOSIS)]["image"][0, 0].numpy()
    assert (sagittal[16:24, :12] > 500).mean() > 0.9
    assert (sagittal[:8] < 500).mean() > 0.9
    axial = slices[place_of(slices, Condition.SUBARTICULAR_STENOSIS)]
    left = "left" in axial["target"]
    image = axial["image"][0, 0].numpy()
    canal = slice(24, 34) if left else slice(6, 16)  # the canal lies inwards of a recess: to the right of a left one
    assert image[canal, 16:24].mean() > image[:, :8].mean() + 200


def test_a_mirror_exchanges_the_sides_of_axial_slices_alone(items: list[dict[str, Any]]) -> None:
    mirrored = ScanSlices(items, CROP, jitter={"flip": True})
    plain = ScanSlices(items, CROP)
    for condition in (Condition.SUBARTICULAR_STENOSIS, Condition.NEURAL_FORAMINAL_NARROWING):
        at = place_of(plain, condition)
        seen = [mirrored[at] for _ in range(12)]
        own, image = plain[at]["target"], plain[at]["image"]
        turned = [one for one in seen if not np.allclose(one["image"], image)]
        assert 0 < len(turned) < 12
        assert all(np.allclose(one["image"], image.flip(2)) for one in turned)
        other = Target.parse(own).mirrored.slug if condition is Condition.SUBARTICULAR_STENOSIS else own
        assert {one["target"] for one in turned} == {other}
        assert all(KINDS[int(one["label"][0])] == Target.parse(one["target"]).kind for one in seen)


def test_a_whole_slice_bears_its_marker_where_the_point_lies(items: list[dict[str, Any]]) -> None:
    crop = {**CROP, "shape": [1, 96, 96], "whole": True}
    bare, marked = ScanSlices(items, crop), ScanSlices(items, {**crop, "marker_mm": 4.0})
    for condition in Condition:
        at = place_of(bare, condition)
        before, after = bare[at]["image"][0, 0].numpy(), marked[at]["image"][0, 0].numpy()
        changed = np.argwhere(before != after)
        assert 5 < len(changed) < 60
        assert float(after[tuple(changed[0])]) == pytest.approx(before.max())
    edge = 180.0  # mm, the longer edge of a sagittal slice; its centre lies at A −30 + 0.5, S 92 − 89.5
    item = marked.items[place_of(marked, Condition.SPINAL_CANAL_STENOSIS)]
    _, a, s = item["point_ras_mm"]
    at = place_of(marked, Condition.SPINAL_CANAL_STENOSIS)
    middle = np.argwhere(bare[at]["image"][0, 0].numpy() != marked[at]["image"][0, 0].numpy()).mean(axis=0)
    center = 60 - (110 - 1) / 2, 92 - (180 - 1) / 2
    expected = [(value - mid) / (edge / 96) + (96 - 1) / 2 for value, mid in zip((a, s), center, strict=True)]
    assert middle == pytest.approx(expected, abs=1.0)


def test_several_slices_make_a_volume_in_the_same_frame(items: list[dict[str, Any]]) -> None:
    volume = ScanSlices(items, {**CROP, "size_mm": [12.0, 40.0, 40.0], "shape": [3, 40, 40]})
    at = place_of(volume, Condition.SUBARTICULAR_STENOSIS)
    flat = ScanSlices(items, CROP)[at]["image"]
    assert np.allclose(volume[at]["image"][:, 1:2], flat, atol=1e-3)


def test_half_of_the_pictures_stay_where_they_are_with_a_prob_of_a_half(items: list[dict[str, Any]]) -> None:
    moved = ScanSlices(items, CROP, jitter={"rotation_deg": 15.0, "prob": 0.5})
    still = [np.allclose(moved.placed([0])[0], moved._affines[:1]) for _ in range(40)]
    assert 10 <= sum(still) <= 30
