"""Search a bundle's hyperparameters: each trial is one training by the bundle's own command.

    python tools/search_hyperparameters.py work/phantom -o work/search --bundle spinal_canal_stenosis_grading --trials 30
    python tools/search_hyperparameters.py work/phantom -o work/search --experiment document_002 -- --pretrained densenet.pt

What is searched stands in a JSON file (--space, otherwise configs/comparison/search.json): names of the configs' values with a
list to choose from, or `low`, `high` and `log` for those that take fractions. A trial that falls behind the median of the others
at the same epoch is stopped. All is kept in OUT/search.db: the same command goes on after an interruption, and a trial that was
cut off is made again. Written:

    trials.csv                     one row per trial: values, result, state
    best.json best.sh              values of the best trial, and the command that trains with them
    history.png importances.png slices.png epochs.png
    trials/<number>/               model.pt epochs.csv log.txt and TensorBoard events of each

best.json is the last overlay of that command. Alone above a bundle it would not do: what it names stands in the other overlays
too, such as configs/training/optimizer.json and those of the experiment. The studies of the split `validation` decide, so that
what is chosen has to be tested on others. Needs `pip install -e ".[search]"`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from monai.bundle import ConfigParser
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState
from optuna.visualization import matplotlib as plots
from search_space import Space, read_space, refuse_unfit_space, suggested

from monai_spine.comparison.experiments import find_experiment
from monai_spine.console import progress_reporter
from monai_spine.errors import SpineError, TableError
from monai_spine.studies.prepared import read_datalist
from monai_spine.suggestions import did_you_mean
from monai_spine.training.bundle_runs import CONFIGS, Step, bundle_command, keep, overlay, perform
from monai_spine.weights import find_bundle

_METRICS = ("validation_weighted_log_loss", "validation_log_loss")
_STARTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_SOUGHT = "(weighted) log loss of validation"
_FAILED = "training_failed"
_AGAIN = "made_again_of"
"""What is noted of a trial: that its training ended with an error; which trial that was cut off it makes again."""


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        study: Folder of a prepared study.
        output: Where everything goes.
        bundle: Folder of the bundle.
        overlays: Configs laid over its `train.json`, after one that builds optimisers by name.
        space: Names of values, each with its choices or its limits.
        arguments: More arguments of each training.
    """

    study: Path
    output: Path
    bundle: Path
    overlays: tuple[Path, ...]
    space: Space
    arguments: tuple[str, ...] = ()

    def configs(self) -> tuple[Path, ...]:
        """What is laid over the bundle's `train.json`."""
        return overlay("training", "optimizer"), *self.overlays, overlay("comparison", "record")

    def config(self) -> ConfigParser:
        """The configs of a training without the values that are searched.

        Raises:
            TableError: One cannot be read.
        """
        parser = ConfigParser()
        try:
            parser.read_config([str(self.bundle / "configs" / "train.json"), *map(str, self.configs())])
        except (OSError, ValueError) as error:
            raise TableError(f"The configs cannot be read ({error}). Give JSON files with --overlays.") from error
        return parser

    def step(self, number: int, values: Mapping[str, Any]) -> Step:
        """The training of one trial."""
        folder = self.output / "trials" / str(number)
        arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        command = self._command(folder, folder / "best.pt", self.configs(), arguments)
        said = ", ".join(
            f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
        )
        return Step(f"trial {number} ({said})", command, folder, folder / "model.pt", folder / "best.pt")

    def best_command(self) -> str:
        """A training with the values of `best.json`, as one types it: laid over the same configs as in the search."""
        folder = self.output / "best"
        command = self._command(folder, folder / "model.pt", (*self.configs(), self.output / "best.json"))
        return shlex.join(("python", *command[1:]))

    def _command(self, folder: Path, weights: Path, configs: Sequence[Path], arguments: Sequence[str] = ()) -> tuple[str, ...]:
        places = {"dataset_dir": str(self.study), "output_dir": str(folder), "ckpt_path": str(weights)}
        return bundle_command("training", self.bundle, configs, places, [*self.arguments, *arguments])


class _Watch:
    """Tell Optuna of each epoch that is done, and stop a trial that falls behind."""

    def __init__(self, trial: Trial, path: Path) -> None:
        self.trial, self.path = trial, path
        self.told = 0

    def __call__(self, *, stop: bool = True) -> None:
        for epoch, value in epochs_of(self.path)[self.told :]:
            self.told += 1
            self.trial.report(value, epoch)
            if stop and self.trial.should_prune():
                raise optuna.TrialPruned


def epochs_of(path: Path) -> list[tuple[int, float]]:
    """Epochs with what was validated after them, from the table of `EpochRecord`.

    Raises:
        TableError: The bundle validates by none of the figures that are known here.
    """
    if not path.is_file():
        return []
    table = pd.read_csv(path)
    metric = next((name for name in _METRICS if name in table), None)
    if metric is None:
        near = did_you_mean(_METRICS[0], table.columns)
        raise TableError(f"{path} has none of {', '.join(_METRICS)}. {near}Search a bundle that validates by one of them.")
    rows = table[["epoch", metric]].dropna()
    return [(int(epoch), float(value)) for epoch, value in rows.itertuples(index=False)]


