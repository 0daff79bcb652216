"""The bundles' own commands for each fold, one after the other; what is finished stays, what was killed goes on.

OUT/settings.json
    runs/<bundle>/<fold>/best.pt model.pt last.pt log.txt predictions.csv     TensorBoard events beside them
                         second/                                              the same of the second step
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_spine.errors import OutputError, TableError, WeightsError

__all__ = ["REPOSITORY", "Plan", "Step", "bundle_command", "folds_of", "keep", "keep_settings", "perform", "steps"]

REPOSITORY = Path(__file__).resolve().parents[2]
SAVE = REPOSITORY / "configs" / "training" / "save_predictions.json"
_SHOWN = 15


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        prepared: Folder of a prepared study, with `folds/`.
        output: Where the runs and all that is said of them go.
        bundles: Folders of grading bundles.
        folds: Names of folds.
        overlays: Configs that are laid over each bundle's `train.json`.
        second: Configs of a second step, which starts from the weights of the first; empty: there is none.
        arguments: More arguments of the bundles' commands.
        second_arguments: More arguments of the second step.
        predicted_points: What is held out is predicted where an analysis would look, not where readers set their points.
    """

    prepared: Path
    output: Path
    bundles: tuple[Path, ...]
    folds: tuple[str, ...]
    overlays: tuple[Path, ...] = ()
    second: tuple[Path, ...] = ()
    arguments: tuple[str, ...] = ()
    second_arguments: tuple[str, ...] = ()
    predicted_points: bool = False

    def run_of(self, bundle: Path, fold: str) -> Path:
        """Folder of a fold's run."""
        return self.output / "runs" / bundle.name / fold

    def datalist_of(self, fold: str) -> Path:
        """Folder of a fold's data list."""
        return self.prepared / "folds" / fold

    def points_of(self, fold: str) -> Path:
        """Folder of the data list that a fold's studies are predicted from."""
        return self.output / "points" / fold if self.predicted_points else self.datalist_of(fold)

    def weights_of(self, bundle: Path, fold: str) -> Path:
        """The trained weights of a fold, those of the last step."""
        run = self.run_of(bundle, fold)
        return (run / "second" if self.second else run) / "model.pt"

    def predictions_of(self, bundle: Path, fold: str) -> Path:
        """Where a fold's predictions for the studies that it held out are."""
        run = self.run_of(bundle, fold)
        return (run / "at_predicted_points" if self.predicted_points else run) / "predictions.csv"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: For people.
        command: To run.
        folder: Where it writes.
        made: What is there when it is done.
        written: What the command itself writes; it becomes `made` when the command has ended well.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    made: Path
    written: Path


def folds_of(prepared: Path) -> tuple[str, ...]:
    """Names of the folds of a prepared study.

    Raises:
        TableError: It has none.
    """
    names = tuple(sorted(path.parent.name for path in (prepared / "folds").glob("*/datalist.json")))
    if not names:
        raise TableError(f"{prepared} has no folds. Prepare a study of at least five patients: `monai-spine prepare rsna2024`.")
    return names


def keep_settings(plan: Plan) -> None:
    """Write down what is trained, or refuse to go on with something else in the same folder. Bundles and folds may be added.

    Raises:
        OutputError: The folder holds runs of other settings.
    """
    configs = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (*plan.overlays, *plan.second)}
    settings = {
        "prepared": str(plan.prepared.resolve()),
        "overlays": [str(path) for path in plan.overlays],
        "second": [str(path) for path in plan.second],
        "arguments": list(plan.arguments),
        "second_arguments": list(plan.second_arguments),
        "sha256": configs,
    }
    keep(plan.output, settings)


