"""Each experiment in configs/experiments trains by the bundle's own command, with a network of its document, and predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, run
from tiny_prepared import write_tiny_prepared

from monai_spine.networks.architectures import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = {path.stem: path for path in sorted((ROOT / "configs" / "experiments").glob("*.json"))}
SMALL = {"document_000": "cnn", "document_001": "simple_cnn", "document_002": "densenet121"}
SMALL |= {"document_003": "dense_cnn", "document_003_binary": "residual_cnn", "document_004": "mnasnet0_75"}
TINY: dict[str, Any] = {"size": 48, "epochs": 1, "batch_size": 4, "limit": 12, "logging_file": False}

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)


def facts(name: str) -> dict[str, Any]:
    return dict(json.loads(EXPERIMENTS[name].read_text())["experiment"])


def configs(name: str, architecture: str) -> list[str]:
    train = ROOT / "bundles" / facts(name)["bundle"] / "configs" / "train.json"
    return [str(train), str(ROOT / "configs" / "architectures" / f"{architecture}.json"), str(EXPERIMENTS[name])]


def parsed(name: str, **changes: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(configs(name, SMALL[name]))
    parser.update({"device": torch.device("cpu"), **changes})
    return parser


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains_and_predicts_by_the_bundle_s_command(name: str, prepared: Path, tmp_path: Path) -> None:
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    settings = {**TINY, **places, "limit": 40 if "003" in name else 12}
    run("training", config_file=configs(name, SMALL[name]), **settings)
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "model.pt", weights_only=True).values())
    evaluate = ROOT / "bundles" / facts(name)["bundle"] / "configs" / "evaluate.json"
    run("evaluating", config_file=[*configs(name, SMALL[name]), str(evaluate)], **settings)
    assert (tmp_path / "metrics.csv").is_file()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_names_architectures_that_there_are_and_shares_of_all_studies(name: str) -> None:
    assert set(facts(name)["architectures"]) <= set(ARCHITECTURES)
    assert sum(facts(name)["shares"]) == pytest.approx(1)
    assert SMALL[name] in facts(name)["architectures"]


@pytest.mark.parametrize(
    ("name", "edge", "said"),
    [
        ("document_000", 224, "stated"),
        ("document_001", 224, "ours"),
        ("document_002", 224, "ours"),
        ("document_003", 96, "ours"),
        ("document_003_binary", 96, "ours"),
        ("document_004", 100, "stated"),
    ],
)
def test_pictures_are_as_large_as_stated_or_as_said_under_ours_and_volumes_need_one_word_more(
    name: str, edge: int, said: str
) -> None:
    assert f"{edge} × {edge}" in facts(name)[said]
    assert sorted(parsed(name).get_parsed_content("crop")["shape"]) == [1, edge, edge]
    assert sorted(parsed(name, slices=8).get_parsed_content("crop")["shape"]) == [8, edge, edge]


def test_brightness_has_the_mean_and_the_deviation_of_a_half_that_document_000_states() -> None:
    parser, pictures = parsed("document_000"), torch.rand(2, 1, 1, 32, 32) * torch.tensor([700.0, 20.0]).view(2, 1, 1, 1, 1) + 90
    alone = [parser.get_parsed_content("normalize")({"image": picture})["image"] for picture in pictures]
    for image in (*alone, *parser.get_parsed_content("train#batch_preprocessing")({"image": pictures})["image"]):
        assert float(image.mean()) == pytest.approx(0.5, abs=1e-4)
        assert float(image.std()) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("architecture", "pictures"), [("simple_cnn", 32), ("inception_cnn", 32), ("vgg16", 16)])
def test_batches_are_as_large_as_document_001_states(architecture: str, pictures: int, prepared: Path) -> None:
    settings = facts("document_001")["architectures"][architecture]
    parser = parsed("document_001", dataset_dir=str(prepared), size=32, **settings)
    assert parser.get_parsed_content("train#dataloader").batch_size == pictures


def test_the_learning_rate_falls_after_the_patience_that_document_001_states() -> None:
    parser = parsed("document_001", size=32)
    optimizer, scheduler = (parser.get_parsed_content(part) for part in ("optimizer", "lr_scheduler"))
    rates = []
    for loss in (1.0, 0.5, 0.5, 0.5, 0.5, 0.5):  # PyTorch lets as many epochs pass without gain as its patience says
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"] / parser.get_parsed_content("learning_rate"))
    assert rates == pytest.approx([1, 1, 1, 1, 0.75, 0.75])


@pytest.mark.parametrize("architecture", ["simple_cnn", "inception_cnn", "vgg16"])
def test_pictures_are_augmented_but_for_the_inception_cnn_as_document_001_states(architecture: str) -> None:
    parser = parsed("document_001", **facts("document_001")["architectures"][architecture])
    jitter, changes = (parser.get_parsed_content(part) for part in ("jitter", "train#augmentation"))
    if architecture == "inception_cnn":
        assert (jitter, len(changes.transforms)) == (None, 0)
    else:
        assert (jitter["flip"], jitter["rotation_deg"], len(changes.transforms)) == (True, 15.0, 3)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_share_of_dropout_is_named_whether_it_is_stated_or_ours(name: str) -> None:
    assert f"dropout {parsed(name).get_parsed_content('dropout')}" in f"{facts(name)['stated']}; {facts(name)['ours']}"


@pytest.mark.parametrize(("name", "shares"), [("document_001", [0.7, 0.15, 0.15]), ("document_004", [0.8, 0.05, 0.15])])
def test_studies_are_split_into_training_validation_and_test_as_stated(name: str, shares: list[float]) -> None:
    assert facts(name)["shares"] == shares


def test_normal_against_severe_leaves_the_moderate_out_and_never_calls_it(prepared: Path) -> None:
    parser = parsed("document_003_binary", dataset_dir=str(prepared), size=32)
    items = parser.get_parsed_content("train#chosen")
    assert {item["label"] for item in items} <= {0, 2}
    assert {item["target"][-5:] for item in items} == {"l4_l5"}
    network = parser.get_parsed_content("network").eval()
    assert parser.get_parsed_content("network_def")(torch.zeros(1, 1, 32, 32, 1)).shape == (1, 2)
    assert network(torch.zeros(1, 1, 32, 32, 1)).softmax(dim=1)[0, 1] == 0


@pytest.mark.parametrize("name", ["Adam", "RMSProp", "SGD"])
def test_an_optimiser_is_chosen_by_its_name(name: str) -> None:
    chosen = parsed("document_004", optimizer_name=name, size=32).get_parsed_content("optimizer")
    assert type(chosen).__name__.lower() == name.lower()
    assert chosen.param_groups[0].get("momentum", 0.0) == (0.9 if name == "SGD" else 0.0)
