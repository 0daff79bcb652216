"""A network never sees at work what it did not see in training: both ways to a network's input give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tiny_prepared import ROLE_OF, write_tiny_prepared

from monai_spine.anatomy import Condition, Target
from monai_spine.crops import CropSpec, crop_block, resample_block
from monai_spine.training.batch_crops import BatchCutter, OnDevice
from monai_spine.training.grading_crops import GradingCrops, items_of
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)


def whole_scan(path: str) -> Volume:
    import nibabel as nib

    stored = nib.load(path)
    return Volume(array=stored.get_fdata(dtype=np.float32), affine=stored.affine)


@pytest.mark.parametrize("condition", list(Condition))
def test_what_the_evaluator_feeds_is_what_inference_feeds(condition: Condition, prepared: Path) -> None:
    name = f"{condition.slug}_grading"
    bundle = find_bundle(name, BUNDLES)
    parser = ConfigParser(json.loads((BUNDLES / name / "configs" / "train.json").read_text()))
    items = items_of(prepared, "validation", condition=condition.slug, role=ROLE_OF[condition])
    examples = GradingCrops(items, parser["crop"], parser.get_parsed_content("validate#preprocessing"))
    spec = CropSpec.from_config(bundle.config("crop"))
    for item, example in zip(items, examples, strict=False):
        crop = crop_block(whole_scan(item["image"]), item["point_ras_mm"], size_mm=spec.size_mm, shape=spec.shape)
        crop = crop.mirrored() if item["mirror"] else crop
        fed = bundle.preprocessing({"image": torch.from_numpy(crop.array[None])})["image"]
        assert example["image"].shape == (1, *spec.shape)
        np.testing.assert_allclose(np.asarray(example["image"]), np.asarray(fed), atol=2e-3)


@pytest.mark.parametrize("condition", list(Condition))
def test_training_and_inference_configs_say_the_same_of_crop_and_network(condition: Condition) -> None:
    folder = BUNDLES / f"{condition.slug}_grading" / "configs"
    train, inference = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", "inference"))
    for key in ("crop", "network_def", "condition", "dropout"):
        assert train[key] == inference[key]


def test_right_sides_are_mirrored_in_training(prepared: Path) -> None:
    condition = Condition.NEURAL_FORAMINAL_NARROWING
    crop = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())["crop"]
    items = items_of(prepared, "training", condition=condition.slug, role="sagittal_t1")
    assert {Target.parse(item["target"]).side.value for item in items if item["mirror"]} == {"right"}
    mirrored = GradingCrops(items, crop)
    plain = GradingCrops(items, {**crop, "mirror_right": False})
    for at, item in enumerate(items):
        expected = plain.crop(at)[::-1] if item["mirror"] else plain.crop(at)
        np.testing.assert_array_equal(mirrored.crop(at), expected)


def test_jitter_stays_near_and_changes_each_time(prepared: Path) -> None:
    condition = Condition.SPINAL_CANAL_STENOSIS
    train = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())
    items = items_of(prepared, "training", condition=condition.slug, role="sagittal_t2")
    still, moving = GradingCrops(items, train["crop"]), GradingCrops(items, train["crop"], jitter=train["jitter"])
    first, second = moving.crop(2), moving.crop(2)
    assert not np.array_equal(first, second)
    assert np.corrcoef(first.ravel(), still.crop(2).ravel())[0, 1] > 0.3


def test_items_outside_their_scan_are_left_out(prepared: Path) -> None:
    condition = Condition.SPINAL_CANAL_STENOSIS
    crop = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())["crop"]
    items = items_of(prepared, "training", condition=condition.slug, role="sagittal_t2")
    away = [{**items[0], "point_ras_mm": [0.0, 0.0, 900.0]}, *items[1:]]
    examples = GradingCrops(away, crop)
    assert (len(examples), examples.left_out) == (len(items) - 1, 1)


@pytest.mark.parametrize("condition", list(Condition))
def test_a_batch_cut_on_the_device_is_what_single_crops_are(condition: Condition, prepared: Path) -> None:
    """The same draws, mirrored and averaged alike; the crops of coarser and finer steps than the scan's."""
    train = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())
    items = items_of(prepared, "training", condition=condition.slug, role=ROLE_OF[condition])
    for crop in (train["crop"], {**train["crop"], "shape": [14, 14, 10]}):
        single, other = (GradingCrops(items, crop, jitter=train["jitter"], seed=5) for _ in range(2))
        batch = OnDevice(other, torch.device("cpu"), batched=True).__getitems__([3, 0, 4])
        for at, example in zip([3, 0, 4], batch, strict=True):
            expected = single[at]
            np.testing.assert_allclose(np.asarray(example["image"]), np.asarray(expected["image"]), atol=0.05)
            assert {**example, "image": 0} == {**expected, "image": 0}


def test_a_batch_is_fed_as_single_crops_are_by_the_bundle_s_own_preprocessing(prepared: Path) -> None:
    name = f"{Condition.NEURAL_FORAMINAL_NARROWING.slug}_grading"
    parser = ConfigParser(json.loads((BUNDLES / name / "configs" / "train.json").read_text()))
    parser.update({"dataset_dir": str(prepared), "jitter": None, "train#augmentation": "$lambda data: data"})
    parser.update({"device": torch.device("cpu"), "train#batches#batched": True})
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    examples = parser.get_parsed_content("train#dataset")
    order = [[item["target"] for item in examples.items].index(target) for target in batch["target"]]
    expected = torch.stack([examples[at]["image"] for at in order])
    torch.testing.assert_close(batch["image"], expected, atol=2e-3, rtol=0)
    assert batch["label"].tolist() == [examples.labels[at] for at in order]


def test_voxels_that_the_device_cannot_hold_are_sent_with_their_batch(prepared: Path) -> None:
    condition = Condition.SPINAL_CANAL_STENOSIS
    crop = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())["crop"]
    examples = GradingCrops(items_of(prepared, "training", condition=condition.slug, role="sagittal_t2"), crop)
    held, sent = (
        BatchCutter(examples.volumes, examples.spec.shape, torch.device("cpu"), memory_gb=memory_gb) for memory_gb in (1.0, 0.0)
    )
    assert (held.holds_all, sent.holds_all) == (True, False)
    affines, _ = examples.placed([4, 1])
    torch.testing.assert_close(sent([4, 1], affines), held([4, 1], affines), atol=0, rtol=0)


def test_cached_crops_are_those_of_the_whole_scan_wherever_chance_puts_them(prepared: Path) -> None:
    condition = Condition.SUBARTICULAR_STENOSIS
    train = json.loads((BUNDLES / f"{condition.slug}_grading" / "configs" / "train.json").read_text())
    items = items_of(prepared, "training", condition=condition.slug, role="axial_t2")
    cached, again = (GradingCrops(items, train["crop"], jitter=train["jitter"], seed=2, memory_gb=gb) for gb in (8.0, 0.001))
    affines, mirrored = again.placed(range(len(items)))
    for at, item in enumerate(items):
        found, whole = cached.crop(at), whole_scan(item["image"])
        np.testing.assert_array_equal(again.volumes[at].array, cached.volumes[at].array, "in a file or in memory")
        expected = resample_block(whole, affines[at], cached.spec.shape)
        assert cached.volumes[at].array.size < whole.array.size / 2
        np.testing.assert_allclose(found[::-1] if mirrored[at] else found, expected, atol=0.05)
