"""Study heads on a tiny prepared study, all the way: in a cross-validation, and as a bundle beside the shipped graders."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.models import GRADERS
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.study_grades import STUDY_HEAD
from monai_spine.training.study_features import read_features
from monai_spine.weights import WEIGHT_FILES, find_bundle, verify_bundle

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import cross_validate
import study_head
from cross_validation import head
from cross_validation.head import CONFIGS, sha256_of
from cross_validation.runs import Step

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CANAL, FORAMINA = GRADERS[Condition.SPINAL_CANAL_STENOSIS], GRADERS[Condition.NEURAL_FORAMINAL_NARROWING]

pytestmark = pytest.mark.filterwarnings("default")


def in_this_process(step: Step) -> None:
    """As `perform`, without the seconds that it takes to begin a process."""
    if step.made.is_file():
        return
    what, flags = step.command[4], step.command[5:]
    given = {name.removeprefix("--"): value(text) for name, text in zip(flags[::2], flags[1::2], strict=True)}
    kind = "train" if what == "training" else "infer"
    flow = ConfigWorkflow(workflow_type=kind, logging_file=False, run_id=what, **{**given, "device": torch.device("cpu")})
    flow.initialize()
    flow.run()
    flow.finalize()
    step.written.replace(step.made)


def value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of six studies."""
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=2)
    datalist = read_datalist(folder)
    names = [case.case for case in datalist.cases]
    for fold in range(2):
        splits = {"training": names[1 - fold :: 2], "validation": names[fold::2]}
        write_splits(datalist, folder / "folds" / f"fold_{fold}", splits=splits)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, prepared: Path, out: Path, *more: str) -> int:
    """With graders that are trained already: another one for each fold."""
    for fold in range(2):
        for name in (CANAL, FORAMINA):
            path = out / "runs" / name / f"fold_{fold}" / "model.pt"
            if not path.is_file():
                path.parent.mkdir(parents=True)
                parser = ConfigParser()
                parser.read_config(BUNDLES / name / "configs" / "train.json")
                torch.manual_seed(fold)
                torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    monkeypatch.setattr(cross_validate, "perform", in_this_process)
    monkeypatch.setattr(head, "perform", in_this_process)
    arguments = [str(prepared), "-o", str(out), "--bundles", CANAL, FORAMINA, "--head-arguments", "--epochs 1", *more]
    return cross_validate.main(arguments)


def test_a_head_learns_from_what_the_other_folds_held_out_and_is_scored_beside_the_graders(
    monkeypatch: pytest.MonkeyPatch, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, prepared, tmp_path, "--head", "features") == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    assert "| graders alone |" in text
    assert "| with study head |" in text
    heads = tmp_path / "head_on_features"
    assert text.strip().splitlines()[-2] in (heads / "comparison.md").read_text()
    for fold, other in ((0, 1), (1, 0)):
        held_out = {each: read_features(heads / f"fold_{each}" / "held_out.npz") for each in (fold, other)}
        training = read_features(heads / f"fold_{fold}" / "training.npz")
        cases = read_datalist(prepared / "folds" / f"fold_{other}").splits["validation"]
        assert set(training.case.tolist()) == set(cases)
        assert np.array_equal(training.logits, held_out[other].logits)
        assert not np.allclose(training.features, held_out[other].features, atol=1e-3)
        own = [sha256_of(tmp_path / "runs" / name / f"fold_{fold}" / "model.pt") for name in (CANAL, FORAMINA)]
        assert training.grader.tolist() == [*own, ""]
        assert held_out[fold].present.sum(axis=1).tolist() == [15, 15, 15]
        assert (training.widths[:2] > 0).all()
    before = {path: path.stat().st_mtime_ns for path in heads.rglob("run/*")}
    assert run(monkeypatch, prepared, tmp_path, "--head", "features") == 0
    assert {path: path.stat().st_mtime_ns for path in heads.rglob("run/*")} == before
    assert run(monkeypatch, prepared, tmp_path, "--head", "features", "--head-arguments", "--epochs 2") == 2
    assert "holds runs of other settings: arguments was " in capsys.readouterr().err


def test_one_fold_is_too_few_for_a_head(
    monkeypatch: pytest.MonkeyPatch, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, prepared, tmp_path, "--head", "answers", "--folds", "fold_0") == 2
    assert "takes two at least. Leave out --head or --folds" in capsys.readouterr().err


def test_a_head_for_the_shipped_graders_is_trained_on_what_they_see_and_made_a_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared = write_tiny_prepared(tmp_path / "prepared", cases=1)
    features, run = tmp_path / "features", tmp_path / "run"
    monkeypatch.setattr(head, "perform", in_this_process)
    assert study_head.main(["features", str(prepared), "-o", str(features), "--training", "test"]) == 0
    studies, datalist = read_features(features / "training.npz"), read_datalist(prepared)
    assert studies.case.tolist() == list(datalist.splits["test"])
    assert studies.present.all()
    (case,) = datalist.cases_of("test")
    assert studies.label[0].tolist() == [case.targets[target].severity.index for target in TARGETS]
    assert np.allclose(np.exp(studies.logits).sum(axis=2), 1, atol=1e-4)
    given = {"dataset_dir": str(features), "output_dir": str(run), "epochs": 1, "device": torch.device("cpu")}
    flow = ConfigWorkflow(
        workflow_type="train", logging_file=False, run_id="training", config_file=str(CONFIGS / "train.json"), **given
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    assert {"model.pt", "last.pt"} < {path.name for path in run.iterdir()}
    assert any(path.name.startswith("events") for path in run.iterdir())
    assert study_head.main(["bundle", str(run / "model.pt"), "--features", str(features), "-o", str(tmp_path / "bundles")]) == 0
    bundle = find_bundle(STUDY_HEAD, tmp_path / "bundles")
    verify_bundle(bundle)
    known = [find_bundle(name).weights_sha256[WEIGHT_FILES[0]] for name in GRADERS.values()]
    assert list(bundle.config("graders").values()) == known
    assert bundle.network().widths.keys() == {condition.slug for condition in Condition}
