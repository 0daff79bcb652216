"""A grader's trunk learns from unlabelled scans, goes on after a kill, and gives the grader its beginning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition
from monai_spine.models import GRADERS

ROOT = Path(__file__).resolve().parents[2]
PRETRAINING = ROOT / "configs" / "pretraining" / "contrastive.json"
LARGE = ROOT / "configs" / "architectures" / "densenet121.json"
AXIAL = GRADERS[Condition.SUBARTICULAR_STENOSIS]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)


def configs_of(bundle: str, *overlays: Path) -> list[str]:
    return [str(path) for path in (ROOT / "bundles" / bundle / "configs" / "train.json", *overlays)]


def parsed(bundle: str, *overlays: Path, **changes: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(configs_of(bundle, *overlays))
    parser.update({"bundle_root": str(ROOT / "bundles" / bundle), **changes})
    return parser


def flow_of(prepared: Path, out: Path, *overlays: Path, **changes: Any) -> ConfigWorkflow:
    settings = {"dataset_dir": str(prepared), "output_dir": str(out), "ckpt_path": str(out / "model.pt")}
    settings |= {"epochs": 2, "batch_size": 2, "device": torch.device("cpu"), **changes}
    flow = ConfigWorkflow(
        workflow_type="train", config_file=configs_of(AXIAL, *overlays), logging_file=False, run_id="training", **settings
    )
    flow.initialize()
    return flow


def pretrain(prepared: Path, out: Path, *, killed: bool = False, **changes: Any) -> None:
    flow = flow_of(prepared, out, PRETRAINING, places_per_scan=2, **changes)
    if killed:
        trainer = flow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.EPOCH_STARTED(once=2), _kill)
        with pytest.raises(KeyboardInterrupt):
            flow.run()
    else:
        flow.run()
    flow.finalize()


def _kill() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_pretraining_learns_the_grader_s_own_trunk_and_leaves_its_weights_alone(bundle: str) -> None:
    own, parser = parsed(bundle), parsed(bundle, PRETRAINING)
    expected = own.get_parsed_content("network_def").features.state_dict()
    found = parser.get_parsed_content("network_def")
    assert {name: value.shape for name, value in found.features.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert found.class_layers.out.out_features == 128
    assert Path(parser.get_parsed_content("ckpt_path")) == ROOT / "bundles" / bundle / "runs" / "pretraining" / "model.pt"


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_an_overlay_changes_what_the_bundle_has_or_adds_what_it_uses(bundle: str) -> None:
    training = json.loads(Path(configs_of(bundle)[0]).read_text())
    for path in (PRETRAINING, LARGE):
        overlay = json.loads(path.read_text())
        own = {key for key in overlay if "#" not in key and key not in training}
        assert all(f"@{key}" in path.read_text() for key in own)
        assert all(key.split("#")[0] in training for key in overlay if "#" in key)


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_the_large_network_takes_a_grader_s_crop_and_all_of_a_densenet121_but_its_head(bundle: str) -> None:
    from monai.networks.nets import DenseNet

    from monai_spine.training.transfer import transfer_weights

    parser = parsed(bundle, LARGE)
    network = parser.get_parsed_content("network_def")
    flat = DenseNet(2, 3, 1000, init_features=64, growth_rate=32, block_config=(6, 12, 24, 16))
    transfer = transfer_weights(network, flat.state_dict(), through_axis=0)
    assert {name.rpartition(".")[0] for name in transfer.new} == {"class_layers.out"}
    crop = torch.zeros(1, 1, *parser.get_parsed_content("crop")["shape"])
    with torch.no_grad():
        assert network.eval()(crop).shape == (1, 3)


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_an_architecture_s_trunk_is_pretrained_by_the_same_overlay(bundle: str) -> None:
    network = parsed(bundle, LARGE, PRETRAINING).get_parsed_content("network_def")
    assert network.class_layers.out.out_features == 128


@pytest.mark.slow
def test_a_pretraining_that_is_killed_goes_on_and_a_grader_starts_from_what_it_learnt(prepared: Path, tmp_path: Path) -> None:
    folders = [str(prepared), str(prepared)]
    pretrain(prepared, tmp_path / "whole", dataset_dir=folders, limit=1)
    pretrain(prepared, tmp_path / "parts", dataset_dir=folders, limit=1, killed=True)
    part = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)
    assert part["trainer"]["epoch"] == 1
    pretrain(prepared, tmp_path / "parts", dataset_dir=folders, limit=1, resume=True)
    whole, found = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert found["trainer"] == whole["trainer"] == {"epoch": 2, "iteration": 4}
    assert found["best"] == whole["best"]
    assert all(torch.equal(value, whole["network"][name]) for name, value in found["network"].items())
    assert not all(torch.equal(value, part["network"][name]) for name, value in found["network"].items())

    flow = flow_of(prepared, tmp_path / "grader", pretrained=str(tmp_path / "whole" / "model.pt"))
    learnt = torch.load(tmp_path / "whole" / "model.pt", weights_only=True)
    network = flow.parser.get_parsed_content("network_def")
    assert all(torch.equal(value, learnt[f"features.{name}"]) for name, value in network.features.state_dict().items())
    assert network.class_layers.out.out_features == 3
