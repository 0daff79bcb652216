"""What a comparison runs, and where everything goes.

OUT/settings.json
    folds/fold_0/datalist.json                                        training, validation and test of each fold
    runs/<bundle>/<contender>/settings.json cost.json                 its configs; parameters, operations, milliseconds
    runs/<bundle>/<contender>/fold_0/seed_0/model.pt epochs.csv answers.csv log.txt      TensorBoard events beside them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_spine.comparison.contenders import Contender
from monai_spine.errors import TableError
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist
from monai_spine.studies.stratified import stratified_parts
from monai_spine.training.bundle_runs import Step, bundle_command, keep, overlay, refuse_other, sha256_of

__all__ = [
    "Plan",
    "Run",
    "begun",
    "parsed_config",
    "read_configs",
    "refuse_other_runs",
    "steps_of",
    "testing_config",
    "write_down",
]

_VALIDATION = 0.15


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        study: Folder of a prepared study.
        output: Where everything goes.
        bundles: Folders of bundles.
        contenders: Networks.
        folds: Into how many parts the studies are dealt, each the test of one fold; 1: one split by `shares`.
        seeds: Of the trainings of each fold.
        shares: Of the studies for training, validation and test, where there is one split.
        overlays: Configs laid over each `train.json`, after the contender's own.
        settings: Values of the configs' names: the budget.
        questions: Names of those that are reported; None: all.
    """

    study: Path
    output: Path
    bundles: tuple[Path, ...]
    contenders: tuple[Contender, ...]
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    overlays: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    questions: tuple[str, ...] | None = None

    @property
    def test_to_training(self) -> float:
        """Studies of a fold's test for each that it learns from."""
        training, _, test = self.shares if self.folds == 1 else ((1 - _VALIDATION) * (1 - 1 / self.folds), 0.0, 1 / self.folds)
        return test / training

    def fold(self, number: int) -> Path:
        """Folder of a fold's data list."""
        return self.output / "folds" / f"fold_{number}"

    def runs_of(self, bundle: Path, contender: Contender) -> Path:
        """Folder of a contender's runs, and of what its network costs."""
        return self.output / "runs" / bundle.name / contender.slug

    def overlays_of(self, bundle: Path, contender: Contender) -> tuple[Path, ...]:
        """All configs that are laid over a bundle's `train.json`."""
        return (*contender.overlays(bundle.name), *self.overlays)

    def settings_of(self, contender: Contender) -> dict[str, Any]:
        """Values of the configs' names; those of the command line have the last word."""
        return {**contender.arguments(), **self.settings}

    def runs(self) -> Iterator[Run]:
        """All trainings, fold by fold: each contender has tested on one fold before any begins the next."""
        for fold in range(self.folds):
            for seed in self.seeds:
                for bundle in self.bundles:
                    for contender in self.contenders:
                        yield Run(self, bundle, contender, fold, seed)


@dataclass(frozen=True)
class Run:
    """One training."""

    plan: Plan
    bundle: Path
    contender: Contender
    fold: int
    seed: int

    @property
    def folder(self) -> Path:
        return self.plan.runs_of(self.bundle, self.contender) / f"fold_{self.fold}" / f"seed_{self.seed}"

    @property
    def name(self) -> str:
        """For people."""
        parts = [self.contender.label, f"fold {self.fold + 1} of {self.plan.folds}"]
        parts += [f"seed {self.seed}"] * (len(self.plan.seeds) > 1) + [self.bundle.name] * (len(self.plan.bundles) > 1)
        return ", ".join(parts)

    @property
    def weights(self) -> Path:
        return self.folder / "model.pt"

    @property
    def answers(self) -> Path:
        return self.folder / "answers.csv"

    @property
    def epochs(self) -> Path:
        return self.folder / "epochs.csv"


def steps_of(run: Run) -> tuple[Step, Step]:
    """Training and prediction of the test."""
    plan, folder = run.plan, run.folder
    overlays = plan.overlays_of(run.bundle, run.contender)
    arguments = [part for key, value in plan.settings_of(run.contender).items() for part in (f"--{key}", str(value))]
    places = {"dataset_dir": str(plan.fold(run.fold)), "output_dir": str(folder), "seed": str(run.seed)}
    training = {**places, "ckpt_path": str(folder / "best.pt"), "resume": "True"}
    testing = {**places, "ckpt_path": str(run.weights), "split": "test"}
    record, save = (overlay("comparison", name) for name in ("record", "save_answers"))
    evaluate = (run.bundle / "configs" / "evaluate.json", save)
    return (
        Step(
            f"{run.name}: training",
            bundle_command("training", run.bundle, (*overlays, record), training, arguments),
            folder,
            run.weights,
            folder / "best.pt",
        ),
        Step(
            f"{run.name}: predicting the test",
            bundle_command("evaluating", run.bundle, (*overlays, *evaluate), testing, arguments),
            folder,
            run.answers,
            run.answers,
        ),
    )


