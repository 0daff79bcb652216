"""A study head for each fold: trained on what the graders of the other folds saw of the studies that they had held out.

OUT/head/<fold>/held_out.npz      what the fold's graders see of the studies that they held out
                anchors.npz       the same of studies that all folds look at, to bring their features into the same terms
                training.npz      held_out.npz of the other folds, in the terms of this fold's graders
                validation.npz    held_out.npz of this one
                run/              best.pt model.pt last.pt log.txt predictions.csv
         report.md comparison.md  and what else stands beside the graders' own report

So no head learns from what a grader says of a study that it was trained on. What stays: the graders of the other folds have been
trained on the labels of the studies that this fold holds out, though nothing that they say of these studies is used.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cross_validation.report import score_lines
from cross_validation.runs import REPOSITORY, Plan, Step, bundle_command, keep, perform, said_of
from monai_spine.anatomy import Condition
from monai_spine.console import progress_reporter
from monai_spine.errors import TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.feature_alignment import aligned, stacked
from monai_spine.training.out_of_fold import calibrated, fold_scores
from monai_spine.training.study_features import StudyFeatures, join_features, read_features

__all__ = [
    "CONFIGS",
    "HeadPlan",
    "Look",
    "comparison",
    "head_predictions",
    "look",
    "refuse_unfit_heads",
    "run_heads",
    "sha256_of",
]

CONFIGS = REPOSITORY / "configs" / "study_head"
SAVE_FEATURES = REPOSITORY / "configs" / "training" / "save_features.json"
_ANCHORS = 300
_CONDITIONS: Mapping[str, Condition] = {name: condition for condition, name in GRADERS.items()}


@dataclass(frozen=True)
class Look:
    """Graders that are to look at the crops of one split.

    Attributes:
        weights: Of each bundle, by its folder.
        datalist: Folder of the data list.
        split: Its split.
        made: File of features that is written.
        overlays: Configs that the graders were trained with.
        arguments: More arguments of the bundles' commands.
    """

    weights: Mapping[Path, Path]
    datalist: Path
    split: str
    made: Path
    overlays: tuple[Path, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadPlan:
    """The study heads of a cross-validation.

    Attributes:
        plan: The graders'.
        use_features: Whether heads learn from features too, not from the graders' answers alone.
        arguments: More arguments of the heads' training.
    """

    plan: Plan
    use_features: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """Folder of all heads and of what they come to."""
        out = self.plan.output / "at_predicted_points" if self.plan.predicted_points else self.plan.output
        return out / ("head_on_features" if self.use_features else "head")

    def folder_of(self, fold: str) -> Path:
        return self.output / fold

    def look_of(self, fold: str, at: str, name: str, *arguments: str) -> Look:
        """A fold's graders over the studies that the fold `at` holds out."""
        plan = self.plan
        weights = {bundle: plan.weights_of(bundle, fold) for bundle in plan.bundles}
        made = self.folder_of(fold) / f"{name}.npz"
        return Look(weights, plan.points_of(at), "validation", made, plan.overlays, (*arguments, *plan.arguments))


def look(wanted: Look) -> StudyFeatures:
    """Let graders look at crops, unless they have done so, and put what they see into one file.

    Raises:
        WeightsError: A bundle is no grader, or cannot be run.
        TableError: The data list cannot be read.
    """
    if wanted.made.is_file():
        return read_features(wanted.made)
    _refuse_foreign(wanted.weights)
    parts = {}
    for bundle in wanted.weights:
        step = _looking(wanted, bundle)
        perform(step)
        parts[_CONDITIONS[bundle.name]] = step.made
    datalist = read_datalist(wanted.datalist)
    graders = {_CONDITIONS[bundle.name]: sha256_of(path) for bundle, path in wanted.weights.items()}
    joined = join_features(parts, [c.case for c in datalist.cases_of(wanted.split)], source=datalist.source, graders=graders)
    joined.write(wanted.made)
    return joined


def _refuse_foreign(bundles: Iterable[Path]) -> None:
    foreign = sorted(bundle.name for bundle in bundles if bundle.name not in _CONDITIONS)
    if foreign:
        raise WeightsError(f"{foreign[0]} is no grader of one condition. Choose from: {', '.join(_CONDITIONS)}.")


