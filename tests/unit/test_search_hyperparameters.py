"""A search makes its trials by the bundle's command, goes on after an interruption, and stops what falls behind."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_spine.errors import OutputError, WeightsError
from monai_spine.studies.prepared import write_datalist
from monai_spine.training import bundle_runs
from monai_spine.training.bundle_runs import Step, overlay
from monai_spine.training.given_names import given_to_run, unknown_names
from monai_spine.weights import find_bundle

optuna = pytest.importorskip("optuna")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))

import search_hyperparameters  # noqa: E402
from search_hyperparameters import CONFIGS, Search, main, read_space, run_search, write_report  # noqa: E402
from search_space import refuse_unfit_space  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")
EPOCHS = 30
TRAINING = f"""
import os, sys, pathlib, time
folder, rate = pathlib.Path(sys.argv[1]), float(sys.argv[2])
slow = rate > 0.9
rows = ["epoch,validation_log_loss"]
for at in range(1, {EPOCHS + 1}):
    rows.append(f"{{at}},{{abs(rate - 0.3) + 1 / at}}")
    if slow or at == {EPOCHS}:
        (folder / "part").write_text("\\n".join(rows) + "\\n")
        os.replace(folder / "part", folder / "epochs.csv")
    time.sleep(0.2 * slow)
(folder / "best.pt").write_text("")
"""


class Quick(Search):
    """A search whose trainings write made-up epochs: all at once, or one by one for six seconds at a learning rate above 0.9."""

    def step(self, number: int, values: dict) -> Step:  # type: ignore[override]
        real = super().step(number, values)
        command = (sys.executable, "-c", TRAINING, str(real.folder), str(values["learning_rate"]))
        return Step(real.name, command, real.folder, real.made, real.written)


@pytest.fixture(autouse=True)
def prepared(tmp_path: Path) -> None:
    write_datalist(tmp_path, study="none", source="simulated", cases=[], splits={})


@pytest.fixture
def search(tmp_path: Path) -> Quick:
    space = {"learning_rate": {"low": 0.1, "high": 0.8}, "optimizer_name": ["Adam", "SGD"]}
    return Quick(tmp_path, tmp_path / "out", find_bundle("spinal_canal_stenosis_grading").root, (), space)


def test_a_search_goes_on_and_makes_again_what_was_cut_off(search: Quick) -> None:
    first = run_search(search, 2, quiet=True)
    cut_off = first.ask({"learning_rate": optuna.distributions.FloatDistribution(0.1, 0.8)})
    study = run_search(search, 4, quiet=True)
    states = [one.state.name for one in study.trials]
    assert states.count("COMPLETE") == 4
    assert states[cut_off.number] == "FAIL"
    assert study.trials[cut_off.number + 1].params["learning_rate"] == cut_off.params["learning_rate"]
    assert "Best: " in write_report(search, study)
    assert json.loads((search.output / "best.json").read_text()) == study.best_params
    assert {path.name for path in search.output.glob("*.png")} == {
        "epochs.png",
        "history.png",
        "importances.png",
        "slices.png",
    }


def test_a_study_that_is_not_there_is_refused_before_any_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "-o", str(tmp_path / "out"), "--trials", "1"]) == 2
    assert re.search(r"Error: .*none cannot be read as a data list.*monai-spine prepare", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def ending_with(error: BaseException) -> Callable[..., None]:
    """A training that has begun, and ends so."""

    def perform(step: Step, **_: object) -> None:
        step.folder.mkdir(parents=True)
        raise error

    return perform


def test_a_trial_that_ctrl_c_cut_off_is_made_again_once(search: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with monkeypatch.context() as during:
            during.setattr(search_hyperparameters, "perform", ending_with(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                run_search(search, 1, quiet=True)
    run_search(search, 1, quiet=True)
    trials = run_search(search, 2, quiet=True).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params == trials[1].params == trials[2].params != trials[3].params


def test_a_trial_whose_training_failed_is_not_made_again(
    search: Quick, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as during:
        during.setattr(search_hyperparameters, "perform", ending_with(WeightsError("out of memory")))
        with pytest.raises(WeightsError, match="out of memory"):
            run_search(search, 1, quiet=True)
    assert "Traceback" not in caplog.text
    failed, made = run_search(search, 1, quiet=True).trials
    assert (failed.state.name, made.state.name) == ("FAIL", "COMPLETE")
    assert failed.params != made.params


def test_the_command_says_on_ctrl_c_how_it_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(search_hyperparameters, "perform", ending_with(KeyboardInterrupt()))
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 130
    assert "Traceback" not in caplog.text
    assert capsys.readouterr().err.endswith("Stopped. The same command goes on, and makes the trial again that was cut off.\n")


def test_all_epochs_of_a_training_are_told_of_also_those_after_the_last_look(search: Quick) -> None:
    (trial,) = run_search(search, 1, quiet=True).trials
    rate = trial.params["learning_rate"]
    assert trial.intermediate_values == pytest.approx({at: abs(rate - 0.3) + 1 / at for at in range(1, EPOCHS + 1)})
    assert trial.value == pytest.approx(min(trial.intermediate_values.values()))


def test_a_trial_that_falls_behind_is_stopped_while_it_trains(search: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_runs, "_WATCH_S", 0.05)
    search = replace(search, space={"learning_rate": [0.2, 0.95]})
    study = run_search(search, 0, quiet=True)
    for rate in (0.2, 0.2, 0.2, 0.2, 0.95):
        study.enqueue_trial({"learning_rate": rate})
    *good, bad = run_search(search, 5, quiet=True).trials
    assert {trial.state.name for trial in good} == {"COMPLETE"}
    assert bad.state.name == "PRUNED"
    assert 3 <= bad.last_step < EPOCHS
    assert not (search.output / "trials" / "4" / "model.pt").exists()


def test_a_folder_of_another_search_is_refused(search: Quick) -> None:
    run_search(search, 1, quiet=True)
    other = Quick(search.study, search.output, search.bundle, (), {"learning_rate": [0.1]})
    with pytest.raises(OutputError, match=r"other settings: space learning_rate was .*, is \[0\.1\]"):
        run_search(other, 2, quiet=True)


def test_a_trial_is_one_training_by_the_bundle_s_command(tmp_path: Path) -> None:
    space = read_space(CONFIGS / "comparison" / "search.json")
    bundle = find_bundle("spinal_canal_stenosis_grading").root
    step = Search(tmp_path, tmp_path / "out", bundle, (), space).step(3, {"learning_rate": 1e-4, "optimizer_name": "SGD"})
    assert step.command[1:5] == ("-m", "monai.bundle", "run", "training")
    assert step.command[-4:] == ("--learning_rate", "0.0001", "--optimizer_name", "SGD")
    assert space["learning_rate"] == {"low": 1e-7, "high": 1e-3, "log": True}


@pytest.mark.parametrize("experiment", [None, "document_002"])
def test_the_command_of_the_best_trial_trains_with_its_values(search: Quick, experiment: str | None) -> None:
    overlays = () if experiment is None else (overlay("architectures", "densenet121"), overlay("experiments", experiment))
    search = replace(search, overlays=overlays, space={**search.space, "optimizer_name": ["SGD"]}, arguments=("--amp", "False"))
    study = run_search(search, 1, quiet=True)
    command = write_report(search, study).splitlines()[-1]
    assert (search.output / "best.sh").read_text() == f"{command}\n"
    assert """ --config_file '["/""" in command
    program, *arguments = shlex.split(command)
    assert (program, arguments[:4]) == ("python", ["-m", "monai.bundle", "run", "training"])
    files, given = given_to_run(arguments[2:])
    config = ConfigParser()
    config.read_config(files[:-1])
    assert unknown_names(config, json.loads((search.output / "best.json").read_text())) == []
    config.read_config(files)
    assert unknown_names(config, given) == []
    assert (config["amp"], config["ckpt_path"]) == (False, str(search.output / "best" / "model.pt"))
    optimizer = config.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == study.best_params["learning_rate"]


