"""Two processes train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_prepared import write_tiny_prepared

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
WITHOUT_CHANCE = {
    "limit": 8,
    "batch_size": 8,
    "dropout": 0.0,
    "jitter": "{}",
    "train#preprocessing": "@validate#preprocessing",
    "optimizer#_target_": "torch.optim.SGD",
    "learning_rate": 0.02,
    "train#inferer#_target_": "SimpleInferer",
}
"""One full batch. Plain gradient descent, as Adam's first steps follow the sign of gradients that are zero but for rounding; in
float32, as bfloat16 rounds a batch and its halves differently."""


def train(bundle: str, prepared: Path, out: Path, *, processes: int, **changes: object) -> dict[str, torch.Tensor]:
    """Train two epochs, and give back the last state."""
    configs = BUNDLES / bundle / "configs"
    files = [str(configs / "train.json"), *([str(configs / "multi_gpu_train.json")] if processes > 1 else [])]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
    given = {"dataset_dir": prepared, "output_dir": out, "ckpt_path": out / "model.pt", "epochs": 2, **changes}
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(done.stdout[-3000:] + done.stderr[-3000:])
    return torch.load(out / "last.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_train_what_one_process_trains(tmp_path: Path) -> None:
    prepared = write_tiny_prepared(tmp_path / "prepared", cases=2)
    canal = "spinal_canal_stenosis_grading"
    alone = train(canal, prepared, tmp_path / "alone", processes=1, **WITHOUT_CHANCE)
    together = train(canal, prepared, tmp_path / "together", processes=2, **WITHOUT_CHANCE)
    assert together["trainer"] == alone["trainer"]
    assert together["best"]["best"] == pytest.approx(alone["best"]["best"], abs=1e-5)
    for name, values in alone["network"].items():
        torch.testing.assert_close(together["network"][name], values, atol=1e-5, rtol=1e-4)
