"""Weights that a user has trained become a bundle, and an analysis uses it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_spine.errors import WeightsError
from monai_spine.grades import load_grader
from monai_spine.networks.sliced import SlicedClassifier
from monai_spine.weights import bundle_folder, find_bundle

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import variant_bundle as tool

NAME = "spinal_canal_stenosis_grading"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the canal's bundle alone."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    (folder / NAME).symlink_to(bundle_folder(None) / NAME)
    return folder


def test_weights_of_the_bundles_own_training_need_no_overlay(source: Path, tmp_path: Path) -> None:
    state = find_bundle(NAME).network().state_dict()
    torch.save({key: value + 1 if key.endswith("out.bias") else value for key, value in state.items()}, tmp_path / "canal.pt")
    tool.write_variant(None, tmp_path / "ours", bundle=NAME, weights=tmp_path / "canal.pt", trained_on="our scans", folder=source)
    ours = find_bundle(NAME, tmp_path / "ours")
    assert torch.equal(ours.network().state_dict()["class_layers.out.bias"], state["class_layers.out.bias"] + 1)
    assert ours.metadata["training_data"] == "our scans"
    assert set(ours.weights_sha256) == {"models/model.pt", "models/model.ts"}
    assert ours.config("crop") == find_bundle(NAME).config("crop")
    assert (ours.option("temperature"), ours.option("referral")) == (1.0, None)
    assert "Trained on our scans" in (ours.root / "docs" / "README.md").read_text(encoding="utf-8")


def test_another_architecture_is_graded_with(source: Path, tmp_path: Path) -> None:
    overlay = ROOT / "configs" / "architectures" / "slices_2d.json"
    parser = ConfigParser()
    parser.read_config([str(find_bundle(NAME).root / "configs" / "inference.json"), str(overlay)])
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "slices.pt")
    weights = tmp_path / "slices.pt"
    tool.write_variant("slices_2d", tmp_path / "ours", bundle=NAME, weights=weights, trained_on="our scans", folder=source)
    assert isinstance(load_grader(find_bundle(NAME, tmp_path / "ours")).network, SlicedClassifier)


def test_a_training_overlay_that_changes_no_network_is_not_asked_for(source: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "canal.pt")
    with pytest.raises(WeightsError, match=r"no overlay 'ordinal' .*slices_2d.*name none"):
        tool.write_variant(
            "ordinal", tmp_path / "ours", bundle=NAME, weights=tmp_path / "canal.pt", trained_on="x", folder=source
        )
    assert not (tmp_path / "ours").exists()


def test_weights_that_do_not_fit_are_named_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt cannot be used.*do not fit"):
        tool.write_variant(None, tmp_path / "ours", bundle=NAME, weights=tmp_path / "other.pt", trained_on="x", folder=source)
    metadata = json.loads((tmp_path / "ours" / NAME / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["training_data"] == find_bundle(NAME).metadata["training_data"]
