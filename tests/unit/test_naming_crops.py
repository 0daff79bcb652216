"""The naming network's examples: which places they show, what they are called, and that inference shows the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import NAME_BLOCK
from tiny_prepared import affine_of

from monai_spine.anatomy import DISCS, LEVELS, Level
from monai_spine.errors import TableError
from monai_spine.geometry import affine_from_spacing
from monai_spine.level_names import CLASSES, NameBlock, cut_name_blocks
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, write_datalist
from monai_spine.training.naming_crops import NamingCrops, naming_items, whole_column
from monai_spine.volume import load_nifti

COLUMN = np.array([[1.0, 2.0, 70.0 - 35.0 * step] for step in range(6)])
DISC_POINTS = {level: (0.0, 24.0, 70.0 - 35.0 * at) for at, level in enumerate(LEVELS)}
FINE = {"shape": [4, 16, 40], "spacing_mm": [8.0, 4.0, 4.0], "center_mm": [0.0, -10.0, 0.0]}
ROUGH = {"shift_mm": [8.0, 8.0, 8.0], "rotation_deg": [10.0, 3.0, 3.0], "scale": 0.15, "flip": True}
NOWHERE = [np.nan] * 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sagittal scan from S 152 to -128 mm and an axial one, stored as scanners do; L1/L2 to L5/S1 are labelled."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    for role, shape, higher_mm in (("sagittal_t2", (110, 280, 14), 60.0), ("axial_t2", (40, 40, 20), 0.0)):
        image, affine = 100 + 5 * np.arange(shape[1])[:, None] + rng.normal(0, 20, shape), affine_of(role)
        affine[2, 3] += higher_mm
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / f"{role}.nii")
    volumes = tuple(PreparedVolume(f"{role}.nii", role) for role in ("sagittal_t2", "axial_t2"))
    case = PreparedCase("1", "1", volumes, discs=DISC_POINTS)
    write_datalist(folder, study="noise", source="simulated", cases=[case], splits={"training": ["1"]})
    return folder


@pytest.fixture(scope="module")
def items(prepared: Path) -> list[dict[str, Any]]:
    return naming_items(prepared, "training")


def test_a_whole_column_keeps_what_is_labelled() -> None:
    np.testing.assert_array_equal(whole_column(COLUMN)[1:-1], COLUMN)


@given(
    step=st.tuples(st.floats(-5, 5), st.floats(-15, 15), st.floats(-45, -25)),
    start=st.tuples(*3 * [st.floats(-50, 50)]),
)
def test_the_discs_above_are_laid_on_along_the_column_a_little_nearer_each(step, start) -> None:
    column = np.array([np.add(start, np.multiply(step, at)) for at in range(6)])
    np.testing.assert_allclose(whole_column(column)[0], column[0] - 0.95 * np.array(step), atol=1e-9)
    without_first = column.copy()
    without_first[0] = NOWHERE
    found = whole_column(without_first)
    np.testing.assert_allclose(found[1], column[1] - 0.95 * np.array(step), atol=1e-9)
    np.testing.assert_allclose(found[0], found[1] - 0.95**2 * np.array(step), atol=1e-9)


@pytest.mark.parametrize("size", [0.8, 1.0, 1.2])
def test_the_disc_below_lies_down_and_back_as_far_as_the_column_is_large(size: float) -> None:
    below = whole_column(COLUMN * size)[-1] - COLUMN[-1] * size
    np.testing.assert_allclose(below, [0.0, -14.0 * size, -24.0 * size])


def test_what_cannot_be_known_of_a_column_stays_unknown() -> None:
    column = COLUMN.copy()
    column[[0, 1, 4]] = NOWHERE
    known = np.isfinite(whole_column(column)).all(1)
    assert [name for name, is_known in zip(CLASSES, known, strict=True) if is_known] == ["L2/L3", "L3/L4", "L5/S1"]
    assert not np.isfinite(whole_column(np.full((6, 3), np.nan))).any()


def test_each_place_of_each_sagittal_volume_is_an_example_of_its_class(prepared: Path, items) -> None:
    assert {Path(item["image"]).name for item in items} == {"sagittal_t2.nii"}
    assert [item["label"] for item in items] == list(range(8))
    for level, point in DISC_POINTS.items():
        np.testing.assert_allclose(items[CLASSES.index(level.label)]["place"], point)
    assert items[0]["place"][2] > items[1]["place"][2] > items[2]["place"][2]
    assert items[-1]["place"][2] < items[-2]["place"][2]
    with pytest.raises(TableError, match="nothing in split 'validation'"):
        naming_items(prepared, "validation")


def test_examples_bear_their_label_and_their_data_set(items) -> None:
    examples = NamingCrops(items, NAME_BLOCK)
    assert len(examples) == 8
    assert [(examples[at]["label"], examples[at]["study"]) for at in range(8)] == [(at, "noise") for at in range(8)]
    assert examples[0]["image"].shape == (1, *NAME_BLOCK["shape"])
    assert examples[0]["image"].dtype == torch.float32


def test_a_block_without_jitter_is_the_one_that_inference_cuts(prepared: Path, items) -> None:
    def transform(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "image": data["image"] / 1000}

    points = [item["place"] for item in items]
    blocks = cut_name_blocks(load_nifti(prepared / "sagittal_t2.nii"), points, NameBlock.from_config(FINE), transform)
    for at, example in enumerate(NamingCrops(items, FINE, transform)[at] for at in range(len(items))):
        np.testing.assert_allclose(example["image"], blocks[at], atol=2e-3)
        np.testing.assert_allclose(NamingCrops(items, FINE, transform, jitter={})[at]["image"], blocks[at], atol=2e-3)
    assert not torch.allclose(blocks[2], blocks[5], atol=0.05), "the blocks differ"


def test_jitter_shows_something_near(items) -> None:
    still, moving = NamingCrops(items, FINE), NamingCrops(items, FINE, jitter=ROUGH)
    first, second = moving[4]["image"], moving[4]["image"]
    assert not torch.equal(first, second)
    assert np.corrcoef(first.flatten(), still[4]["image"].flatten())[0, 1] > 0.8


def test_the_same_seed_gives_the_same_blocks(items) -> None:
    one, other = (NamingCrops(items, FINE, jitter=ROUGH, cut_prob=0.5, seed=seed) for seed in (3, 4))
    assert not torch.equal(one[3]["image"], other[3]["image"])
    one.set_random_state(5)
    other.set_random_state(5)
    for number in range(4):
        assert torch.equal(one[number]["image"], other[number]["image"])


def test_a_cut_repeats_the_last_slice_beyond_it_and_leaves_the_middle(items) -> None:
    whole = NamingCrops(items, FINE)[4]["image"][0]
    cuts = NamingCrops(items, FINE, cut_prob=1.0)
    ends = set()
    for _ in range(8):
        image = cuts[4]["image"][0]
        kept = [at for at in range(image.shape[-1]) if torch.equal(image[..., at], whole[..., at])]
        low, high = kept[0], kept[-1]
        assert kept == list(range(low, high + 1))
        assert low <= 16
        assert high >= 23
        assert (image[..., :low] == whole[..., low : low + 1]).all()
        assert (image[..., high + 1 :] == whole[..., high : high + 1]).all()
        ends.add((low, high))
    assert len(ends) > 4, "each cut is another"


def test_without_a_cut_the_block_is_whole(items) -> None:
    whole, never = NamingCrops(items, FINE), NamingCrops(items, FINE, cut_prob=0.0, seed=9)
    assert all(torch.equal(whole[4]["image"], never[4]["image"]) for _ in range(5))


def test_only_labelled_discs_and_the_one_below_are_examples_of_a_column_without_a_top(tmp_path: Path) -> None:
    lowest = {DISCS[4]: (0.0, 0.0, -30.0), DISCS[5]: (0.0, 0.0, -65.0)}
    assert classes_shown(tmp_path, lowest, from_mm=-120.0, to_mm=120.0) == ["L4/L5", "L5/S1", "below"]


def test_places_outside_of_the_scan_are_no_examples(tmp_path: Path) -> None:
    """Discs lie at S 70, 35, 0, -35 and -70 mm; those above them would lie at 103 and 135 mm, the one below at -94 mm."""
    assert classes_shown(tmp_path / "1", DISC_POINTS, from_mm=-40.0, to_mm=105.0) == list(CLASSES[1:6])
    assert classes_shown(tmp_path / "2", DISC_POINTS, from_mm=-120.0, to_mm=69.0) == list(CLASSES[3:])
    assert classes_shown(tmp_path / "3", DISC_POINTS, from_mm=-120.0, to_mm=140.0) == list(CLASSES)


def classes_shown(folder: Path, discs: dict[Level, tuple[float, float, float]], *, from_mm: float, to_mm: float) -> list[str]:
    """Classes of the examples of a scan that reaches from one height to another."""
    folder.mkdir(exist_ok=True)
    shape = (10, 10, round(to_mm - from_mm))
    affine = affine_from_spacing((10.0, 10.0, 1.0), center_ras_mm=(0.0, 0.0, (from_mm + to_mm) / 2), shape=shape)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), affine), folder / "image.nii")
    case = PreparedCase("1", "1", (PreparedVolume("image.nii", "sagittal"),), discs=discs)
    write_datalist(folder, study="low", source="simulated", cases=[case], splits={"training": ["1"]})
    return [CLASSES[item["label"]] for item in naming_items(folder, "training")]


def test_a_flat_block_shows_one_of_its_middle_slices_everywhere(items) -> None:
    whole, flat = NamingCrops(items, FINE), NamingCrops(items, FINE, flat_prob=1.0)
    expected, chosen = whole[4]["image"][0], set()
    for _ in range(20):
        image = flat[4]["image"][0]
        same = [at for at, one in enumerate(expected) if torch.equal(one, image[0])]
        assert len(same) == 1
        chosen.update(same)
        assert all(torch.equal(one, image[0]) for one in image)
    assert chosen == {1, 2}
