"""Each overlay in configs/training fits each grading bundle, and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition, Severity
from monai_spine.models import GRADERS
from monai_spine.studies.table_output import write_rows
from monai_spine.training.grading_crops import items_of
from monai_spine.training.noisy_labels import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = {path.stem: path for path in sorted((ROOT / "configs" / "training").glob("*.json"))}
CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)


def configs_of(bundle: str, *names: str) -> list[str]:
    return [str(ROOT / "bundles" / bundle / "configs" / "train.json"), *(str(OVERLAYS[name]) for name in names)]


def parsed(bundle: str, *names: str, **changes: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(configs_of(bundle, *names))
    parser.update({"bundle_root": str(ROOT / "bundles" / bundle), **changes})
    return parser


def trained(prepared: Path, out: Path, *names: str, **changes: Any) -> ConfigWorkflow:
    """Two steps of training on the canal's five crops."""
    places = {"dataset_dir": str(prepared), "output_dir": str(out), "ckpt_path": str(out / "model.pt")}
    settings = {"epochs": 1, "batch_size": 4, "device": torch.device("cpu"), **places, **changes}
    flow = ConfigWorkflow(
        workflow_type="train", config_file=configs_of(CANAL, *names), logging_file=False, run_id="training", **settings
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.mark.parametrize("bundle", GRADERS.values())
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_what_the_bundle_has_or_adds_what_it_uses(bundle: str, name: str) -> None:
    training = json.loads(Path(configs_of(bundle)[0]).read_text())
    overlay = json.loads(OVERLAYS[name].read_text())
    text = json.dumps(overlay)
    own = {key for key in overlay if "#" not in key and key.removeprefix("+") not in training}
    assert all(f"@{key}" in text for key in own)
    assert all(key.split("#")[0] in training for key in overlay if "#" in key)


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_losses_and_weights_are_as_the_overlays_say(bundle: str) -> None:
    loss = parsed(bundle, "ordinal", "weighted", "label_smoothing").get_parsed_content("loss")
    assert type(loss).__name__ == "OrdinalLoss"
    assert (loss.share, loss.label_smoothing, loss.weights.tolist()) == (0.5, 0.05, [1.0, 2.0, 4.0])
    assert parsed(bundle).get_parsed_content("loss").weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("bundle", GRADERS.values())
def test_looks_stay_within_the_moves_of_training_and_mirror_what_has_no_side(bundle: str) -> None:
    parser = parsed(bundle, "test_time_augmentation", look_share=0.5)
    looks, jitter = parser.get_parsed_content("validate#inferer").looks, parser["jitter"]
    reach = [max(look.shift_mm[axis] for look in looks) for axis in range(3)]
    assert reach == [edge / 2 for edge in jitter["shift_mm"]]
    assert max(look.rotation_deg for look in looks) == jitter["rotation_deg"] / 2
    assert any(look.mirrored for look in looks) is (bundle == CANAL)


@pytest.mark.parametrize("names", [(), ("weighted",)])
def test_validation_scales_by_the_score_s_weights_however_a_network_was_trained(names: tuple[str, ...]) -> None:
    """A network gives frequencies with weights and without (`GradeLoss`), so that the rule is one."""
    assert parsed(CANAL, *names)["validate"]["key_metric"]["weighted_log_loss"]["reweighted"] is True


def test_the_second_step_trains_the_head_alone_from_the_first_step_s_weights(prepared: Path, tmp_path: Path) -> None:
    trained(prepared, tmp_path / "one")
    first = tmp_path / "one" / "model.pt"
    trained(prepared, tmp_path / "two", "weighted_head", pretrained=str(first))
    before, after = (torch.load(path, weights_only=True) for path in (first, tmp_path / "two" / "model.pt"))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"class_layers.out.weight", "class_layers.out.bias"}


def test_the_second_step_leaves_the_bundle_s_own_weights_alone(tmp_path: Path) -> None:
    parser = parsed(CANAL, "weighted_head", bundle_root=str(tmp_path))
    assert parser.get_parsed_content("pretrained") == str(tmp_path / "models" / "model.pt")
    assert parser.get_parsed_content("ckpt_path") == str(tmp_path / "runs" / "weighted_head" / "model.pt")


def test_a_training_with_mixed_crops_and_every_loss_s_overlay_runs_and_learns(prepared: Path, tmp_path: Path) -> None:
    names = ("weighted", "ordinal", "label_smoothing", "mixing")
    flow = trained(prepared, tmp_path, *names, mixing_prob=1.0)
    assert flow.parser.get_parsed_content("train#trainer").state.output["label"].shape[1] == 3
    assert flow.parser.get_parsed_content("mixing") in flow.parser.get_parsed_content("train#handlers")[0].sources
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize("action", ["drop", "soften"])
def test_a_training_leaves_out_or_softens_what_is_contradicted(prepared: Path, tmp_path: Path, action: str) -> None:
    item = items_of(prepared, "training", condition="spinal_canal_stenosis", role="sagittal_t2")[1]
    row = (f"{item['case']}_{item['target']}", list(Severity)[item["label"]].slug, "severe", 0.8, 0.1, 0.1, 0.8)
    write_rows(tmp_path / "noisy.csv", COLUMNS, [row])
    given = {"noisy_labels": str(tmp_path / "noisy.csv"), "noise_action": action}
    dataset = trained(prepared, tmp_path, "clean_labels", "weighted", **given).parser.get_parsed_content("train#dataset")
    assert len(dataset) == (4 if action == "drop" else 5)
    labels = [dataset[at]["label"] for at in range(len(dataset))]
    assert all(isinstance(label, int if action == "drop" else torch.Tensor) for label in labels)
