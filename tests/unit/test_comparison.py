"""Figures of a comparison: means over folds, corrected tests, tables that say what is best."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from scipy import stats
from tiny_prepared import write_tiny_prepared
from torch import nn

from monai_spine.anatomy import Condition
from monai_spine.comparison.answers import Answers, SaveAnswers, read_answers
from monai_spine.comparison.budget import wrong_settings
from monai_spine.comparison.contenders import contenders_of
from monai_spine.comparison.cost import cost_of
from monai_spine.comparison.experiments import find_experiment
from monai_spine.comparison.pictures import costs, learning_curves
from monai_spine.comparison.plan import Plan, parsed_config, refuse_other_runs, steps_of, write_down
from monai_spine.comparison.questions import CONDITIONS, QUESTIONS, SEVERITY, Question, questions_of
from monai_spine.comparison.run import measure_all, train_all
from monai_spine.comparison.scores import FIGURES, official_score_of, scores_of
from monai_spine.comparison.significance import corrected_t_test, holm
from monai_spine.comparison.table import cells, markdown, mean_and_deviation, paired_tests
from monai_spine.console import progress_reporter
from monai_spine.degeneration import DEGENERATION
from monai_spine.errors import ArchitectureError, OutputError, TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.networks.fewer_classes import FewerClasses
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.item_choice import chosen_items
from monai_spine.training.optimizers import build_optimizer
from monai_spine.weights import find_bundle

CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]


def answers(labels: list[int], sure: float = 0.8) -> Answers:
    probabilities = np.full((len(labels), 3), (1 - sure) / 2)
    probabilities[:, 0] = sure
    slugs = np.array(["spinal_canal_stenosis_l4_l5"] * len(labels), dtype=object)
    return Answers(np.array([str(at) for at in range(len(labels))], dtype=object), slugs, probabilities, np.array(labels))


def runs(**figures: list[float]) -> pd.DataFrame:
    """Three folds, two seeds; `figures`: accuracy of each contender by fold."""
    rows = [
        {"bundle": "b", "question": "q", "contender": name, "fold": fold, "seed": seed, "accuracy": value + 0.01 * seed}
        for name, values in figures.items()
        for fold, value in enumerate(values)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_figures_are_those_of_their_definitions() -> None:
    found = scores_of(answers([0, 0, 0, 2]), SEVERITY)
    assert found["accuracy"] == 0.75
    assert found["recall_macro"] == 0.5
    assert found["precision_weighted"] == pytest.approx(0.75 * 0.75)
    assert found["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 4)
    scored = np.array([0.8, 0.2, 0.4]) / 1.4  # 1, 2, 4 times the probabilities
    assert found["weighted_log_loss"] == pytest.approx(-(3 * np.log(scored[0]) + 4 * np.log(scored[2])) / 7)
    assert found["calibration_error"] == pytest.approx(0.05)


def test_a_question_without_weights_has_no_weighted_log_loss() -> None:
    assert "weighted_log_loss" not in scores_of(answers([0, 1]), Question("condition", ("a", "b", "c")))


def test_the_official_score_needs_all_conditions() -> None:
    slugs = ["spinal_canal_stenosis_l4_l5", "left_neural_foraminal_narrowing_l4_l5", "right_subarticular_stenosis_l4_l5"]
    three = [replace(answers([0, 2]), target=np.array([slug] * 2, dtype=object)) for slug in slugs]
    assert 0 < official_score_of(three) < 2
    assert np.isnan(official_score_of(three[:2]))


def test_seeds_are_averaged_before_the_deviation_over_folds() -> None:
    means = mean_and_deviation(runs(a=[0.5, 0.6, 0.7]), FIGURES)
    assert means["accuracy"].tolist() == pytest.approx([0.605])
    assert means["accuracy_sd"].tolist() == pytest.approx([0.1])


def test_one_split_has_a_deviation_over_seeds_and_no_test() -> None:
    one = runs(a=[0.5], b=[0.7])
    assert mean_and_deviation(one, FIGURES)["accuracy_sd"].tolist() == pytest.approx([0.01 / np.sqrt(2)] * 2)
    assert paired_tests(one, test_to_training=0.2).empty


def test_the_corrected_test_is_a_plain_one_where_nothing_overlaps_and_milder_otherwise() -> None:
    differences = [0.10, 0.20, 0.15, 0.05, 0.12]
    plain = stats.ttest_1samp(differences, 0)
    assert corrected_t_test(differences, test_to_training=0.0) == pytest.approx((plain.statistic, plain.pvalue))
    assert corrected_t_test(differences, test_to_training=0.25)[1] > plain.pvalue
    assert np.isnan(corrected_t_test([0.1], test_to_training=0.25)[1])


def test_two_folds_that_differ_alike_are_no_evidence() -> None:
    assert np.isnan(corrected_t_test([0.7825 - 0.78, 0.7925 - 0.79], test_to_training=1.0)).all()
    assert np.isnan(corrected_t_test([0.0, 0.0], test_to_training=1.0)).all()


def test_corrected_values_of_p_are_holm_s() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])


def test_the_table_marks_the_best_and_what_differs_from_it() -> None:
    found = runs(a=[0.90, 0.91, 0.92], b=[0.50, 0.52, 0.52], c=[0.89, 0.93, 0.90])
    figures, rows = cells(mean_and_deviation(found, FIGURES), paired_tests(found, test_to_training=0.5))
    assert [figure.key for figure in figures] == ["accuracy"]
    assert [(row["accuracy"].best, row["accuracy"].different) for row in rows] == [(True, False), (False, True), (False, False)]
    lines = markdown(["a", "b", "c"], figures, rows)
    assert lines[2] == "| a | **0.915 ± 0.010** |"
    assert lines[3].endswith("† |")


def test_all_that_are_as_good_as_the_best_are_marked() -> None:
    found = runs(a=[0.50, 0.52], b=[0.60, 0.62], c=[0.60, 0.62])
    _, rows = cells(mean_and_deviation(found, FIGURES), paired_tests(found, test_to_training=0.5))
    assert [row["accuracy"].best for row in rows] == [False, True, True]


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    saved = SaveAnswers(tmp_path / "answers.csv")
    said = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6, 0.2, 0.3, 0.5])
    saved._rows = [
        saved.row({"case": "7", "target": "spinal_canal_stenosis_l4_l5", "label": torch.tensor(label)}, said)
        for label in ([4, 1], [2, -1])
    ]
    saved._write(None)
    found = read_answers(tmp_path / "answers.csv", QUESTIONS[CONDITIONS])
    assert found["condition"].labels.tolist() == [4, 2]
    assert found["severity"].labels.tolist() == [1]
    assert found["severity"].probabilities[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert found["condition"].called.tolist() == [4, 4]


def test_a_small_probability_is_no_zero_when_it_is_read_again(tmp_path: Path) -> None:
    saved = SaveAnswers(tmp_path / "answers.csv")
    example = {"case": "7", "target": "spinal_canal_stenosis_l4_l5", "label": torch.tensor(2)}
    saved._rows = [saved.row(example, torch.tensor([1 - 2e-8, 1e-8, 1.25e-8]))]
    saved._write(None)
    read = read_answers(tmp_path / "answers.csv", QUESTIONS[CANAL])["severity"]
    assert scores_of(read, QUESTIONS[CANAL][0])["log_loss"] == pytest.approx(-np.log(1.25e-8), abs=1e-4)


def test_a_cost_counts_weights_and_two_operations_for_each_product() -> None:
    cost = cost_of(nn.Sequential(nn.Flatten(), nn.Linear(8, 5)), (1, 2, 4), repeats=3)
    assert (cost.parameters, cost.flops) == (45, 80)
    assert cost.inference_ms > 0


def test_names_stand_for_contenders_in_each_dimension() -> None:
    found = contenders_of(["own", "ckan", "ckan"], [2, 3], bundles=[CANAL])
    assert [one.slug for one in found] == ["own", "ckan_2d", "ckan_3d"]
    assert len(contenders_of(["all"], [3], bundles=[CANAL])) == 20


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda: contenders_of(["resnet81"], [3], bundles=[CANAL]), ArchitectureError, r"'resnet81'.*Did you mean 'resnet18'"),
        (lambda: contenders_of(["cnn"], [4], bundles=[CANAL]), ArchitectureError, r"2 or 3 dimensions, got \[4\]"),
        (lambda: questions_of("spinal_canal_stenosis"), TableError, "Did you mean 'spinal_canal_stenosis_grading'"),
        (lambda: find_experiment("dokument_000"), TableError, "Did you mean 'document_000'"),
        (lambda: build_optimizer("rmsprob", [], lr=0.1), TableError, "Did you mean 'rmsprop'"),
        (lambda: chosen_items([], levels=["L4/L5"]), TableError, "None of 0 items is at L4/L5"),
        (lambda: FewerClasses(nn.Flatten(), ["severe"]), ArchitectureError, "two severities or more"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(ask, error, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=said):
        ask()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("study"), cases=3)


@pytest.fixture
def plan(study: Path, tmp_path: Path) -> Plan:
    contenders = contenders_of(["cnn"], [2], bundles=[CANAL])
    return Plan(study, tmp_path / "out", (find_bundle(CANAL).root,), contenders, folds=3, settings={"epochs": 1})


def test_folds_test_on_every_study_once_and_validate_on_others(plan: Plan) -> None:
    write_down(plan)
    lists = [read_datalist(plan.fold(number)) for number in range(3)]
    every = sorted(case.case for case in lists[0].cases)
    assert sorted(name for one in lists for name in one.splits["test"]) == every
    assert all(sorted(name for names in one.splits.values() for name in names) == every for one in lists)
    assert all(one.splits["validation"] for one in lists)


def begin(plan: Plan) -> None:
    """Write a plan down, and the checkpoint of an epoch of its first run."""
    write_down(plan)
    run = next(plan.runs())
    run.folder.mkdir(parents=True)
    (run.folder / "last.pt").touch()


def test_a_command_may_be_corrected_as_long_as_no_epoch_is_done(plan: Plan) -> None:
    small = replace(plan, settings={"crop#shape": [8, 24, 24]})
    with progress_reporter(quiet=True) as reporter:
        (before,), (now,) = (measure_all(one, reporter)[1].values() for one in (small, plan))
        begin(plan)
        (kept,) = measure_all(plan, reporter)[1].values()
        with pytest.raises(OutputError, match="other settings"):
            measure_all(small, reporter)
    assert before.flops < now.flops
    assert kept == now


def test_settings_that_are_cut_or_broken_are_named(plan: Plan) -> None:
    begin(plan)
    for path in (plan.output / "settings.json", next(plan.runs()).folder.parents[1] / "settings.json"):
        whole = path.read_text()
        for text in ("", whole[:20], "[]"):
            path.write_text(text)
            with pytest.raises(OutputError, match=r"settings\.json is cut or broken: .*Choose another folder, or remove"):
                refuse_other_runs(plan)
        path.write_text(whole)


def test_a_cost_that_is_cut_or_broken_is_measured_again(plan: Plan) -> None:
    begin(plan)
    with progress_reporter(quiet=True) as reporter:
        _, costs, _ = measure_all(plan, reporter)
        for text in ("", "{}", "[]"):
            (next(plan.runs()).folder.parents[1] / "cost.json").write_text(text)
            assert measure_all(plan, reporter)[1].keys() == costs.keys()


def test_a_folder_of_other_settings_is_refused_and_contenders_may_be_added(plan: Plan) -> None:
    begin(plan)
    write_down(replace(plan, contenders=(*plan.contenders, *contenders_of(["ckan"], [2], bundles=[CANAL]))))
    with pytest.raises(OutputError, match=r'other settings: settings epochs was "1", is "2"\. Choose'):
        write_down(replace(plan, settings={"epochs": 2}))


def test_the_ratio_of_the_test_is_that_of_the_folds_that_are_written(plan: Plan) -> None:
    folds = replace(plan, folds=2)
    assert folds.test_to_training == pytest.approx(0.5 / (0.85 * 0.5))
    assert replace(plan, folds=1, shares=(0.7, 0.1, 0.2)).test_to_training == pytest.approx(0.2 / 0.7)


def test_runs_of_what_a_study_or_a_config_was_before_are_not_gone_on_with(plan: Plan, tmp_path: Path) -> None:
    study, root = tmp_path / "study", tmp_path / CANAL
    shutil.copytree(plan.study, study)
    shutil.copytree(plan.bundles[0] / "configs", root / "configs")
    own = replace(plan, study=study, bundles=(root,))
    begin(own)
    refuse_other_runs(own)
    (root / "configs" / "train.json").write_text((root / "configs" / "train.json").read_text() + "\n")
    with pytest.raises(OutputError, match=r"configs train\.json was"):
        refuse_other_runs(own)
    (study / "datalist.json").write_text((study / "datalist.json").read_text() + "\n")
    with pytest.raises(OutputError, match=r"content datalist\.json was"):
        refuse_other_runs(own)


def test_a_misspelt_name_of_the_budget_is_known_before_anything_is_written(plan: Plan) -> None:
    said = wrong_settings(replace(plan, settings={"learning_rat": 0.1, "batch_size": 4}))
    assert len(said) == 1
    assert "--set learning_rat would change nothing" in said[0]
    assert "learning_rate" in said[0]
    assert not plan.output.exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 3}, "--set seed is not taken, as each run has its own. Give --seeds instead."),
        ({"dataset_dir": "there"}, "--set dataset_dir is not taken, as each run has its own. Give --study instead."),
        ({"resume": False}, "--set resume is not taken, as each run has its own."),
        (
            {"network_def#name": "vit"},
            "--set network_def#name is not taken, as each run has its own. Give --architectures instead.",
        ),
        ({"epochs": 0}, "epochs must be 1 or more, got 0."),
        ({"limit": -1}, "limit must be 1 or more, got -1."),
    ],
)
def test_settings_that_would_spoil_every_run_are_refused(plan: Plan, settings: dict[str, object], said: str) -> None:
    (sentence,) = wrong_settings(replace(plan, settings=settings))
    assert sentence == said
    assert not wrong_settings(replace(plan, settings={"limit": None, "epochs": 1}))


def test_all_contenders_of_the_discs_have_one_budget(plan: Plan) -> None:
    root, chosen = find_bundle(DEGENERATION).root, contenders_of(["own", "cnn"], [2], bundles=[DEGENERATION])
    own, other = (parsed_config(replace(plan, settings={}), root, one) for one in chosen)
    for name in ("epochs", "batch_size", "warmup_epochs", "val_interval"):
        assert own[name] == other[name]
    assert own["network_def"] != other["network_def"]


def test_commands_hold_the_bundle_the_contender_and_the_experiment_in_this_order(plan: Plan) -> None:
    experiment = find_experiment("document_000")
    run = next(replace(plan, overlays=(experiment.path,)).runs())
    training, testing = steps_of(run)
    files = training.command[training.command.index("--config_file") + 1]
    order = [files.index(name) for name in ("train.json", "architectures/cnn.json", "document_000.json", "record.json")]
    assert order == sorted(order)
    assert training.command[-2:] == ("--epochs", "1")
    assert testing.command[testing.command.index("--split") + 1] == "test"


def test_a_network_that_does_not_fit_stops_before_any_training(plan: Plan) -> None:
    small = replace(plan, settings={"crop#shape": [8, 24, 24]}, contenders=contenders_of(["vgg16"], [3], bundles=[CANAL]))
    with progress_reporter(quiet=True) as reporter, pytest.raises(ArchitectureError, match=r"vgg16.*at least 32 voxels along A"):
        measure_all(small, reporter)
    assert not plan.output.exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dropout": 2}, r"^cnn 2D cannot be built with dropout=2: dropout probability has to be between 0 and 1, but got 2"),
        ({"crop": 5}, r"^cnn 2D cannot be built with crop=5: "),
        (
            {"epochs": 1, "crop#shape": 16},
            r"^cnn 2D cannot be built with epochs=1, crop#shape=16: .*\. Correct these settings\.$",
        ),
    ],
)
def test_settings_of_which_no_network_can_be_built_are_named(plan: Plan, settings: dict[str, object], said: str) -> None:
    with progress_reporter(quiet=True) as reporter, pytest.raises(ArchitectureError, match=said):
        measure_all(replace(plan, settings=settings), reporter)
    assert not plan.output.exists()


def test_a_crop_section_that_makes_no_crop_stops_before_any_training(plan: Plan) -> None:
    wrong = replace(plan, settings={"crop#size_mm": 5})
    with progress_reporter(quiet=True) as reporter, pytest.raises(WeightsError, match=r"crop section .* It needs role, size_mm"):
        measure_all(wrong, reporter)
    assert not plan.output.exists()


def test_a_network_that_does_not_fit_is_left_out_where_that_was_asked_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("monai_spine.comparison.run.perform", lambda step, **_: done.append(step.name))
    both = contenders_of(["vgg16", "cnn"], [3], bundles=[CANAL])
    small = replace(plan, settings={"crop#shape": [8, 24, 24]}, contenders=both)
    with progress_reporter(quiet=True) as reporter:
        left, costs, (reason,) = measure_all(small, reporter, leave_out=True)
        train_all(left, reporter)
    assert [contender.label for contender in left.contenders] == ["cnn 3D"]
    assert list(costs) == [(CANAL, "cnn 3D")]
    assert reason.startswith("vgg16 does not fit: ")
    assert len(done) == 3 * len(steps_of(next(left.runs())))
    assert all(name.startswith("cnn 3D, fold") for name in done)


def test_leaving_out_what_does_not_fit_leaves_one_at_least(plan: Plan) -> None:
    small = replace(plan, settings={"crop#shape": [8, 24, 24]}, contenders=contenders_of(["vgg16"], [3], bundles=[CANAL]))
    with progress_reporter(quiet=True) as reporter, pytest.raises(ArchitectureError, match="vgg16 does not fit"):
        measure_all(small, reporter, leave_out=True)


@pytest.mark.parametrize("bundle", QUESTIONS)
def test_a_contender_answers_every_question_of_a_bundle_about_its_crops(plan: Plan, bundle: str) -> None:
    chosen = contenders_of(["cnn"], [2], bundles=[bundle])
    parser = parsed_config(replace(plan, settings={}), find_bundle(bundle).root, chosen[0])
    shape = parser.get_parsed_content("crop")["shape"]
    network = parser.get_parsed_content("network_def").eval()
    seen = torch.zeros(1, 1, *(shape[1:] if bundle == DEGENERATION else shape))
    assert network(seen).shape == (1, sum(len(question.answers) for question in QUESTIONS[bundle]))


def test_experiments_say_what_their_documents_state() -> None:
    found = find_experiment("document_001")
    assert found.architectures["vgg16"] == {"crop#whole": True, "crop#marker_mm": 4.0, "batch_size": 16}
    assert json.loads(found.path.read_text())["plateau_factor"] == 0.75
    assert found.shares == (0.7, 0.15, 0.15)


def test_one_wild_epoch_does_not_press_the_learning_curves_flat() -> None:
    falling = np.linspace(1.0, 0.5, 40)
    calm = pd.DataFrame({"epoch": range(1, 41), "mean_train_loss": falling, "validation_loss": falling + 0.1})
    wild = calm.assign(validation_loss=calm["validation_loss"].where(calm["epoch"] != 2, 50.0))
    calm_top, wild_top = (learning_curves({"cnn 2D": [one]}, "validation_loss").axes[0].get_ylim()[1] for one in (calm, wild))
    assert wild_top == pytest.approx(1.3 * 1.05, abs=0.1)
    assert calm_top < wild_top < 2


def test_contenders_that_cost_and_reach_the_same_are_named_beside_each_other() -> None:
    names = [f"contender_{number} 2D" for number in range(6)]
    means = pd.DataFrame({"contender": names, "parameters": 10, "accuracy": 0.6, "accuracy_sd": 0.01, "inference_ms": 5.0})
    figure = costs(means, "accuracy", "accuracy")
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == names
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
    assert len({text.xyann[0] for text in axes.texts}) == 1
