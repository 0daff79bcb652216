"""The grading bundles train, evaluate and infer as their README says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition
from monai_spine.models import LOCALIZER, REFINER, SLICE_GRADERS

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = [*(f"{condition.slug}_grading" for condition in Condition), *SLICE_GRADERS.values()]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)


def workflow(name: str, configs: list[str], kind: str, run_id: str = "run", **changes: object) -> ConfigWorkflow:
    folder = BUNDLES / name / "configs"
    return ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(folder / f"{config}.json") for config in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=False,
        run_id=run_id,
        **changes,
    )


def run(flow: ConfigWorkflow) -> ConfigWorkflow:
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.mark.parametrize("name", NAMES)
def test_metadata_say_what_the_weights_were_trained_on(name: str) -> None:
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    on_real_bases = name.startswith("spinal_canal")
    assert metadata["training_data"] == ("real and simulated" if on_real_bases else "simulated")
    told = (
        "simulated stenosis, partly on real anatomy: not validated against readers"
        if on_real_bases
        else "simulated images: shows"
    )
    assert f"trained on {told}" in metadata["notice"]
    assert f"**Trained on {told}" in (BUNDLES / name / "docs" / "README.md").read_text()
    assert ("real mid-sagittal" in (BUNDLES / name / "docs" / "data_license.txt").read_text()) == on_real_bases


@pytest.mark.parametrize("config", ["train", "evaluate"])
@pytest.mark.parametrize("name", [LOCALIZER, REFINER, *NAMES])
def test_losses_and_metrics_are_printed_by_a_logger_of_their_own(name: str, config: str) -> None:
    """MONAI's `StatsHandler` silences the logger whose name it is given: the package's own would print nothing any more."""
    document = json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text())
    parts = [*document.get("train", {}).get("handlers", []), *document.get("validate", {}).get("handlers", [])]
    printers = [part for part in [*parts, *document.get("validate#handlers", [])] if "StatsHandler" in str(part)]
    assert not [part["name"] for part in printers if "name" in part]


def test_training_evaluation_and_inference_follow_each_other(prepared: Path, tmp_path: Path) -> None:
    name = NAMES[0]
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    run(workflow(name, ["train"], "train", "training", epochs=1, batch_size=4, **places))
    (waited,) = EventAccumulator(str(tmp_path)).Reload().Scalars("data_wait_share")
    assert (waited.step, 0 < waited.value < 1) == (1, True)
    evaluated = run(workflow(name, ["train", "evaluate"], "train", "evaluating", **places))
    metrics = evaluated.evaluator.state.metrics
    assert set(metrics) == {"weighted_log_loss", "loss", "accuracy"}
    run(workflow(name, ["inference"], "infer", **places))
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "case,target,normal_mild,moderate,severe,label"
    assert len(rows) == 6


def test_a_run_goes_on_after_its_last_epoch(prepared: Path, tmp_path: Path) -> None:
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt"), "limit": 4}
    run(workflow(NAMES[0], ["train"], "train", epochs=1, **places))
    first = torch.load(tmp_path / "last.pt", weights_only=True)
    resumed = run(workflow(NAMES[0], ["train"], "train", epochs=2, resume=True, **places))
    second = torch.load(tmp_path / "last.pt", weights_only=True)
    assert first["trainer"]["epoch"] == 1
    assert second["trainer"] == {"epoch": 2, "iteration": 2}
    assert resumed.trainer.state.epoch == 2
    assert second["lr_scheduler"]["last_epoch"] == first["lr_scheduler"]["last_epoch"] + 1
