"""What earlier systems did, from `configs/experiments`: the task, the architectures, the split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_spine.errors import TableError
from monai_spine.suggestions import did_you_mean
from monai_spine.training.bundle_runs import CONFIGS

__all__ = ["Experiment", "find_experiment"]


@dataclass(frozen=True)
class Experiment:
    """One file of `configs/experiments`, an overlay that says under `experiment` what it is.

    Attributes:
        name: Of the file.
        path: The overlay.
        document: Number of the document that describes it.
        task: What is asked, in words.
        bundle: Whose `train.json` it is laid over.
        architectures: Name to more settings of its training.
        shares: Of the studies for training, validation and test.
        questions: Which of the bundle's questions are reported; None: all.
        stated: What the document says.
        ours: What it leaves open.
    """

    name: str
    path: Path
    document: str
    task: str
    bundle: str
    architectures: Mapping[str, Mapping[str, Any]]
    shares: tuple[float, float, float]
    stated: str
    ours: str
    questions: tuple[str, ...] | None = None


def find_experiment(name: str) -> Experiment:
    """Read an experiment by its name.

    Raises:
        TableError: There is none; the message offers the nearest.
    """
    there = {path.stem: path for path in sorted((CONFIGS / "experiments").glob("*.json"))}
    if name not in there:
        raise TableError(f"There is no experiment {name!r}. {did_you_mean(name, there)}Choose from: {', '.join(there)}.")
    facts = json.loads(there[name].read_text(encoding="utf-8"))["experiment"]
    training, validation, test = (float(share) for share in facts.pop("shares"))
    only = facts.pop("questions", None)
    shares = training, validation, test
    return Experiment(name, there[name], shares=shares, questions=None if only is None else tuple(only), **facts)
