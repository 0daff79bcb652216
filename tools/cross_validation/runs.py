"""The bundles' own commands for each fold, one after the other; what is finished stays, what was killed goes on.

OUT/settings.json
    runs/<bundle>/<fold>/best.pt model.pt last.pt log.txt predictions.csv     TensorBoard events beside them
                         second/                                              the same of the second step
                         at_predicted_points/ augmented/ test/                other predictions of the same weights
    folds/<fold>/datalist.json                                                the folds without the studies of the test
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_spine.errors import TableError
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.bundle_runs import CONFIGS, Step, bundle_command, keep, perform, said_of

__all__ = [
    "AUGMENT",
    "REPOSITORY",
    "Plan",
    "Step",
    "bundle_command",
    "folds_of",
    "hold_out",
    "keep",
    "keep_settings",
    "perform",
    "said_of",
    "split_arguments",
    "steps",
]

REPOSITORY = Path(__file__).resolve().parents[2]
SAVE = CONFIGS / "training" / "save_predictions.json"
AUGMENT = CONFIGS / "training" / "test_time_augmentation.json"


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is meant for a tool, and what stands after the first --, which goes to the bundles' commands."""
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    return given[:at], given[at + 1 :]


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
        augment: Each crop is looked at several times, moved, turned and, where it has no side, mirrored.
        test: A prepared study whose split `test` takes no part in the folds and is predicted by all of them; None: there is none.
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
    augment: bool = False
    test: Path | None = None

    @property
    def mode(self) -> tuple[str, ...]:
        """Folders, one in the other, of what is predicted in another way than at the readers' points at one look."""
        return (*["at_predicted_points"] * self.predicted_points, *["augmented"] * self.augment)

    @property
    def place(self) -> Path:
        """Where everything goes that is said of all folds together."""
        return self.output.joinpath(*self.mode)

    def run_of(self, bundle: Path, fold: str) -> Path:
        """Folder of a fold's run."""
        return self.output / "runs" / bundle.name / fold

    def datalist_of(self, fold: str) -> Path:
        """Folder of a fold's data list."""
        return (self.prepared if self.test is None else self.output) / "folds" / fold

    def points_of(self, fold: str) -> Path:
        """Folder of the data list that a fold's studies are predicted from."""
        return self.output / "points" / fold if self.predicted_points else self.datalist_of(fold)

    def weights_of(self, bundle: Path, fold: str) -> Path:
        """The trained weights of a fold, those of the last step."""
        run = self.run_of(bundle, fold)
        return (run / "second" if self.second else run) / "model.pt"

    def predictions_of(self, bundle: Path, fold: str) -> Path:
        """Where a fold's predictions for the studies that it held out are."""
        return self.run_of(bundle, fold).joinpath(*self.mode, "predictions.csv")

    def test_predictions_of(self, bundle: Path, fold: str) -> Path:
        """Where a fold's predictions for the studies of the test are."""
        return self.run_of(bundle, fold).joinpath(*self.mode, "test", "predictions.csv")

    @property
    def test_points(self) -> Path:
        """Folder of the data list that the studies of the test are predicted from."""
        return self.output / "points" / "test" if self.predicted_points else self._test

    @property
    def _test(self) -> Path:
        if self.test is None:
            raise ValueError("There are no studies of a test.")
        return self.test


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
        "test": None if plan.test is None else str(plan.test.resolve()),
    }
    keep(plan.output, settings)


def hold_out(plan: Plan) -> None:
    """Write the folds without the studies of the test, where there is one.

    Raises:
        TableError: The test has no study, or a fold has nothing left to train on or to hold out.
    """
    if plan.test is None:
        return
    tested = {case.case for case in read_datalist(plan.test).cases_of("test")}
    if not tested:
        raise TableError(f"The split test of {plan.test} has no study. Prepare a study that holds some out.")
    for fold in plan.folds:
        datalist = read_datalist(plan.prepared / "folds" / fold)
        splits = {name: [case for case in cases if case not in tested] for name, cases in datalist.splits.items()}
        bare = [name for name in ("training", "validation") if not splits.get(name)]
        if bare:
            raise TableError(f"All studies of {bare[0]} in {fold} belong to the test of {plan.test}. Hold out fewer.")
        write_splits(datalist, plan.datalist_of(fold), splits=splits)


def steps(plan: Plan) -> Iterator[Step]:
    """All commands in their order: fold by fold, so that each finished fold is one of all conditions."""
    if plan.predicted_points and plan.test is not None:
        yield _placing("test", plan.test, plan.test_points, "test")
    for fold in plan.folds:
        if plan.predicted_points:
            yield _placing(fold, plan.datalist_of(fold), plan.points_of(fold), "validation")
        for bundle in plan.bundles:
            run = plan.run_of(bundle, fold)
            yield _training(plan, bundle, fold, run, plan.overlays, {}, plan.arguments)
            if plan.second:
                overlays = (*plan.overlays, *plan.second)
                start = {"pretrained": str(run / "model.pt")}
                more = (*plan.arguments, *plan.second_arguments)
                yield _training(plan, bundle, fold, run / "second", overlays, start, more)
            yield _predicting(plan, bundle, fold, "validation")
            if plan.test is not None:
                yield _predicting(plan, bundle, fold, "test")


def _training(
    plan: Plan, bundle: Path, fold: str, run: Path, overlays: Sequence[Path], more: Mapping[str, str], arguments: Sequence[str]
) -> Step:
    places = {
        "dataset_dir": str(plan.datalist_of(fold)),
        "output_dir": str(run),
        "ckpt_path": str(run / "best.pt"),
        "resume": "True",
        "val_interval": "@epochs",
    }
    last_word = [part for key, value in more.items() for part in (f"--{key}", value)]
    command = bundle_command("training", bundle, overlays, places, (*arguments, *last_word))
    what = "training the head" if more else "training"
    return Step(f"{bundle.name}, {fold}: {what}", command, run, run / "model.pt", run / "best.pt")


def _placing(name: str, datalist: Path, points: Path, split: str) -> Step:
    made = points / "datalist.json"
    tool = REPOSITORY / "tools" / "predict_points.py"
    command = (sys.executable, str(tool), str(datalist), "-o", str(points), "--split", split)
    return Step(f"{name}: finding the levels", command, points, made, made)


def _predicting(plan: Plan, bundle: Path, fold: str, split: str) -> Step:
    tested = split == "test"
    made = plan.test_predictions_of(bundle, fold) if tested else plan.predictions_of(bundle, fold)
    places = {
        "dataset_dir": str(plan.test_points if tested else plan.points_of(fold)),
        "output_dir": str(made.parent),
        "ckpt_path": str(plan.weights_of(bundle, fold)),
        "split": split,
    }
    overlays = (*plan.overlays, bundle / "configs" / "evaluate.json", SAVE, *[AUGMENT] * plan.augment)
    command = bundle_command("evaluating", bundle, overlays, places, plan.arguments)
    return Step(f"{bundle.name}, {fold}: predicting{' the test' if tested else ''}", command, made.parent, made, made)