def parsed_config(plan: Plan, bundle: Path, contender: Contender) -> ConfigParser:
    """The `train.json` of a bundle with everything that is laid over it for a contender."""
    parser = read_configs(plan, bundle, contender)
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(plan.fold(0)), **plan.settings_of(contender)})
    return parser


def testing_config(plan: Plan, bundle: Path, contender: Contender, folder: Path) -> ConfigParser:
    """The config of a contender that validates on the test of a folder's data list."""
    parser = parsed_config(plan, bundle, contender)
    evaluate = parser.load_config_file(str(bundle / "configs" / "evaluate.json"))
    parser.update({"dataset_dir": str(folder), "split": "test", "validate#data": evaluate["validate#data"]})
    return parser


def read_configs(plan: Plan, bundle: Path, contender: Contender) -> ConfigParser:
    """The config files, and no value that a command line gives."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / "train.json"), *map(str, plan.overlays_of(bundle, contender))])
    return parser


def begun(folder: Path) -> bool:
    """Whether an epoch of any training in a folder is done, so that others may not be of other settings."""
    return any(next(folder.rglob(name), None) for name in ("last.pt", "model.pt"))


def refuse_other_runs(plan: Plan) -> None:
    """Refuse to go on in a folder with runs of another study, budget or configs. Contenders, bundles and seeds may be added.

    Where no epoch is done yet, a command may still be corrected.

    Raises:
        OutputError: It does.
        TableError: The study cannot be read.
    """
    read_datalist(plan.study)
    for folder, settings in _settings_of(plan).items():
        if begun(folder):
            refuse_other(folder, settings)


def write_down(plan: Plan) -> None:
    """Write settings and folds, or refuse to go on as `refuse_other_runs` does.

    Raises:
        OutputError: The folder holds other runs, or cannot be written.
        TableError: The study cannot be read, or has too few patients for the folds.
    """
    datalist = read_datalist(plan.study)
    folds = _splits(datalist, plan)
    for folder, settings in _settings_of(plan).items():
        keep(folder, settings, begun=begun(folder))
    for number, splits in enumerate(folds):
        write_splits(datalist, plan.fold(number), splits=splits)


def _settings_of(plan: Plan) -> dict[Path, dict[str, Any]]:
    """What the runs of a folder share: of all those in the output, and of each contender."""
    shared = {
        "study": str(plan.study.resolve()),
        "content": sha256_of([plan.study / "datalist.json"]),
        "folds": plan.folds,
        "shares": list(plan.shares) if plan.folds == 1 else None,
        "overlays": sha256_of(plan.overlays),
        "settings": {key: str(value) for key, value in plan.settings.items()},
    }
    configs = {
        plan.runs_of(bundle, contender): {
            "configs": sha256_of([bundle / "configs" / "train.json", *plan.overlays_of(bundle, contender)])
        }
        for bundle, contender in product(plan.bundles, plan.contenders)
    }
    return {plan.output: shared, **configs}


def _splits(datalist: Datalist, plan: Plan) -> list[dict[str, list[str]]]:
    """Training, validation and test of each fold, patients apart and every grade in each as far as there are enough."""
    used = {name for names in datalist.splits.values() for name in names}
    classes = _classes([case for case in datalist.cases if case.case in used])
    if plan.folds == 1:
        return [_named(datalist, stratified_parts(classes, plan.shares), used)]
    found = []
    for test in stratified_parts(classes, [1 / plan.folds] * plan.folds):
        rest = {patient: counts for patient, counts in classes.items() if patient not in test}
        training, validation = stratified_parts(rest, (1 - _VALIDATION, _VALIDATION))
        found.append(_named(datalist, (training, validation, test), used))
    return found


def _named(datalist: Datalist, patients: tuple[tuple[str, ...], ...], used: set[str]) -> dict[str, list[str]]:
    splits = {
        split: [case.case for case in datalist.cases if case.case in used and case.patient in own]
        for split, own in zip(("training", "validation", "test"), patients, strict=True)
    }
    bare = [split for split, cases in splits.items() if not cases]
    if bare:
        raise TableError(f"Nothing of {datalist.study} is left for {bare[0]}: it has {len(used)} studies. Choose fewer folds.")
    return splits


def _classes(cases: list[PreparedCase]) -> dict[str, Counter[str]]:
    """How often each patient bears each grade."""
    found: dict[str, Counter[str]] = {}
    for case in cases:
        grades = [
            f"{target.condition.slug} {one.severity.slug}" for target, one in case.targets.items() if one.severity is not None
        ]
        found.setdefault(case.patient, Counter()).update([*grades, *case.degeneration.values()])
    return found