def refuse_unfit_heads(heads: HeadPlan) -> None:
    """Refuse heads that could not be trained, before the graders are.

    Raises:
        TableError: There are fewer than two folds.
        WeightsError: A bundle is no grader of one condition.
    """
    if len(heads.plan.folds) < 2:
        raise TableError("A study head learns from the other folds, so that it takes two at least. Leave out --head or --folds.")
    _refuse_foreign(heads.plan.bundles)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _looking(wanted: Look, bundle: Path) -> Step:
    folder = wanted.made.parent / f"{wanted.made.stem}_parts" / bundle.name
    places = {
        "dataset_dir": str(wanted.datalist),
        "output_dir": str(folder),
        "ckpt_path": str(wanted.weights[bundle]),
        "split": wanted.split,
    }
    overlays = (*wanted.overlays, bundle / "configs" / "evaluate.json", SAVE_FEATURES)
    command = bundle_command("evaluating", bundle, overlays, places, wanted.arguments)
    made = folder / "features.npz"
    return Step(f"{bundle.name}: features of {wanted.datalist}, {wanted.split}", command, folder, made, made)


def run_heads(heads: HeadPlan) -> None:
    """Take the features of all folds, and train and ask a head for each, as far as that is not finished.

    Raises:
        TableError: There are fewer than two folds.
        OutputError: The folder holds heads of other settings.
        WeightsError: A command fails.
    """
    refuse_unfit_heads(heads)
    folds = heads.plan.folds
    configs = {path.name: sha256_of(path) for path in sorted(CONFIGS.glob("*.json"))}
    keep(heads.output, {"folds": list(folds), "arguments": list(heads.arguments), "sha256": configs})
    with progress_reporter() as reporter:
        for number, fold in enumerate(folds):
            held_out = heads.look_of(fold, fold, "held_out")
            reporter.step(number / (2 * len(folds)), said_of(f"features, {fold}", held_out.made))
            look(held_out)
            if heads.use_features:
                look(heads.look_of(fold, folds[0], "anchors", "--limit", str(_ANCHORS)))
        for number, fold in enumerate(folds):
            steps = list(_steps(heads, fold))
            reporter.step((len(folds) + number) / (2 * len(folds)), said_of(f"study head, {fold}", steps[-1].made))
            _write_training(heads, fold)
            for step in steps:
                perform(step)


def head_predictions(heads: HeadPlan) -> dict[str, list[Path]]:
    """Where the heads' predictions of each fold are, as `out_of_fold_table` takes them."""
    return {fold: [heads.folder_of(fold) / "run" / "predictions.csv"] for fold in heads.plan.folds}


def comparison(alone: pd.DataFrame, together: pd.DataFrame) -> str:
    """The official score with and without the head, and what it changes, as mean and standard deviation over folds.

    Args:
        alone: The graders' predictions, as `out_of_fold_table` gives them.
        together: The heads' of the same studies.
    """
    scores = {"graders alone": fold_scores(calibrated(alone)[0]), "with study head": fold_scores(calibrated(together)[0])}
    scores["difference"] = scores["with study head"] - scores["graders alone"]
    return "\n".join(["# With and without a study head, at the temperature of the other folds", "", *score_lines(scores)]) + "\n"


def _write_training(heads: HeadPlan, fold: str) -> None:
    """The features of all other folds in the terms of this one's graders, beside its own."""
    folder = heads.folder_of(fold)
    if (folder / "training.npz").is_file():
        return
    others = [heads.folder_of(other) for other in heads.plan.folds if other != fold]
    parts = [read_features(other / "held_out.npz") for other in others]
    if heads.use_features:
        reference = read_features(folder / "anchors.npz")
        anchors = [read_features(other / "anchors.npz") for other in others]
        parts = [aligned(part, anchor, reference) for part, anchor in zip(parts, anchors, strict=True)]
    read_features(folder / "held_out.npz").write(folder / "validation.npz")
    stacked(parts).write(folder / "training.npz")


def _steps(heads: HeadPlan, fold: str) -> Iterator[Step]:
    folder, run = heads.folder_of(fold), heads.folder_of(fold) / "run"
    places = {"dataset_dir": str(folder), "output_dir": str(run), "use_features": str(heads.use_features)}
    start = {**places, "ckpt_path": str(run / "best.pt"), "resume": "True", "val_interval": "@epochs"}
    training = _head_command("training", [CONFIGS / "train.json"], start, heads.arguments)
    yield Step(f"study head, {fold}: training", training, run, run / "model.pt", run / "best.pt")
    asking = {**places, "ckpt_path": str(run / "model.pt")}
    command = _head_command("evaluating", [CONFIGS / "train.json", CONFIGS / "evaluate.json"], asking, heads.arguments)
    made = run / "predictions.csv"
    yield Step(f"study head, {fold}: predicting", command, run, made, made)


def _head_command(what: str, configs: Sequence[Path], places: Mapping[str, str], arguments: Sequence[str]) -> tuple[str, ...]:
    given = {"config_file": str([str(path) for path in configs]), **places}
    flags = [part for key, value in given.items() for part in (f"--{key}", value)]
    return (sys.executable, "-m", "monai.bundle", "run", what, *flags, *arguments)
