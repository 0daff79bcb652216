"""Each overlay in configs/architectures fits each grading bundle's training and inference, and trains by the bundle's command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, run
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition
from monai_spine.models import GRADERS
from monai_spine.networks.architectures import ARCHITECTURES
from monai_spine.networks.kan import SplineLinear

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = {path.stem: path for path in sorted((ROOT / "configs" / "architectures").glob("*.json"))}
SLICES = OVERLAYS["slices_2d"]
CONDITIONS = "lumbar_condition_classification"

pytestmark = pytest.mark.filterwarnings("default")


def network_of(bundle: str, config: str, overlay: Path = SLICES, **changes: Any) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config([str(ROOT / "bundles" / bundle / "configs" / f"{config}.json"), str(overlay)])
    parser.update(changes)
    return parser.get_parsed_content("network_def")


def test_every_architecture_has_an_overlay_and_they_differ_in_name_and_learning_rate_alone() -> None:
    overlays = {name: json.loads(path.read_text()) for name, path in OVERLAYS.items() if name != "slices_2d"}
    assert sorted(overlays) == sorted(ARCHITECTURES)
    assert all(overlay.pop("architecture") == name for name, overlay in overlays.items())
    assert all(0 < overlay.pop("learning_rate") < 0.01 for overlay in overlays.values())
    assert all(overlay == overlays["cnn"] for overlay in overlays.values())


@pytest.mark.parametrize("bundle", [*GRADERS.values(), CONDITIONS])
def test_an_overlay_gives_each_bundle_a_network_for_its_crops_and_classes(bundle: str) -> None:
    configs = ROOT / "bundles" / bundle / "configs"
    shape = json.loads((configs / "train.json").read_text())["crop"]["shape"]
    for config in ("train", "inference"):
        for dims in (2, 3):
            network = network_of(bundle, config, OVERLAYS["cnn"], spatial_dims=dims).eval()
            assert network(torch.zeros(1, 1, *shape)).shape == (1, 8 if bundle == CONDITIONS else 3)
            kernels = {weight.dim() for weight in network.parameters() if weight.dim() > 2}
            assert kernels == {dims + 2}


def test_one_name_on_the_command_line_chooses_another_architecture() -> None:
    network = network_of(GRADERS[Condition.SPINAL_CANAL_STENOSIS], "train", OVERLAYS["cnn"], architecture="ckan", spatial_dims=2)
    assert any(isinstance(part, SplineLinear) for part in network.modules())


def test_a_crop_that_is_too_small_stops_before_training_starts(tmp_path: Path) -> None:
    configs = [
        str(ROOT / "bundles" / GRADERS[Condition.SPINAL_CANAL_STENOSIS] / "configs" / "train.json"),
        str(OVERLAYS["vgg16"]),
    ]
    settings = {"crop#shape": [16, 24, 24], "dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "logging_file": False}
    with pytest.raises(RuntimeError) as caught:
        run("training", config_file=configs, **settings)
    causes = [str(error) for error in _chain(caught.value)]
    assert any("vgg16 does not fit" in text and "at least 32 voxels along A" in text for text in causes)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


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


@pytest.mark.parametrize(
    ("bundle", "name", "dims"), [(CONDITIONS, "ckan", 2), (GRADERS[Condition.SUBARTICULAR_STENOSIS], "cnn", 3)]
)
def test_an_architecture_trains_by_the_bundle_s_command_and_its_weights_predict(
    bundle: str, name: str, dims: int, tmp_path: Path
) -> None:
    prepared = write_tiny_prepared(tmp_path / "prepared", cases=1)
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    settings: dict[str, Any] = {"logging_file": False, "spatial_dims": dims, "limit": 4, "batch_size": 2, **places}
    folder = ROOT / "bundles" / bundle / "configs"
    run("training", config_file=[str(folder / "train.json"), str(OVERLAYS[name])], epochs=1, **settings)
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "model.pt", weights_only=True).values())
    run(config_file=[str(folder / "inference.json"), str(OVERLAYS[name])], **settings)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 5


def test_the_second_training_step_finds_the_head_of_the_slices(tmp_path: Path) -> None:
    parser = ConfigParser()
    second = ROOT / "configs" / "training" / "weighted_head.json"
    train = ROOT / "bundles" / GRADERS[Condition.SPINAL_CANAL_STENOSIS] / "configs" / "train.json"
    parser.read_config([str(train), str(SLICES), str(second)])
    names = dict(parser.get_parsed_content("network_def").named_parameters())
    assert any(name.startswith(f"{parser['head']}.") for name in names)
