"""The refining network's examples: what is shown, what is asked, and that inference shows the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import BLOCK
from tiny_prepared import affine_of

from monai_spine.anatomy import DISCS, Condition, Level, Severity, Side, Target, Vertebra
from monai_spine.errors import TableError
from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.level_refinement import DiscBlock, block_affine, column_direction, cut_blocks
from monai_spine.levels import BODY_VALUES, LevelPoint, Levels
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, write_datalist
from monai_spine.training.block_examples import BlockJitter
from monai_spine.training.refinement_crops import RefinementCrops, refinement_items
from monai_spine.volume import load_nifti

DISC_POINTS = {level: (0.0, 4.0 + 0.03 * (20.0 - 35.0 * at), 55.0 - 35.0 * at) for at, level in enumerate(DISCS[1:5])}
CANAL_POINTS = {level: (0.0, a - 24.0, s) for level, (_, a, s) in DISC_POINTS.items() if level is not Level.L4_L5}
FORAMEN_POINTS = {
    (level, side): (outwards, a - 19.0, s + 8.0)
    for level, (_, a, s) in DISC_POINTS.items()
    for side, outwards in ((Side.LEFT, -16.0), (Side.RIGHT, 18.0))
    if (level, side) != (Level.L3_L4, Side.RIGHT)
}
MARKED = (Vertebra.L2, Vertebra.L3)
CENTERED = {**BLOCK, "center_mm": [0.0, 0.0, 0.0]}
ROUGH = {"shift_mm": [8.0, 8.0, 8.0], "rotation_deg": [15.0, 10.0, 10.0], "scale": 0.15, "flip": True}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scan, stored as scanners do, whose discs are bright spots; L2 and L3 are drawn, L1/L2's canal was derived.

    The right foramen of L3/L4 is not labelled, and T12/L1 lies above the scan.
    """
    folder = tmp_path_factory.mktemp("prepared")
    affine, shape = affine_of("sagittal_t2"), (110, 180, 14)
    places = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    image = sum(np.exp(-((places - point) ** 2).sum(-1) / (2 * 5.0**2)) for point in DISC_POINTS.values())
    bodies = np.zeros(shape, np.uint8)
    for body, at in ((Vertebra.L2, 1), (Vertebra.L3, 2)):
        middle = np.mean([DISC_POINTS[DISCS[at]], DISC_POINTS[DISCS[at + 1]]], axis=0)
        bodies[(np.abs(places - middle) < [20, 15, 13]).all(-1)] = BODY_VALUES[body]
    nib.save(nib.Nifti1Image((1000 * image).astype(np.int16), affine), folder / "image.nii")
    nib.save(nib.Nifti1Image(bodies, affine), folder / "bodies.nii.gz")
    volumes = (PreparedVolume("image.nii", "sagittal_t2", None, "bodies.nii.gz", MARKED), PreparedVolume("image.nii", "sagittal"))
    discs = {**DISC_POINTS, Level.L5_S1: (0.0, 0.0, -85.0), Level.T12_L1: (0.0, 5.74, 93.0)}
    targets = {
        Target(Condition.NEURAL_FORAMINAL_NARROWING, side, level): PreparedTarget(point, Severity.MODERATE)
        for (level, side), point in FORAMEN_POINTS.items()
    }
    estimated = ("disc L5/S1", f"canal {Level.L1_L2.label}")
    case = PreparedCase("1", "1", volumes, discs=discs, canals=CANAL_POINTS, targets=targets, estimated=estimated)
    write_datalist(folder, study="spots", source="simulated", cases=[case], splits={"training": ["1"], "validation": ["1"][:0]})
    return folder


@pytest.fixture(scope="module")
def items(prepared: Path) -> list[dict[str, Any]]:
    return refinement_items(prepared, "training")


def test_each_disc_that_was_seen_and_labelled_is_an_example_on_every_volume_that_shows_it(items) -> None:
    assert [DISCS[item["disc"]] for item in items] == 2 * list(DISC_POINTS)


