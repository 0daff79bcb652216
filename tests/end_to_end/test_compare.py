"""`monai-spine compare` on a tiny study: one table with its pictures, and a second call that trains nothing again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_prepared import write_tiny_prepared
from tiny_runs import write_tiny_runs
from typer.testing import CliRunner, Result

from monai_spine.anatomy import Condition
from monai_spine.cli import app
from monai_spine.comparison.at_work import alone_in
from monai_spine.comparison.contenders import contenders_of
from monai_spine.comparison.plan import Plan
from monai_spine.degeneration import DEGENERATION
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import read_datalist
from monai_spine.weights import find_bundle

pytestmark = pytest.mark.filterwarnings("default")


CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """What `arguments_of` it ask for."""
    study = write_tiny_prepared(tmp_path / "study", cases=3)
    contenders, settings = contenders_of(["cnn"], [2], bundles=[CANAL]), {"crop#shape": [2, 24, 24]}
    return Plan(study, tmp_path / "out", (find_bundle(CANAL).root,), contenders, folds=3, settings=settings)


def arguments_of(plan: Plan) -> list[object]:
    given = ["--study", plan.study, "-o", plan.output, "--architectures", "cnn", "--dims", 2, "--folds", 3, "--quiet"]
    return [*given, "--set", "crop#shape=[2, 24, 24]"]


def test_a_comparison_writes_its_table_and_pictures_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    study, out = write_tiny_prepared(tmp_path / "study", cases=2), tmp_path / "out"
    given = ["--study", study, "--architectures", "cnn", "--dims", 2, "--folds", 1, "--epochs", 1, "-o", out]
    given += ["--set", "limit=10", "--set", "batch_size=5", "--set", "crop#shape=[2, 24, 24]"]
    first = compare(*given, "--quiet")
    assert first.exit_code == 0, first.output
    run = out / "runs" / "spinal_canal_stenosis_grading" / "cnn_2d" / "fold_0" / "seed_0"
    trained = (run / "model.pt").stat().st_mtime_ns
    assert not (run / "last.pt").exists()
    table = pd.read_csv(out / "comparison.csv")
    assert table.loc[0, "contender"] == "cnn 2D"
    assert 0 <= table.loc[0, "accuracy"] <= 1
    assert (table.loc[0, ["parameters", "flops", "inference_ms", "seconds_per_epoch"]] > 0).all()
    case = read_datalist(out / "folds" / "fold_0").splits["test"][0]
    second = compare(*given, "--explain", f"{case}:spinal_canal_stenosis_l4_l5")
    assert second.exit_code == 0, second.output
    assert (run / "model.pt").stat().st_mtime_ns == trained
    assert "| cnn 2D |" in second.stdout
    made = {path.name.split("_")[0] for path in (*out.glob("*.png"), *(out / "explained").glob("*.png"))}
    assert made == {"confusion", "cost", "features", "filters", "grad", "learning", "reliability"}
    assert (out / "comparison.html").read_text().count("<img") == 7
    assert list((out / "tensorboard").glob("events.*"))


def test_a_case_that_cannot_be_explained_is_said_before_anything_is_trained(plan: Plan) -> None:
    given = [*arguments_of(plan), "--explain"]
    unknown = compare(*given, "no_such_case")
    assert (unknown.exit_code, "No fold tests on a case 'no_such_case'" in unknown.stderr) == (2, True)
    case = read_datalist(plan.fold(0)).splits["test"][0]
    other = compare(*given, f"{case}:left_subarticular_stenosis_l4_l5")
    assert (other.exit_code, "has no left_subarticular_stenosis_l4_l5" in other.stderr) == (2, True)
    assert not list(plan.output.glob("runs/*/*/fold_*"))


def test_the_page_is_there_when_explaining_fails(plan: Plan) -> None:
    write_tiny_runs(plan)
    next(plan.runs()).weights.write_bytes(b"")
    case = read_datalist(plan.fold(0)).splits["test"][0]
    result = compare(*arguments_of(plan), "--explain", case)
    assert (result.exit_code, "do not fit the network of cnn 2D, fold 1 of 3" in result.stderr) == (4, True)
    assert "| cnn 2D |" in (plan.output / "comparison.md").read_text()
    assert (plan.output / "comparison.html").is_file()


def test_the_study_is_no_place_for_a_comparison(plan: Plan) -> None:
    before = sorted(plan.study.iterdir())
    result = compare("--study", plan.study, "-o", plan.study / ".." / plan.study.name, "--architectures", "cnn")
    assert (result.exit_code, "is the study" in result.stderr) == (2, True)
    assert sorted(plan.study.iterdir()) == before


def test_a_contender_that_comes_apart_costs_the_others_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    both = replace(plan, contenders=contenders_of(["cnn", "mcnn"], [2], bundles=[CANAL]))
    write_tiny_runs(both)
    run = next(both.runs())
    for path in (run.weights, run.answers):
        path.unlink()
    code = "from monai_spine.errors import TrainingError; raise TrainingError('The loss in epoch 1 is nan.')"
    monkeypatch.setattr("monai_spine.comparison.plan.bundle_command", lambda *_, **__: (sys.executable, "-c", code))
    case = read_datalist(both.fold(0)).splits["test"][0]
    result = compare(*arguments_of(plan), "--architectures", "cnn,mcnn", "--explain", case)
    assert result.exit_code == 0, result.output
    page = (plan.output / "comparison.md").read_text()
    assert "Left out: cnn 2D, fold 1 of 3: training ended with exit code 1: The loss in epoch 1 is nan." in page
    assert not any("_cnn_2d" in path.name for path in (plan.output / "explained").iterdir())


def test_a_second_comparison_in_a_folder_is_refused_at_once(plan: Plan) -> None:
    with alone_in(plan.output):
        result = compare(*arguments_of(plan))
    assert (result.exit_code, "Another comparison is at work" in result.stderr) == (1, True)
    assert [path.name for path in plan.output.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Nothing to compare"),
        (("--architectures", "vgg61"), "Did you mean 'vgg16'"),
        (("--architectures", "cnn", "--bundle", "spinal_canal_grading"), "Did you mean 'spinal_canal_stenosis_grading'"),
        (("--architectures", ","), "No architecture was named. Choose from: all, own, cnn"),
        (("--experiment", "document_00"), "Did you mean 'document_00"),
        (("--architectures", "cnn", "--dims", "flat"), "--dims takes 2, 3 or 2,3, got 'flat'"),
        (("--architectures", "cnn", "--bundle", DEGENERATION, "--dims", "3"), "are pictures: give no --dims but 2"),
        (
            ("--experiment", "document_000", "--bundle", DEGENERATION),
            "asks about stenosis",
        ),
        (("--architectures", "cnn", "--set", "epochs"), "'epochs' sets nothing"),
        (("--architectures", "cnn", "--set", "seed=1"), "Give --seeds instead"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_done(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = compare("--study", tmp_path, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()
