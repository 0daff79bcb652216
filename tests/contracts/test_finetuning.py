"""Another study goes on from the shipped weights: each overlay fits its bundle, writes elsewhere, and trains."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tiny_prepared import affine_of, canal_points

from monai_spine.models import LOCALIZER, NAMER, REFINER
from monai_spine.studies import nifti_points
from monai_spine.studies.table_output import write_rows

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = {
    bundle: ROOT / "configs" / "studies" / f"finetune_{bundle.split('_')[-1]}.json" for bundle in (LOCALIZER, NAMER, REFINER)
}


def configs_of(bundle: str) -> list[Path]:
    return [ROOT / "bundles" / bundle / "configs" / "train.json", OVERLAYS[bundle]]


def parsed(bundle: str, **changes: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(path) for path in configs_of(bundle)])
    parser.update({"bundle_root": str(ROOT / "bundles" / bundle), **changes})
    return parser


def test_every_overlay_belongs_to_a_bundle() -> None:
    assert set(OVERLAYS.values()) == set((ROOT / "configs" / "studies").glob("*.json"))


@pytest.mark.parametrize("bundle", OVERLAYS)
def test_an_overlay_changes_only_what_the_bundle_has(bundle: str) -> None:
    training, overlay = (json.loads(path.read_text()) for path in configs_of(bundle))
    assert set(overlay) <= set(training)
    assert 0.25 < overlay["learning_rate"] / training["learning_rate"] < 0.4
    assert overlay["epochs"] < training["epochs"]


@pytest.mark.parametrize("bundle", OVERLAYS)
def test_it_begins_with_the_shipped_weights_and_writes_elsewhere(bundle: str) -> None:
    parser = parsed(bundle)
    start, best, last = (Path(parser.get_parsed_content(name)) for name in ("pretrained", "ckpt_path", "last_path"))
    assert start == ROOT / "bundles" / bundle / "models" / "model.pt"
    assert start.is_file()
    assert best.parent == last.parent == Path("finetuned", bundle)
    elsewhere = parsed(bundle, output_dir="mine/namer")
    assert [elsewhere.get_parsed_content(name) for name in ("ckpt_path", "last_path")] == [
        "mine/namer/model.pt",
        "mine/namer/last.pt",
    ]


@pytest.mark.parametrize("bundle", OVERLAYS)
def test_it_runs_to_its_end_however_many_epochs_are_asked_for(bundle: str) -> None:
    for changes in ({}, {"epochs": 3}):
        parser = parsed(bundle, **changes)
        epochs, interval, patience = (parser.get_parsed_content(name) for name in ("epochs", "val_interval", "patience"))
        assert epochs // interval <= patience


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny volumes of two patients, as a study would have them, made ready by `prepare nifti`."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        voxels = rng.normal(300, 30, (110, 180, 14)).astype(np.int16)
        (folder / "data").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine_of("sagittal_t2")), folder / "data" / f"{name}.nii.gz")
    discs = [(f"{name}.nii.gz", level.label, r, a + 24, s) for name in "ab" for level, (r, a, s) in canal_points().items()]
    write_rows(folder / "data" / "points.csv", ("image", "structure", "r", "a", "s"), discs)
    return nifti_points.prepare(folder / "data", folder / "prepared").parent


@pytest.mark.slow
def test_the_naming_network_goes_on_from_the_shipped_weights(prepared: Path, tmp_path: Path) -> None:
    shipped = ROOT / "bundles" / NAMER / "models" / "model.pt"
    before = hashlib.sha256(shipped.read_bytes()).hexdigest()
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        str([str(path) for path in configs_of(NAMER)]),
    ]
    command += ["--bundle_root", str(shipped.parents[1]), "--dataset_dir", str(prepared), "--output_dir", "mine"]
    command += ["--epochs", "1", "--samples_per_epoch", "2", "--batch_size", "1", "--num_threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    start, tuned = (torch.load(path, weights_only=True) for path in (shipped, tmp_path / "mine" / "model.pt"))
    assert tuned.keys() == start.keys()
    steps = [float((tuned[name] - value).abs().max()) for name, value in start.items()]
    assert 0 < max(steps) < 0.01, "two small steps from where it began"
    assert hashlib.sha256(shipped.read_bytes()).hexdigest() == before