def test_a_split_without_a_labelled_disc_is_refused(tmp_path: Path) -> None:
    case = PreparedCase(
        "1", "1", (PreparedVolume("image.nii", "sagittal"),), discs={Level.L5_S1: (0, 0, 0)}, estimated=("disc L5/S1",)
    )
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "image.nii")
    write_datalist(tmp_path, study="none", source="simulated", cases=[case], splits={"training": ["1"]})
    with pytest.raises(TableError, match="No disc is labelled in split 'training'"):
        refinement_items(tmp_path, "training")
    with pytest.raises(TableError, match="nothing in split 'test'"):
        refinement_items(tmp_path, "test")


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), number=st.integers(0, 3))
def test_targets_and_images_lie_where_the_points_are_under_any_jitter(items, seed: int, number: int) -> None:
    example = RefinementCrops(items, CENTERED, jitter=ROUGH, seed=seed)[number]
    affine, points = example["affine"].numpy(), example["points"].numpy()
    disc, canal, left, right = apply_affine(invert_affine(affine), points)
    np.testing.assert_allclose(points[0], DISC_POINTS[DISCS[items[number]["disc"]]], atol=1e-4)
    shape = np.array(CENTERED["shape"])
    assert (np.abs(disc - (shape - 1) / 2) * CENTERED["spacing_mm"] < 8.0 * np.exp(0.3) + 1e-6).all(), "within the largest shift"
    peak = np.unravel_index(int(example["target"][0].argmax()), shape)
    assert np.abs(peak - disc).max() <= 0.5 + 1e-4
    places = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    near = np.linalg.norm(places - points[0], axis=-1) < 12
    brightest = np.unravel_index(int(np.where(near, example["image"][0], 0).argmax()), shape)
    assert np.abs(brightest - disc).max() <= 1.6
    if np.isfinite(canal).all() and (canal > 0).all() and (canal < shape - 1).all():
        peak = np.unravel_index(int(example["target"][1].argmax()), shape)
        assert np.abs(peak - canal).max() <= 0.5 + 1e-4
    for foramen in (left, right):
        if np.isfinite(foramen).all() and (foramen > 0).all() and (foramen < shape - 1).all():
            nearest = np.round(foramen).astype(int)
            off_mm = np.linalg.norm((nearest - foramen) * CENTERED["spacing_mm"])
            assert float(example["target"][2][tuple(nearest)]) == pytest.approx(np.exp(-0.5 * (off_mm / 4.0) ** 2), abs=1e-4)


@pytest.mark.parametrize("jitter", [None, ROUGH])
def test_masks_of_the_bodies_lie_above_and_below_their_disc(items, jitter) -> None:
    example = RefinementCrops(items, BLOCK, jitter=jitter)[1]
    assert DISCS[items[1]["disc"]] is Level.L2_L3
    for channel, body in ((3, Vertebra.L2), (4, Vertebra.L3)):
        at = DISCS.index(next(level for level in DISCS if level.vertebra_below is body))
        middle = np.mean([DISC_POINTS[DISCS[at]], DISC_POINTS[DISCS[at + 1]]], axis=0)
        away = np.abs(apply_affine(example["affine"].numpy(), np.moveaxis(np.indices(BLOCK["shape"]), 0, -1)) - middle)
        mask = example["target"][channel].numpy()
        assert (mask[(away < [16, 12, 10]).all(-1)] > 0.5).all()
        assert (mask[(away > [24, 18, 16]).any(-1)] < 0.5).all()
        assert (mask > 0.5).sum() > 300


