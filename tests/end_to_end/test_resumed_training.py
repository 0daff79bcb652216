"""A training that is killed and goes on ends where one ends that was never killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Condition
from monai_spine.models import GRADERS, LOCALIZER, NAMER, REFINER

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
GRADER = GRADERS[Condition.SUBARTICULAR_STENOSIS]
EPOCHS = 3
_FEW_SAMPLES = {"epochs": EPOCHS, "samples_per_epoch": 4, "batch_size": 2, "val_limit": 1, "val_interval": 1, "num_threads": 1}
SMALL: dict[str, dict[str, Any]] = {
    GRADER: {"epochs": EPOCHS, "limit": 8, "batch_size": 4},
    LOCALIZER: {"window": [4, 32, 64], **_FEW_SAMPLES},
    NAMER: _FEW_SAMPLES,
    REFINER: _FEW_SAMPLES,
}
"""Settings that give two steps in an epoch; whatever is drawn at random stays so."""
PRINTED = {
    GRADER: ("mean_train_loss", "weighted_log_loss"),
    LOCALIZER: ("mean_loss", "within 5 mm"),
    NAMER: ("mean_loss", "log loss"),
    REFINER: ("mean_loss", "canal mm"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)


def train(name: str, prepared: Path, out: Path, *overlays: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Train by the command that the bundle's README gives, on one thread."""
    configs = BUNDLES / name / "configs"
    files = str([str(path) for path in (configs / "train.json", *overlays)])
    out.mkdir(exist_ok=True)
    settings = {"dataset_dir": prepared, "output_dir": out, "ckpt_path": out / "model.pt", **SMALL[name], **changes}
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files, "--bundle_root", configs.parent]
    command += ["--logging_file", configs / "logging.conf"]
    command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def kill_in_epoch_two(name: str, folder: Path) -> Path:
    """An overlay that kills the training before the second step of its second epoch, as `kill -9` does."""
    imports = json.loads((BUNDLES / name / "configs" / "train.json").read_text())["imports"]
    kill = f"$@train#trainer.add_event_handler(Events.ITERATION_STARTED(once=4), os.kill, os.getpid(), {signal.SIGKILL:d})"
    overlay = {"imports": [*imports, "$import os", "$from ignite.engine import Events"], "run": [kill, "$@train#trainer.run()"]}
    path = folder / "kill.json"
    path.write_text(json.dumps(overlay))
    return path


def last(out: Path) -> dict[str, Any]:
    return torch.load(out / "last.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [GRADER, LOCALIZER, NAMER, REFINER])
def test_a_killed_training_ends_where_an_uninterrupted_one_ends(name: str, prepared: Path, tmp_path: Path) -> None:
    whole = train(name, prepared, tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout[-3000:] + whole.stderr[-3000:]
    assert all(text in whole.stdout for text in (*PRINTED[name], "data_wait_share"))

    killed = train(name, prepared, tmp_path / "parts", kill_in_epoch_two(name, tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stdout[-3000:] + killed.stderr[-3000:]
    assert last(tmp_path / "parts")["trainer"] == {"epoch": 1, "iteration": 2}

    resumed = train(name, prepared, tmp_path / "parts", resume=True)
    assert resumed.returncode == 0, resumed.stdout[-3000:] + resumed.stderr[-3000:]
    assert f"after epoch 1 of {EPOCHS}" in resumed.stdout
    expected, found = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert found["trainer"] == expected["trainer"] == {"epoch": EPOCHS, "iteration": 2 * EPOCHS}
    for key, value in expected["network"].items():
        torch.testing.assert_close(found["network"][key], value, rtol=0, atol=0)
    best, best_found = (torch.load(tmp_path / part / "model.pt", weights_only=True) for part in ("whole", "parts"))
    assert all(torch.equal(best_found[key], value) for key, value in best.items())