def run_search(search: Search, trials: int, *, sampler_seed: int = 0, quiet: bool = False) -> optuna.Study:
    """Make as many trials as are lacking.

    Args:
        search: What is searched.
        trials: How many there shall be, those of former calls counted.
        sampler_seed: Of the choice of values.
        quiet: Say nothing.

    Raises:
        OutputError: The folder holds another search.
        TableError: What is searched does not fit the configs, or the study is not there.
        WeightsError: A training fails.
    """
    read_datalist(search.study)
    refuse_unfit_space(search.space, search.config(), search.arguments)
    overlays = [path.name for path in search.overlays]
    settings = {"study": str(search.study.resolve()), "bundle": search.bundle.name, "overlays": overlays}
    keep(search.output, {**settings, "space": dict(search.space), "arguments": list(search.arguments)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{search.output.resolve() / 'search.db'}",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=sampler_seed + _count(search)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
    )
    _make_again(study)
    with progress_reporter(quiet=quiet) as reporter:

        def objective(trial: Trial) -> float:
            step = search.step(trial.number, suggested(trial, search.space))
            reporter.step(len(_made(study)) / trials, f"{step.name}, {len(_made(study)) + 1} of {trials}")
            try:
                return _result(trial, step)
            except SpineError:
                trial.set_user_attr(_FAILED, True)
                raise

        while len(_made(study)) < trials:
            study.optimize(objective, n_trials=1)
            (search.output / "trials" / str(study.trials[-1].number) / "last.pt").unlink(missing_ok=True)
    return study


def _result(trial: Trial, step: Step) -> float:
    """The best that validation said in a trial's training."""
    watch = _Watch(trial, step.folder / "epochs.csv")
    perform(step, watch=watch)
    watch(stop=False)  # the epochs after the last look: nothing is saved by stopping what is done
    return min(value for _, value in epochs_of(watch.path))


def _make_again(study: optuna.Study) -> None:
    """Queue the trials that were cut off, each once. A kill leaves them running, Ctrl-C failed.

    One whose training failed of itself is left: its values may be why, and the search would never get past them.
    """
    for killed in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(killed.number, state=TrialState.FAIL)
    again = {trial.user_attrs.get(_AGAIN) for trial in study.trials}
    for cut_off in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        if cut_off.number not in again and _FAILED not in cut_off.user_attrs:
            study.enqueue_trial(cut_off.params, user_attrs={_AGAIN: cut_off.number})


def _count(search: Search) -> int:
    """Trials that were begun before, so that a search that goes on draws other values than it began with."""
    return len(list((search.output / "trials").glob("*")))


def _made(study: optuna.Study) -> list[FrozenTrial]:
    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def write_report(search: Search, study: optuna.Study) -> str:
    """Write tables, pictures and the command of the best values, and return what was best and that command."""
    study.trials_dataframe(attrs=("number", "state", "value", "params", "duration")).to_csv(
        search.output / "trials.csv", index=False
    )
    best = {**study.best_params}
    (search.output / "best.json").write_text(json.dumps(best, indent=4) + "\n", encoding="utf-8")
    (search.output / "best.sh").write_text(f"{search.best_command()}\n", encoding="utf-8")
    _draw(study, search.output)
    counts = ", ".join(f"{sum(one.state == state for one in study.trials)} {state.name.lower()}" for state in _STARTED)
    values = ", ".join(f"{name} {value}" for name, value in best.items())
    return (
        f"{counts} trials. Best: {study.best_value:.4f}, trial {study.best_trial.number}: {values}\n"
        f"To train with these values (best.sh):\n{search.best_command()}"
    )


def _draw(study: optuna.Study, folder: Path) -> None:
    """Optuna's plots, named after what is searched for; an epoch far above the rest leaves the picture."""
    drawn = {
        "history": partial(plots.plot_optimization_history, target_name=_SOUGHT),
        "slices": partial(plots.plot_slice, target_name=_SOUGHT),
        "epochs": plots.plot_intermediate_values,
    }
    if len(study.get_trials(states=(TrialState.COMPLETE,))) > 1:
        drawn["importances"] = partial(plots.plot_param_importances, target_name=_SOUGHT)
    for name, draw in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Attempting to set identical", category=UserWarning)  # one choice in all
            axes = draw(study)
        if name == "epochs":
            said = [value for trial in study.trials for value in trial.intermediate_values.values()]
            axes.set(xlabel="epoch", ylabel=_SOUGHT, ylim=(0.9 * min(said), 1.5 * float(np.quantile(said, 0.9))))
        figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
        figure.set_size_inches(14 if name == "slices" else 8, 5)
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    chosen = _parser().parse_args(given[:at])
    try:
        experiment = None if chosen.experiment is None else find_experiment(chosen.experiment)
        name = chosen.bundle or (experiment.bundle if experiment else "spinal_canal_stenosis_grading")
        own = (overlay("architectures", next(iter(experiment.architectures))), experiment.path) if experiment else ()
        space = read_space(chosen.space)
        overlays = (*own, *chosen.overlays)
        search = Search(chosen.study, chosen.output, find_bundle(name).root, overlays, space, tuple(given[at + 1 :]))
        study = run_search(search, chosen.trials)
        print(write_report(search, study))
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on, and makes the trial again that was cut off.", file=sys.stderr)
        return 130
    return 0


def _count_of_trials(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"there must be at least one trial, got {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a prepared study")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the search")
    parser.add_argument("--bundle", help="default: that of the experiment, or spinal_canal_stenosis_grading")
    parser.add_argument("--experiment", help="of configs/experiments; its first architecture is searched")
    parser.add_argument("--overlays", nargs="+", type=Path, default=[], help="more configs laid over train.json")
    parser.add_argument("--space", type=Path, default=CONFIGS / "comparison" / "search.json", help="what is searched")
    parser.add_argument("--trials", type=_count_of_trials, default=30, help="how many there shall be in all; default: 30")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