def test_weights_count_only_what_is_labelled(items) -> None:
    weights = [example["weight"].tolist() for example in RefinementCrops(items, BLOCK, estimated_weight=0.25)]
    assert [DISCS[item["disc"]].label for item in items[:4]] == ["L1/L2", "L2/L3", "L3/L4", "L4/L5"]
    points = [[1.0, 0.25, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    bodies = [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert weights[:4] == [one + both for one, both in zip(points, bodies, strict=True)]
    assert weights[4:] == [[*one, 0.0, 0.0] for one in points], "no body is drawn on the other volume"
    unlabelled = RefinementCrops(items, BLOCK)[7]["target"]
    assert float(unlabelled[[1, 3, 4]].abs().max()) == 0.0


def test_foramina_share_a_channel_and_keep_their_sides_as_points(items) -> None:
    """The block reaches 22 mm to each side and lies 4 mm to the right of its disc."""
    example = RefinementCrops(items, BLOCK)[1]
    level = DISCS[items[1]["disc"]]
    assert example["points"].shape == (4, 3)
    np.testing.assert_allclose(example["points"][2], FORAMEN_POINTS[level, Side.LEFT], atol=1e-4)
    np.testing.assert_allclose(example["points"][3], FORAMEN_POINTS[level, Side.RIGHT], atol=1e-4)
    places = apply_affine(example["affine"].numpy(), np.moveaxis(np.indices(BLOCK["shape"]), 0, -1))
    for side in Side:
        away = np.linalg.norm(places - FORAMEN_POINTS[level, side], axis=-1)
        np.testing.assert_allclose(example["target"][2][away < 4], np.exp(-(away[away < 4] ** 2) / (2 * 4.0**2)), atol=0.02)
    assert float(example["target"][2][np.abs(places[..., 0]) < 3].max()) < 0.05, "nothing lies between them"


def test_a_level_without_both_foramina_teaches_nothing_of_them(items) -> None:
    example = RefinementCrops(items, BLOCK)[2]
    assert DISCS[items[2]["disc"]] is Level.L3_L4
    assert float(example["weight"][2]) == 0.0
    assert example["points"][3].isnan().all()


def test_the_same_seed_gives_the_same_blocks(items) -> None:
    one, other = (RefinementCrops(items, BLOCK, jitter=ROUGH, seed=seed) for seed in (3, 4))
    first, second = one[0], one[0]
    assert not torch.equal(first["affine"], second["affine"])
    assert not torch.equal(first["affine"], other[0]["affine"])
    one.set_random_state(5)
    other.set_random_state(5)
    for number in range(3):
        mine, yours = one[number], other[number]
        assert all(torch.equal(mine[key], yours[key]) for key in ("image", "target", "affine"))


def test_a_block_without_jitter_is_the_one_that_inference_cuts(prepared, items) -> None:
    levels = Levels(tuple(LevelPoint(level, point, None, 0.9) for level, point in DISC_POINTS.items()), vertebrae=())

    def transform(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "image": data["image"] / 1000}

    blocks, affines = cut_blocks(load_nifti(prepared / "image.nii"), levels, DiscBlock.from_config(BLOCK), transform)
    training = RefinementCrops(items, BLOCK, transform, jitter={})
    for number in range(3):
        np.testing.assert_allclose(training[number]["affine"], affines[number], atol=1e-4)
        np.testing.assert_allclose(training[number]["image"], blocks[number], atol=2e-3)


def test_validation_blocks_lie_4_mm_aside(items) -> None:
    points = items[0]["points"][: len(DISCS)]
    plain = block_affine(affine_of("sagittal_t2"), points[2], column_direction(points, 2), DiscBlock.from_config(BLOCK))
    found = RefinementCrops(items, BLOCK)[1]["affine"].numpy()
    np.testing.assert_allclose(found[:3, 3] - plain[:3, 3], [4.0, 4.0, 4.0], atol=1e-6)
    np.testing.assert_allclose(found[:3, :3], plain[:3, :3])


@given(numbers=st.lists(st.floats(-1, 1), min_size=9, max_size=9))
def test_jitter_moves_no_further_than_it_says(numbers) -> None:
    jitter = BlockJitter(shift_mm=(8.0, 6.0, 4.0), rotation_deg=(15.0, 5.0, 5.0), scale=0.15, flip=True)
    shape, affine = (16, 48, 56), np.diag([4.0, 1.5, 1.5, 1.0])
    moved = jitter.drawn(affine, shape, np.array(numbers))
    middle = (np.array(shape) - 1) / 2
    shift = apply_affine(moved, middle) - apply_affine(affine, middle)
    np.testing.assert_allclose(shift, np.multiply(jitter.shift_mm, numbers[:3]), atol=1e-9)
    edges = np.linalg.norm(moved[:3, :3], axis=0)
    growth = edges / [4.0, 1.5, 1.5]
    assert growth[1] == pytest.approx(growth[2])
    assert np.exp(-0.3) - 1e-9 <= growth[0] <= np.exp(0.3) + 1e-9
    assert np.exp(-0.15) - 1e-9 <= growth[1] <= np.exp(0.15) + 1e-9
    assert (np.linalg.det(moved[:3, :3]) < 0) == (numbers[8] > 0)
    assert (moved[:3, 2] / edges[2])[2] > np.cos(np.radians(15 + 5 + 5))
