"""A name on the command line that a bundle's configs do not know is refused before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_spine.training.given_names import given_to_run, refuse_unknown_names, unknown_names

ROOT = Path(__file__).parents[2]
CANAL = ROOT / "bundles" / "spinal_canal_stenosis_grading" / "configs"
TRAININGS = sorted(path.parent for path in (ROOT / "bundles").glob("*/configs/train.json"))


def read(*paths: Path) -> ConfigParser:
    config = ConfigParser()
    config.read_config([str(path) for path in paths])
    return config


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("learningrate", "learning_rate"),
        ("crop#sizemm", "crop#size_mm"),
        ("ckpt", "ckpt_path"),
        ("outputdir", "output_dir"),
        ("dataset", "dataset_dir"),
        ("train#datset", "train#dataset"),
    ],
)
def test_a_misspelt_name_is_refused_and_the_nearest_is_offered(given: str, meant: str) -> None:
    [said] = unknown_names(read(CANAL / "train.json"), {given: 1})
    assert f"--{given} would change nothing" in said
    assert f"Did you mean {meant!r}?" in said


def test_names_of_configs_overlays_and_of_what_components_take_are_known() -> None:
    names = {
        "epochs": 3,
        "crop#size_mm": [1, 2, 3],
        "crop::shape": [4, 4, 4],
        "jitter#prob": 0.5,
        "optimizer#amsgrad": True,
        "train#handlers#2#_disabled_": True,
        "train#sampler": None,
        "train#dataloader#sampler": "@train#sampler",
        "ordinal_share": 0.3,
        "split": "test",
    }
    ordinal = ROOT / "configs" / "training" / "ordinal.json"
    assert unknown_names(read(CANAL / "train.json", ordinal, CANAL / "evaluate.json"), names) == []
    without = unknown_names(read(CANAL / "train.json"), {"ordinal_share": 0.3, "split": "test"})
    assert [line.split()[0] for line in without] == ["--ordinal_share", "--split"]


def test_the_command_line_is_read_as_monai_reads_it(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text(json.dumps({"config_file": "a.json", "epoch": 1}))
    line = [
        "run",
        "training",
        "--config_file",
        "['a.json', 'b.json']",
        "--batch-size=4",
        "--logging_file",
        "x",
        "--crop#shape",
        "[1,2]",
    ]
    assert given_to_run(line) == (["a.json", "b.json"], {"batch_size": 4, "crop#shape": [1, 2]})
    assert given_to_run(["run", "--args_file", str(tmp_path / "args.json")]) == ("a.json", {"epoch": 1})


@pytest.mark.parametrize("configs", TRAININGS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("overlay", ["train", "multi_gpu_train", "evaluate"])
def test_every_training_and_evaluation_begins_with_the_check(configs: Path, overlay: str) -> None:
    config = read(configs / "train.json", configs / f"{overlay}.json")
    assert config["initialize"][0] == "$refuse_unknown_names()"
    assert "$from monai_spine.training.given_names import refuse_unknown_names" in config["imports"]


def test_another_program_is_not_held_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", "run", "--config_file", "no.json", "--epoch", "3"])
    refuse_unknown_names()


def test_a_training_with_a_misspelt_name_ends_before_it_looks_at_data(tmp_path: Path) -> None:
    line = [
        "run",
        "training",
        "--config_file",
        CANAL / "train.json",
        "--dataset_dir",
        tmp_path / "none",
        "--ckpt",
        tmp_path / "x.pt",
    ]
    ended = subprocess.run([sys.executable, "-m", "monai.bundle", *map(str, line)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Did you mean 'ckpt_path'?" in ended.stderr
    assert "Traceback" not in ended.stderr
