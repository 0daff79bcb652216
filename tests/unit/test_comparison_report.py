"""The page of a comparison says what its figures rest on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from tiny_prepared import write_tiny_prepared
from tiny_runs import write_tiny_runs
from torch import nn

from monai_spine import __version__
from monai_spine.anatomy import Condition
from monai_spine.comparison import finished
from monai_spine.comparison.contenders import contenders_of
from monai_spine.comparison.cost import Cost, cost_of
from monai_spine.comparison.plan import Plan, Run
from monai_spine.comparison.report import NOTES, write_comparison
from monai_spine.comparison.scores import FIGURES
from monai_spine.comparison.table import cells, mean_and_deviation, paired_tests
from monai_spine.device import model_of
from monai_spine.errors import TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.weights import find_bundle

pytestmark = pytest.mark.filterwarnings("default")

CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]
HERE, THERE = (
    Cost(10, 20, 1.0, device=device, threads=threads, versions={"monai_spine": "0.5.0", "torch": "2.8.0"})
    for device, threads in (("AMD EPYC", 2), ("NVIDIA H100", None))
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("comparison")
    study = write_tiny_prepared(folder / "study", cases=3)
    contenders = contenders_of(["cnn", "residual_cnn"], [2], bundles=[CANAL])
    plan = Plan(study, folder / "out", (find_bundle(CANAL).root,), contenders, folds=3, settings={"crop#shape": [2, 24, 24]})
    write_tiny_runs(plan)
    return plan


def page_of(plan: Plan, **measured: Cost) -> str:
    costs = {(CANAL, name.replace("_2D", " 2D")): cost for name, cost in measured.items()}
    return write_comparison(plan, costs).with_suffix(".md").read_text(encoding="utf-8")


def test_a_cost_keeps_what_it_was_measured_on() -> None:
    cost = cost_of(nn.Linear(2, 2), (2,), repeats=1)
    assert cost.device == model_of("cpu") != ""
    assert cost.threads == torch.get_num_threads()
    assert cost.versions == {"monai_spine": __version__, "torch": torch.__version__}
    assert Cost(**json.loads(json.dumps(asdict(cost)))) == cost


def test_the_page_says_where_costs_were_measured_and_not_where_it_was_written(plan: Plan) -> None:
    page = page_of(plan, cnn_2D=HERE, residual_cnn_2D=HERE)
    assert "- Inference was measured on: AMD EPYC, 2 threads; monai_spine 0.5.0, torch 2.8.0.\n" in page
    assert torch.__version__ not in page


def test_places_that_differ_are_named_with_whom_they_measured(plan: Plan) -> None:
    page = page_of(plan, cnn_2D=replace(HERE, threads=1), residual_cnn_2D=THERE)
    assert "- Inference of cnn 2D was measured on: AMD EPYC, 1 thread; monai_spine" in page
    assert "- Inference of residual_cnn 2D was measured on: NVIDIA H100; monai_spine" in page


def test_a_cost_of_before_is_said_to_lack_its_place(plan: Plan) -> None:
    before = Cost(**json.loads('{"parameters": 4961731, "flops": 184913280, "inference_ms": 3.886}'))
    assert "measured on: what is not written down." in page_of(plan, cnn_2D=before, residual_cnn_2D=before)


def test_the_notes_name_the_columns_that_can_bear_a_dagger() -> None:
    """Of contenders that are far apart in every figure, the worse one bears it in these and in no other."""
    names = [figure.key for figure in FIGURES]
    rows = [
        {"bundle": "b", "question": "q", "contender": name, "fold": fold, "seed": 0}
        | dict.fromkeys(names, value + 0.001 * fold * (1 + value))
        for name, value in (("a", 0.1), ("b", 0.9))
        for fold in range(5)
    ]
    runs = pd.DataFrame(rows)
    figures, found = cells(mean_and_deviation(runs, FIGURES), paired_tests(runs, test_to_training=0.25))
    marked = [figure.title for figure in figures if any(row[figure.key].different for row in found)]
    assert 0 < len(marked) < len(names)
    assert f"Only these columns are tested: {'; '.join(marked)}. " in NOTES


@pytest.fixture
def cut(plan: Plan) -> Iterator[Run]:
    """A run whose tables may be cut; they are whole again after the test."""
    run = next(plan.runs())
    whole = {path: path.read_bytes() for path in (run.answers, run.epochs)}
    yield run
    for path, content in whole.items():
        path.write_bytes(content)


def test_epochs_that_are_missing_or_cut_are_named(plan: Plan, cut: Run) -> None:
    said = r"epochs\.csv is missing, cut or broken\. Remove the folder .*seed_0 and run the comparison again"
    whole = cut.epochs.read_text()
    for text in ("", whole[:10], whole[:-3], whole.splitlines(keepends=True)[0]):
        cut.epochs.write_text(text)
        with pytest.raises(TableError, match=said):
            write_comparison(plan, {})
    cut.epochs.unlink()
    with pytest.raises(TableError, match=said):
        write_comparison(plan, {})


def test_answers_that_are_cut_are_not_scored(plan: Plan, cut: Run) -> None:
    lines = cut.answers.read_text().splitlines(keepends=True)
    for text, said in (
        ("".join(lines[:8]), r"is cut: it lacks 13 targets of the test, such as spinal_canal_\w+ of case \d+\. Remove it"),
        (lines[0], "lacks 20 targets of the test"),
        ("", r"answers\.csv is cut or broken \(.*\)\. Remove it and run"),
        ("".join(lines)[:-20], "is cut or broken"),
        ("".join(lines[:-1]) + re.sub(r",0\.\d+,", ",nan,", lines[-1], count=1), "there are values that are no numbers"),
        ("".join(lines[:-1]) + lines[-1].rsplit(",", 1)[0] + ",7\n", r"is cut or broken \(label_0 is no answer's place\)"),
    ):
        cut.answers.write_text(text)
        with pytest.raises(TableError, match=said):
            write_comparison(plan, {})


def test_targets_outside_their_scans_are_not_missed(plan: Plan) -> None:
    """Half a metre lies outside of every scan, so that nothing is asked."""
    large = replace(plan, settings={**plan.settings, "crop#size_mm": [500.0, 500.0, 500.0]})
    run = next(large.runs())
    assert finished._lacking(run, []) == []
    assert len(finished._lacking(replace(run, plan=plan), [])) == 20


def test_a_run_that_is_not_finished_is_named_before_anything_is_written(plan: Plan) -> None:
    more = replace(plan, contenders=contenders_of(["cnn", "ckan"], [2], bundles=[CANAL]))
    for page in plan.output.glob("comparison.*"):
        page.unlink()
    with pytest.raises(
        WeightsError, match=r"ckan 2D, fold 1 of 3 is not finished: there is no .*ckan_2d/fold_0/seed_0/answers\.csv"
    ):
        write_comparison(more, {})
    assert not list(plan.output.glob("comparison.*"))
