"""What the graders see of whole studies, kept in files: the frozen features that a study head is trained on.

`SaveFeatures` writes one file per grader, `join_features` puts those of all graders into one, of which a study is a row:

    case      (S,) names             logits    (S, 25, 3) float32: logarithms of the grader's probabilities
    present   (S, 25) bool           features  (S, 25, F) float32, what a condition has fewer of is filled up with 0
    label     (S, 25) int8, -1       widths    number of features of each of `Condition`
    grader    (3,) SHA-256 of the weights behind each condition; empty where they are several, or not known
    source    `real` or `simulated`, as the data list says
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_spine.anatomy import TARGETS, Condition, Severity
from monai_spine.errors import OutputError, TableError
from monai_spine.features import watching
from monai_spine.training.losses import MISSING

__all__ = ["LEAST", "SaveFeatures", "StudyFeatures", "head_items", "join_features", "read_features", "widths_of"]

LEAST = 1e-7
"""Probabilities below this count as this in logarithms."""

_PLACE = {target.slug: at for at, target in enumerate(TARGETS)}


@dataclass(frozen=True)
class StudyFeatures:
    """The studies of one file; see the head of this module."""

    case: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    present: np.ndarray
    label: np.ndarray
    widths: np.ndarray
    grader: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.case)

    def write(self, path: Path | str) -> Path:
        """Write the file beside its place, then rename it.

        Raises:
            OutputError: It cannot be written.
        """
        return _write(Path(path), vars(self))


class SaveFeatures:
    """Write what a grader sees of each crop: its features, and the logarithms of its probabilities. Attach it to an evaluator.

    Args:
        path: File to write (npz: case, target, label, logits, features); it appears when the run is complete.
        network: The grader itself, not wrapped for several processes.
    """

    def __init__(self, path: Path | str, network: torch.nn.Module) -> None:
        self.path, self.network = Path(path), network
        self._rows: dict[str, list[Any]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = {name: [] for name in ("case", "target", "label", "logits", "features")}
        self._watching = watching(self.network)
        self._features = self._watching.__enter__()

    def _collect(self, engine: Engine) -> None:
        examples, answers = engine.state.batch, engine.state.output
        self._rows["features"] += list(self._features.take(len(examples)).numpy())
        for example, answer in zip(examples, answers, strict=True):
            probabilities = torch.as_tensor(answer["pred"]).float().cpu()
            self._rows["logits"].append(probabilities.clamp_min(LEAST).log().numpy())
            self._rows["case"].append(str(example["case"]))
            self._rows["target"].append(str(example["target"]))
            self._rows["label"].append(int(example["label"]))

    def _write(self, engine: Engine) -> None:
        self._watching.__exit__(None, None, None)
        _write(self.path, {name: np.array(rows) for name, rows in self._rows.items()})


def join_features(
    paths: Mapping[Condition, Path],
    cases: Sequence[str],
    *,
    source: str,
    graders: Mapping[Condition, str] | None = None,
) -> StudyFeatures:
    """Put what `SaveFeatures` wrote of each condition together.

    Args:
        paths: One file per condition that there is a grader for.
        cases: The studies, in the order that they shall have. One of which no crop could be cut has no target.
        source: `real` or `simulated`.
        graders: SHA-256 of each grader's weights.

    Raises:
        TableError: A file cannot be read, or has targets of another condition or study, or one twice.
    """
    parts = {condition: _read(path, ("case", "target", "label", "logits", "features")) for condition, path in paths.items()}
    widths = [parts[condition]["features"].shape[1] if condition in parts else 0 for condition in Condition]
    shape = (len(cases), len(TARGETS))
    joined = StudyFeatures(
        case=np.array(cases, dtype=np.str_),
        logits=np.zeros((*shape, len(Severity)), np.float32),
        features=np.zeros((*shape, max(widths)), np.float32),
        present=np.zeros(shape, bool),
        label=np.full(shape, MISSING, np.int8),
        widths=np.array(widths),
        grader=np.array([(graders or {}).get(condition, "") for condition in Condition]),
        source=np.array(source),
    )
    row_of = {case: at for at, case in enumerate(cases)}
    for condition, part in parts.items():
        for case, target, label, logits, features in zip(*part.values(), strict=True):
            row, column = row_of.get(str(case)), _PLACE.get(str(target))
            if row is None or column is None or TARGETS[column].condition is not condition or joined.present[row, column]:
                raise TableError(
                    f"{paths[condition]} has {target} of {case}: it is there twice, or of another condition or study than was "
                    "asked for. Remove the file, and write the features again."
                )
            joined.present[row, column], joined.label[row, column] = True, label
            joined.logits[row, column] = logits
            joined.features[row, column, : len(features)] = features
    return joined


def read_features(path: Path | str) -> StudyFeatures:
    """Read the features of studies.

    Raises:
        TableError: The file is missing or holds something else.
    """
    return StudyFeatures(**_read(Path(path), tuple(StudyFeatures.__dataclass_fields__)))


def widths_of(path: Path | str) -> dict[str, int]:
    """Number of features of each condition (slug) in a file of studies.

    Raises:
        TableError: The file is missing or holds something else.
    """
    widths = read_features(path).widths.tolist()
    return {condition.slug: width for condition, width in zip(Condition, widths, strict=True) if width}


def head_items(path: Path | str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """One item per study of a file of features; studies without any labelled target are left out.

    Returns:
        Dicts of `image` (logits (25, 3), the name that MONAI's engines know a network's first input by), `features` (25, F),
        `present` (25,) bool, `label` (25,) with -1 where there is none, and `case`.

    Raises:
        TableError: The file cannot be read, or has no label.
    """
    studies = read_features(path)
    label = np.where(studies.present, studies.label, MISSING).astype(np.int64)
    items = [
        {
            "image": torch.from_numpy(studies.logits[at]),
            "features": torch.from_numpy(studies.features[at]),
            "present": torch.from_numpy(studies.present[at]),
            "label": torch.from_numpy(label[at]),
            "case": str(studies.case[at]),
        }
        for at in range(len(studies))
        if (label[at] != MISSING).any()
    ]
    if not items:
        raise TableError(f"{path} has no study with a label: there is nothing to learn. Check what it was made from.")
    return items[:limit]


def _write(path: Path, arrays: Mapping[str, Any]) -> Path:
    beside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}). Free space there or choose another folder.") from error
    return path


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{path} cannot be read as features ({error}). Write it with tools/study_head.py features.") from error