def keep(folder: Path, settings: Mapping[str, object]) -> None:
    """Write settings down in a folder, or refuse to go on with others than are there.

    Raises:
        OutputError: The folder holds runs of other settings.
    """
    path = folder / "settings.json"
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in settings if there.get(key) != settings[key])
        if differing:
            raise OutputError(
                f"{folder} holds runs of other settings ({', '.join(differing)}). Choose another folder, or remove it."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def steps(plan: Plan) -> Iterator[Step]:
    """All commands in their order: fold by fold, so that each finished fold is one of all conditions."""
    for fold in plan.folds:
        if plan.predicted_points:
            yield _placing(plan, fold)
        for bundle in plan.bundles:
            run = plan.run_of(bundle, fold)
            yield _training(plan, bundle, fold, run, plan.overlays, {}, plan.arguments)
            weights = run / "model.pt"
            if plan.second:
                overlays = (*plan.overlays, *plan.second)
                start = {"pretrained": str(weights)}
                more = (*plan.arguments, *plan.second_arguments)
                yield _training(plan, bundle, fold, run / "second", overlays, start, more)
                weights = run / "second" / "model.pt"
            yield _predicting(plan, bundle, fold, weights)


def _training(
    plan: Plan, bundle: Path, fold: str, run: Path, overlays: Sequence[Path], more: Mapping[str, str], arguments: Sequence[str]
) -> Step:
    places = {
        "dataset_dir": str(plan.datalist_of(fold)),
        "output_dir": str(run),
        "ckpt_path": str(run / "best.pt"),
        "resume": "True",
        "val_interval": "@epochs",
        **more,
    }
    command = bundle_command("training", bundle, overlays, places, arguments)
    what = "training the head" if more else "training"
    return Step(f"{bundle.name}, {fold}: {what}", command, run, run / "model.pt", run / "best.pt")


def _placing(plan: Plan, fold: str) -> Step:
    made = plan.points_of(fold) / "datalist.json"
    tool = REPOSITORY / "tools" / "predict_points.py"
    command = (sys.executable, str(tool), str(plan.datalist_of(fold)), "-o", str(made.parent))
    return Step(f"{fold}: finding the levels", command, made.parent, made, made)


def _predicting(plan: Plan, bundle: Path, fold: str, weights: Path) -> Step:
    made = plan.predictions_of(bundle, fold)
    places = {
        "dataset_dir": str(plan.points_of(fold)),
        "output_dir": str(made.parent),
        "ckpt_path": str(weights),
        "split": "validation",
    }
    overlays = (*plan.overlays, bundle / "configs" / "evaluate.json", SAVE)
    command = bundle_command("evaluating", bundle, overlays, places, plan.arguments)
    return Step(f"{bundle.name}, {fold}: predicting", command, made.parent, made, made)


def bundle_command(
    what: str, bundle: Path, overlays: Sequence[Path], places: Mapping[str, str], arguments: Sequence[str]
) -> tuple[str, ...]:
    """The command that runs a bundle's `train.json` with overlays.

    Args:
        what: `training` or `evaluating`.
        bundle: Folder of the bundle.
        overlays: Configs laid over it.
        places: Values of the config's names.
        arguments: More arguments, which have the last word.
    """
    configs = [str(path) for path in (bundle / "configs" / "train.json", *overlays)]
    given = {"config_file": str(configs), "bundle_root": str(bundle), **places}
    flags = [part for key, value in given.items() for part in (f"--{key}", value)]
    return (sys.executable, "-m", "monai.bundle", "run", what, *flags, *arguments)


def perform(step: Step) -> None:
    """Run a command, unless what it makes is there. All that it prints goes to `log.txt` in its folder.

    Raises:
        WeightsError: It fails; the message ends with the last lines that it printed.
    """
    if step.made.is_file():
        return
    step.folder.mkdir(parents=True, exist_ok=True)
    log = step.folder / "log.txt"
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(step.command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0 or not step.written.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN:]
        raise WeightsError(f"{step.name} ended with exit code {done.returncode}. The end of {log}:\n" + "\n".join(lines))
    step.written.replace(step.made)