UNFIT_FILES = {
    "{": "cannot be read .*Give a JSON file with --space",
    "": "cannot be read .*Give a JSON file with --space",
    "{}": "names nothing to search. Write a JSON object",
    "[1, 2]": "names nothing to search. Write a JSON object",
    '{"dropout": {"low": 0.5, "high": 0.2}}': "dropout must be a list of numbers or words, or have low < high",
    '{"dropout": {"low": 0.2}}': "dropout must be .*, got {.low.: 0.2}",
    '{"dropout": {"low": "a", "high": "b"}}': "dropout must be",
    '{"dropout": {"low": 0.1, "high": NaN}}': "dropout must be",
    '{"dropout": {"low": 0.1, "high": 0.2, "step": 0.1}}': "dropout must be",
    '{"dropout": {"low": 0.0, "high": 0.2, "log": true}}': "dropout must be .*true needs low > 0",
    '{"dropout": {"low": 0.1, "high": 0.2, "log": "yes"}}': "dropout must be",
    '{"dropout": 0.2}': "dropout must be",
    '{"dropout": []}': "dropout must be",
    '{"crop#shape": [[16, 56, 56], [8, 56, 56]]}': "crop#shape must be",
    '{"learnig_rate": [0.1]}': "--learnig_rate would change nothing: .*Did you mean 'learning_rate'.*file of --space",
    '{"batch_size": {"low": 8, "high": 64}}': "batch_size is 32 in the configs, so that it takes no fractions: list its choices",
    '{"optimizer_name": {"low": 0, "high": 1}}': 'optimizer_name is "AdamW" in the configs',
    '{"epochs": [3, 5]}': "--epochs is searched and stands after -- too",
}


@pytest.mark.parametrize("content", UNFIT_FILES)
def test_an_unfit_space_is_refused_in_a_line_or_two(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.json").write_text(content)
    out = tmp_path / "out"
    assert main([str(tmp_path), "-o", str(out), "--space", str(tmp_path / "space.json"), "--", "--epochs", "2"]) == 2
    said = capsys.readouterr().err
    assert re.match(f"Error: .*{UNFIT_FILES[content]}", said, re.DOTALL)
    assert len(said.splitlines()) <= 3
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "nowhere.json"], r"Error: nowhere\.json cannot be read \(.*No such file.*Give a JSON file with --space"),
        (["--overlays", "nowhere.json"], r"Error: The configs cannot be read \(.*No such file.*Give JSON files with --overlays"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert re.match(said, capsys.readouterr().err)


def test_a_search_of_no_trials_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "-o", str(tmp_path / "out"), "--trials", "0"])
    assert "--trials: there must be at least one trial, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("limits", [{"low": 1, "high": 2}, {"low": 1e-4, "high": 1, "log": True}])
def test_limits_may_be_whole_where_the_value_is_not(search: Quick, limits: dict[str, object]) -> None:
    refuse_unfit_space({"learning_rate": limits, "batch_size": [8, 16], "amp": [True, False]}, search.config())


def test_what_a_search_needs_to_train_is_installed_with_it() -> None:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    extras = config["options.extras_require"]
    assert {"optuna", *extras["bundle"].split()} <= set(extras["search"].split())
    assert "fire" in extras["bundle"].split()
