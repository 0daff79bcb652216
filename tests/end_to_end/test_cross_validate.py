"""`tools/cross_validate.py` on a tiny prepared study: two steps, two folds, and a second call that has nothing left to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_prepared import write_tiny_prepared

from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.submissions import read_submission
from monai_spine.weights import find_bundle, verify_bundle

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = "spinal_canal_stenosis_grading"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)
    datalist = read_datalist(folder)
    names = [case.case for case in datalist.cases]
    for fold in range(2):
        splits = {"training": names[1 - fold :: 2], "validation": names[fold::2]}
        write_splits(datalist, folder / "folds" / f"fold_{fold}", splits=splits)
    return folder


def cross_validate(prepared: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "cross_validate.py", prepared, "-o", out, "--bundles", BUNDLE]
    command += ["--second", ROOT / "configs" / "training" / "weighted_head.json", "--second-arguments", "--learning_rate 0.01"]
    command += ["--test", prepared, "--augment"]
    command += [*more, "--", "--epochs", "1", "--batch_size", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


@pytest.mark.slow
def test_all_folds_are_trained_in_two_steps_predicted_and_put_together(prepared: Path, tmp_path: Path) -> None:
    done = cross_validate(prepared, tmp_path, "--ship", str(tmp_path / "bundles"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "# 2 folds, 4 studies, out of fold" in done.stdout
    assert "20 labels of the trained conditions; 0 had no crop" in done.stdout
    assert "# Test: 2 studies that lie in no fold, 2 models" in done.stdout
    assert len(read_submission(tmp_path / "augmented" / "out_of_fold.csv")) == 4 * 25
    assert len(read_submission(tmp_path / "augmented" / "test" / "submission.csv")) == 2 * 25
    assert len(verify_bundle(find_bundle(BUNDLE, tmp_path / "bundles"))) == 1
    for fold in range(2):
        run = tmp_path / "runs" / BUNDLE / f"fold_{fold}"
        one, two = (torch.load(path / "model.pt", weights_only=True) for path in (run, run / "second"))
        assert {name for name in one if not torch.equal(one[name], two[name])} == {
            "class_layers.out.weight",
            "class_layers.out.bias",
        }
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*") if path.is_file()}
    again = cross_validate(prepared, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*") if path.is_file()} == before
    assert done.stdout.startswith(again.stdout.rsplit("\n", 2)[0])
