"""Trainings of the folds of mid-sagittal pictures: what a fold holds out, no training of it sees, nor lesions simulated on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from monai_spine.console import Reporter
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.bundle_runs import Step, bundle_command, perform, said_of
from monai_spine.weights import find_bundle

__all__ = ["train", "write_lesions"]


def train(
    bundle: str, fold: Path, data: Sequence[str], overlays: Sequence[Path], arguments: Sequence[str], reporter: Reporter
) -> Path:
    """Train a fold's network where that is not done, and validate it once, after its last epoch. What was killed goes on.

    Args:
        bundle: Name of a grading bundle.
        fold: Folder of the fold; the training goes to `run` in it.
        data: Prepared folders.
        overlays: Configs laid over the bundle's `train.json`.
        arguments: More arguments of its command.
        reporter: Told of it.

    Returns:
        Its weights.

    Raises:
        WeightsError: The training fails.
    """
    run = fold / "run"
    places = {
        "dataset_dir": repr(list(data)),
        "output_dir": str(run),
        "ckpt_path": str(run / "best.pt"),
        "val_interval": "@epochs",
        "resume": "True",
    }
    command = bundle_command("training", find_bundle(bundle).root, overlays, places, arguments)
    step = Step(f"{fold.name}: training", command, run, run / "model.pt", run / "best.pt")
    reporter.step(0.0, said_of(step.name, step.made))
    perform(step)
    return step.made


def write_lesions(lesions: Path, out: Path, names: Collection[str], held_out: Collection[str] = ()) -> str:
    """Write a data list of the copies with lesions that a fold may learn from.

    Args:
        lesions: Prepared folder of copies of all pictures.
        out: Folder of the data list.
        names: Pictures to learn from.
        held_out: Pictures whose copies validate.

    Returns:
        The folder.
    """
    copies = read_datalist(lesions)
    splits = {"training": names, "validation": held_out}
    write_splits(
        copies,
        out,
        splits={
            split: [case.case for case in copies.cases if case.case.rpartition("_")[0] in chosen]
            for split, chosen in splits.items()
        },
    )
    return str(out)
