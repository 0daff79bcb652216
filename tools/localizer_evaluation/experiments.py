"""Experiments: who is held out, what is learnt from, and the training of the three networks of each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_spine.models import LOCALIZER, NAMER, REFINER
from monai_spine.studies.folds import part_of, patient_folds, write_split
from monai_spine.studies.prepared import Datalist
from monai_spine.training.bundle_runs import interruptible

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = {"localizer": LOCALIZER, "namer": NAMER, "refiner": REFINER}
KINDS = ("whole", "cut", "worse", "ablated")
"""How held-out scans may be looked at."""

ALL = "all"
"""The experiment that holds no real scan out: what shipped weights learn from."""

FOLDS = 5
ABLATED_FOLDS = (0, 1)
WITHOUT_PHANTOM, WITHOUT_RANDOMISATION = "without_phantom", "without_randomisation"
REUSED_PART, REUSED_SCANS = "VB3", (1, 2, 4, 8, 16)
"""The part that plays another study's scans, and how many of them are labelled; the half that is held out is always the same."""

STUDIES = {"localizer": "finetune_localization", "namer": "finetune_naming", "refiner": "finetune_refinement"}
RANDOMISATION = {"localizer": range(1, 5), "namer": range(4), "refiner": range(4)}
"""Which transforms of each bundle's `train#augmentation` change contrast, field, sharpness and noise."""


@dataclass(frozen=True)
class Training:
    """How the networks of all experiments are trained.

    Attributes:
        phantom: Prepared folder of simulated studies.
        bases: Weights to start from, which have seen no real image; None: from nothing.
        epochs: Of each network.
        overrides: Arguments for the bundles' own command, for each network.
    """

    phantom: Path
    bases: Mapping[str, Path | None]
    epochs: Mapping[str, int]
    overrides: Mapping[str, Sequence[str]]


def split(datalists: Sequence[Datalist], out: Path) -> list[Path]:
    """Write a data list per experiment and data set: folds by patient, ablated folds, parts left out, one reused, and all."""
    written = [write_split(datalist, out / ALL / datalist.study, held_out=()) for datalist in datalists]
    parts = sorted({part_of(case) for datalist in datalists for case in datalist.cases} - {""})
    for datalist in datalists:
        for fold, held_out in enumerate(patient_folds(datalist.cases, FOLDS)):
            names = [f"fold_{fold}"]
            names += [f"fold_{fold}_{what}" for what in (WITHOUT_PHANTOM, WITHOUT_RANDOMISATION) if fold in ABLATED_FOLDS]
            written += [write_split(datalist, out / name / datalist.study, held_out=held_out) for name in names]
        for part in parts:
            held_out = frozenset(case.case for case in datalist.cases if part_of(case) == part)
            written.append(write_split(datalist, out / f"without_{part}" / datalist.study, held_out=held_out))
        written += _split_reused(datalist, out)
    return written


def _split_reused(datalist: Datalist, out: Path) -> list[Path]:
    """Data lists of one part alone: every other patient held out, and so many of the others for training."""
    cases = [case for case in datalist.cases if part_of(case) == REUSED_PART]
    patients = sorted({case.patient for case in cases})
    held_out = frozenset(case.case for case in cases if case.patient in patients[1::2])
    written = []
    for count in REUSED_SCANS if cases else ():
        labelled = patients[::2][:count]
        kept = tuple(case for case in cases if case.case in held_out or case.patient in labelled)
        folder = out / f"reuse_{REUSED_PART}_{count}" / datalist.study
        written.append(write_split(replace(datalist, cases=kept), folder, held_out=held_out))
    return written


def experiments(folder: Path) -> list[Path]:
    """Folders of all experiments."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*/datalist.json")))


def train(experiment: Path, kind: str, how: Training) -> None:
    """Train one network of an experiment; one that is finished stays, one that was killed goes on."""
    weights, runs = experiment / f"{kind}.pt", experiment / f"{kind}_runs"
    if weights.exists():
        return
    with interruptible():
        subprocess.run(training_command(experiment, kind, how), check=True)
    (runs / "best.pt").replace(weights)


def training_command(experiment: Path, kind: str, how: Training) -> list[str]:
    """The bundle's own training command: its last epoch is validated, and is what is kept."""
    runs = experiment / f"{kind}_runs"
    real = sorted(str(path.parent) for path in experiment.glob("*/datalist.json"))
    without_phantom = experiment.name.endswith(WITHOUT_PHANTOM)
    train, base = REPOSITORY / "bundles" / BUNDLES[kind] / "configs" / "train.json", how.bases[kind]
    arguments = {
        "config_file": str(train),
        "dataset_dir": str(real if without_phantom else [*real, str(how.phantom)]),
        "output_dir": str(runs),
        "ckpt_path": str(runs / "best.pt"),
        "resume": str((runs / "last.pt").exists()),
    }
    if experiment.name.startswith("reuse_"):
        arguments["config_file"] = str([str(train), str(REPOSITORY / "configs" / "studies" / f"{STUDIES[kind]}.json")])
        base = _start_of(experiment) / f"{kind}.pt"
        arguments["val_interval"] = "@epochs"
    else:
        arguments |= {"epochs": str(how.epochs[kind]), "val_interval": str(how.epochs[kind])}
    if base is not None and not without_phantom:
        arguments["pretrained"] = str(base)
    if experiment.name.endswith(WITHOUT_RANDOMISATION):
        arguments |= {f"train#augmentation#transforms#{at}#prob": "0.0" for at in RANDOMISATION[kind]}
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    overrides = [] if experiment.name.startswith("reuse_") else how.overrides[kind]
    return [*command, *(part for key, value in arguments.items() for part in (f"--{key}", value)), *overrides]


def weights_of(experiment: Path) -> dict[str, Path]:
    """An experiment's weights; what an ablation or a reused part has not trained itself is that of `_start_of`."""
    both = {kind: [folder / f"{kind}.pt" for folder in (experiment, _start_of(experiment))] for kind in BUNDLES}
    return {kind: next((path for path in paths if path.exists()), paths[0]) for kind, paths in both.items()}


def _start_of(experiment: Path) -> Path:
    """The fold that an ablation is of, or what a reused part goes on from."""
    is_reuse = experiment.name.startswith("reuse_")
    return experiment.parent / (f"without_{REUSED_PART}" if is_reuse else "_".join(experiment.name.split("_")[:2]))


def is_ablation(experiment: Path) -> bool:
    """Whether an experiment is a fold with something left out."""
    return experiment.name.endswith((WITHOUT_PHANTOM, WITHOUT_RANDOMISATION))


def is_trained(experiment: Path) -> bool:
    """Whether all networks are there, and at least one of them is the experiment's own."""
    return all(path.exists() for path in weights_of(experiment).values()) and any(experiment.glob("*.pt"))
