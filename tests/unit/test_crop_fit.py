"""A crop that is too small for a network is refused before the training, by axis and least size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_spine.errors import ArchitectureError
from monai_spine.networks.two_branch import TwoBranchDenseNet
from monai_spine.training.crop_fit import refuse_small_crop

ROOT = Path(__file__).parents[2]
SMALL = {"init_features": 4, "growth_rate": 2, "block_config": [1, 1, 1], "norm": "instance"}


def network_of(bundle: str) -> torch.nn.Module:
    config = ConfigParser()
    config.read_config(str(ROOT / "bundles" / bundle / "configs" / "train.json"))
    return config.get_parsed_content("network_def")


def test_the_axis_and_the_least_size_are_named_and_are_right() -> None:
    network = network_of("spinal_canal_stenosis_grading")
    said = "cannot see a crop of 8 × 32 × 32 voxels: along R it takes 13 at least, and there are 8"
    with pytest.raises(ArchitectureError, match=said):
        refuse_small_crop(network, [8, 32, 32])
    with pytest.raises(ArchitectureError, match="along S it takes 13"):
        refuse_small_crop(network, [13, 13, 12])
    refuse_small_crop(network, [13, 13, 13])
    assert network.training


def test_a_network_of_pictures_and_one_of_branches_are_asked_too() -> None:
    with pytest.raises(ArchitectureError, match="along A it takes"):
        refuse_small_crop(network_of("lumbar_disc_degeneration_grading"), [2, 48])
    two = TwoBranchDenseNet(3, 2, 3, **SMALL).eval()
    refuse_small_crop(two, [[16, 24, 24], [24, 24, 16]])
    with pytest.raises(ArchitectureError, match="4 × 24 × 24 voxels: along the slices' normal it takes 13"):
        refuse_small_crop(two, [[4, 24, 24], [24, 24, 4]])
    assert not two.training


def test_what_fails_for_another_reason_is_left_to_the_training() -> None:
    refuse_small_crop(TwoBranchDenseNet(3, 2, 3, **SMALL), [16, 24, 24])


@pytest.mark.parametrize("shape", [5, "abc", [], ["a", 3, 3], [[16, "x", 3], [1, 2, 3]], [16.5, 3, 3]])
def test_what_is_no_shape_is_left_to_whoever_cuts_crops(shape: object) -> None:
    refuse_small_crop(network_of("spinal_canal_stenosis_grading"), shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["train", "multi_gpu_train"])
@pytest.mark.parametrize(
    "bundle", ["subarticular_stenosis_grading", "lumbar_disc_degeneration_grading", "lumbar_condition_classification"]
)
def test_trainings_of_crops_ask_before_they_start(bundle: str, name: str) -> None:
    config = ConfigParser()
    folder = ROOT / "bundles" / bundle / "configs"
    config.read_config([str(folder / "train.json"), str(folder / f"{name}.json")])
    [asked] = [at for at, step in enumerate(config["initialize"]) if "refuse_small_crop(@network_def" in step]
    assert "start_network" in config["initialize"][asked + 1]
    assert "$from monai_spine.training.crop_fit import refuse_small_crop" in config["imports"]
