"""The localiser's bundle trains and evaluates by its own commands, also on two processes, and says what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_spine.anatomy import LEVELS, Vertebra
from monai_spine.geometry import affine_from_spacing, apply_affine
from monai_spine.studies.prepared import PreparedCase, PreparedVolume, write_datalist
from monai_spine.training.datalists import BODIES, POINT_NAMES

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "lumbar_level_localization"
CONFIGS = BUNDLE / "configs"
SMALL = [
    "--window", "[4,32,64]", "--samples_per_epoch", "4", "--batch_size", "2",
    "--val_limit", "2", "--val_interval", "1", "--num_threads", "1",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Two tiny cases for training, two for validation: five bright spots, and a label map of one body."""
    folder = tmp_path_factory.mktemp("prepared")
    shape, rng = (10, 90, 120), np.random.default_rng(0)
    affine = affine_from_spacing((4.0, 2.0, 2.0), center_ras_mm=(0.0, 0.0, 0.0), shape=shape)
    places = apply_affine(affine, np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1))
    discs = {level: (0.0, 10.0, 70.0 - 35.0 * at) for at, level in enumerate(LEVELS)}
    cases = []
    for name in ("1", "2", "3", "4"):
        image = sum(np.exp(-((places - point) ** 2).sum(-1) / 80) for point in discs.values()) + rng.uniform(0, 0.3, shape)
        bodies = 2 * (np.abs(places - [0, 10, 17.5]) < [20, 16, 12]).all(-1)
        nib.save(nib.Nifti1Image((200 * image).astype(np.int16), affine), folder / f"{name}.nii")
        nib.save(nib.Nifti1Image(bodies.astype(np.uint8), affine), folder / f"{name}_bodies.nii.gz")
        volume = PreparedVolume(f"{name}.nii", "sagittal_t2", None, f"{name}_bodies.nii.gz", (Vertebra.L2,))
        canals = {level: (r, a - 24.0, s) for level, (r, a, s) in discs.items()}
        cases.append(PreparedCase(name, name, (volume,), discs=discs, canals=canals))
    splits = {"training": ["1", "2"], "validation": ["3", "4"]}
    write_datalist(folder, study="spots", source="simulated", cases=cases, splits=splits)
    return folder


def run(
    prepared: Path, out: Path, *extra: str, configs: tuple[str, ...] = ("train",), run_id: str = "training", processes: int = 0
) -> str:
    files = str([str(CONFIGS / f"{name}.json") for name in configs])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", run_id, "--config_file", files]
    command += ["--logging_file", str(CONFIGS / "logging.conf"), "--dataset_dir", str(prepared), "--bundle_root", str(BUNDLE)]
    command += ["--output_dir", str(out), "--ckpt_path", str(out / "model.pt"), *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("run")
    return out, run(prepared, out, *SMALL, "--epochs", "1", "--log_interval", "1")


@pytest.mark.slow
def test_training_leaves_the_best_and_the_last_state_and_tensorboard(trained):
    out, _ = trained
    assert torch.load(out / "model.pt", weights_only=True)
    assert torch.load(out / "last.pt", weights_only=True)["trainer"] == {"epoch": 1, "iteration": 2}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out)).Reload()
    assert {"learning_rate", "loss", "capped_mm", "body_dice"} <= set(events.Tags()["scalars"])
    assert "levels/0" in events.Tags()["images"]


@pytest.mark.slow
def test_evaluation_prints_the_share_of_levels_for_each_data_set(trained, prepared):
    out, _ = trained
    said = run(prepared, out, "--num_threads", "1", configs=("train", "evaluate"), run_id="evaluating")
    assert "within 5 mm" in said
    assert "spots disc" in said
    assert "spots disc within 10 mm" in json.loads((out / "metrics.json").read_text())


PLAIN_VIEW = {
    "rotate_deg": [0.0, 0.0, 0.0],
    "scale": [1.0, 1.0],
    "shift_mm": [0.0, 0.0, 0.0],
    "flip_prob": 0.0,
    "cut_prob": 0.0,
}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(prepared, tmp_path_factory):
    view = config("train")["train"]["augmentation"]["transforms"]
    plain = json.dumps([{**view[0], **PLAIN_VIEW}, view[-1]])
    weights = []
    for processes in (0, 2):
        out = tmp_path_factory.mktemp(f"processes{processes}")
        configs = ("train", "multi_gpu_train") if processes else ("train",)
        settings = ["--epochs", "1", "--train#augmentation#transforms", plain, "--optimizer#_target_", "torch.optim.SGD"]
        run(prepared, out, *SMALL, *settings, configs=configs, processes=processes)
        weights.append(torch.load(out / "last.pt", weights_only=True)["network"])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


def test_inference_prepares_images_as_training_does():
    training, inference = config("train"), config("inference")
    for name in ("preprocessing", "network_def", "spacing_mm", "divisible_by", "smallest_grid"):
        assert training[name] == inference[name], name
    assert training["validate"]["postprocessing"]["transforms"][:-1] == inference["postprocessing"]["transforms"]


def test_the_channels_are_those_of_the_package():
    stated = config("metadata")["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = [*POINT_NAMES, *(f"body {body.label}" for body in BODIES if body is not Vertebra.T12)]
    assert stated == {str(position): name for position, name in enumerate(names)}


def test_the_metadata_says_what_it_was_trained_on():
    metadata = config("metadata")
    assert metadata["training_data"] == "real and simulated"
    assert "simulated" in metadata["notice"]
    licence = (BUNDLE / "docs" / "data_license.txt").read_text()
    assert all(name in licence for name in ("Zukić", "Chu", "Menezes-Reis", "Burian"))
