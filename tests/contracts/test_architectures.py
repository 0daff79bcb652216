"""Each overlay in configs/architectures fits each grading bundle's training and inference, and trains by the bundle's command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, run
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition
from monai_spine.models import GRADERS

ROOT = Path(__file__).resolve().parents[2]
SLICES = ROOT / "configs" / "architectures" / "slices_2d.json"

pytestmark = pytest.mark.filterwarnings("default")


def network_of(bundle: str, config: str) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config([str(ROOT / "bundles" / bundle / "configs" / f"{config}.json"), str(SLICES)])
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize("condition", list(Condition))
def test_slices_are_taken_across_the_thin_axis_of_each_bundle_s_crops(condition: Condition, config: str) -> None:
    network = network_of(GRADERS[condition], config)
    assert network.axis == (2 if condition is Condition.SUBARTICULAR_STENOSIS else 0)
    assert network.neighbours == 1
    assert sum(1 for name, _ in network.encoder.named_modules() if name.endswith(".layers.conv1")) == 58  # DenseNet-121


def test_the_overlay_trains_by_the_bundle_s_command_and_its_weights_predict(tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / GRADERS[Condition.SUBARTICULAR_STENOSIS]
    prepared = write_tiny_prepared(tmp_path / "prepared", cases=1)
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    settings: dict[str, Any] = {"logging_file": False, "slice_blocks": [1, 1, 1, 1], "limit": 4, **places}
    configs = {name: [str(bundle / "configs" / f"{name}.json"), str(SLICES)] for name in ("train", "inference")}
    run("training", config_file=configs["train"], epochs=1, batch_size=2, **settings)
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["class_layers.1.weight"].shape == (3, 128)
    run(config_file=configs["inference"], **settings)
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(rows) == 5


def test_the_second_training_step_finds_the_head_of_the_slices(tmp_path: Path) -> None:
    parser = ConfigParser()
    second = ROOT / "configs" / "training" / "weighted_head.json"
    train = ROOT / "bundles" / GRADERS[Condition.SPINAL_CANAL_STENOSIS] / "configs" / "train.json"
    parser.read_config([str(train), str(SLICES), str(second)])
    names = dict(parser.get_parsed_content("network_def").named_parameters())
    assert any(name.startswith(f"{parser['head']}.") for name in names)
