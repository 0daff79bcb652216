"""The refining bundle trains by its own command, also on two processes, and its configs say the same of what they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_prepared import write_tiny_prepared

from monai_spine.level_refinement import CHANNELS, DiscBlock
from monai_spine.models import LOCALIZER, REFINER

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / REFINER
CONFIGS = BUNDLE / "configs"
SMALL = ["--samples_per_epoch", "4", "--batch_size", "2", "--val_limit", "1", "--val_interval", "1", "--num_threads", "1"]
BY_NO_CHANCE = ["--jitter", "{}", "--train#preprocessing", "@validate#preprocessing", "--optimizer#_target_", "torch.optim.SGD"]
IN_FULL = ["--train#inferer#enabled", "False"]
"""bfloat16 rounds sums over two examples and over one differently: processes then agree to fewer digits."""

ABORTED_AT_EXIT = "terminate called without an active exception"
"""What torch says when a process that has finished ends before one of its own threads: a rare race, and not of the training."""


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def test_inference_cuts_and_prepares_blocks_as_training_does() -> None:
    training, inference = config("train"), config("inference")
    for name in ("crop", "preprocessing", "network_def"):
        assert training[name] == inference[name], name
    for name in ("inferer", "postprocessing"):
        assert training["validate"][name] == inference[name], name


def test_the_metadata_say_what_the_configs_and_the_package_do() -> None:
    metadata, block = config("metadata"), DiscBlock.from_config(config("inference")["crop"])
    data = metadata["network_data_format"]
    assert data["outputs"]["pred"]["channel_def"] == {str(position): name for position, name in enumerate(CHANNELS)}
    assert tuple(data["inputs"]["image"]["spatial_shape"]) == tuple(data["outputs"]["pred"]["spatial_shape"]) == block.shape
    assert config("train")["loss"]["groups"] == [1, 2, 2], "disc; canal and foramina; bodies"
    assert config("train")["network_def"]["out_channels"] == data["outputs"]["pred"]["num_channels"] == len(CHANNELS)


def test_the_metadata_say_what_it_was_trained_on() -> None:
    metadata = config("metadata")
    assert metadata["training_data"] == "real and simulated"
    assert "simulated" in metadata["notice"]
    licence = (BUNDLE / "docs" / "data_license.txt").read_text()
    assert all(name in licence for name in ("Zukić", "Chu", "Menezes-Reis", "Burian"))


def test_what_the_localiser_evaluates_with_is_this_bundle() -> None:
    evaluate = json.loads((ROOT / "bundles" / LOCALIZER / "configs" / "evaluate.json").read_text())
    assert evaluate["refiner"] == REFINER


def train(prepared: Path, out: Path, *extra: str, processes: int = 0) -> str:
    files = [str(CONFIGS / "train.json"), *([str(CONFIGS / "multi_gpu_train.json")] if processes else [])]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
    command += ["--logging_file", str(CONFIGS / "logging.conf"), "--dataset_dir", str(prepared), "--bundle_root", str(BUNDLE)]
    command += ["--output_dir", str(out), "--ckpt_path", str(out / "model.pt"), "--epochs", "1", *SMALL, *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out, check=False)
    if ABORTED_AT_EXIT in done.stderr:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)


@pytest.mark.slow
def test_training_leaves_the_best_and_the_last_state_and_tensorboard(prepared: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = train(prepared, tmp_path, "--log_interval", "1")
    assert "body dice" in said
    assert torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"] == {"epoch": 1, "iteration": 2}
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"learning_rate", "loss", "shortfall"} <= set(events.Tags()["scalars"])
    assert "blocks/0" in events.Tags()["images"]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(prepared: Path, tmp_path: Path) -> None:
    states = []
    for processes in (0, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        train(prepared, out, *BY_NO_CHANCE, *IN_FULL, processes=processes)
        states.append(torch.load(out / "last.pt", weights_only=True))
    for name, value in states[0]["network"].items():
        torch.testing.assert_close(states[1]["network"][name], value, rtol=1e-3, atol=1e-5)
    assert states[1]["best_model"]["best"] == pytest.approx(states[0]["best_model"]["best"], abs=1e-3)
