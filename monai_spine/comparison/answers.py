"""What a trained network says of each crop, for any number of questions: written by its bundle, read for the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from monai_spine.comparison.questions import Question
from monai_spine.errors import TableError
from monai_spine.training.predictions import SaveRows

__all__ = ["Answers", "SaveAnswers", "read_answers"]


class SaveAnswers(SaveRows):
    """Write case, target, all probabilities (`probability_0` …) and the label of each question (`label_0` …; -1: none)."""

    _counts = 0, 0

    def columns(self) -> Sequence[str]:
        probabilities, labels = self._counts
        names = [*(f"probability_{at}" for at in range(probabilities)), *(f"label_{at}" for at in range(labels))]
        return ["case", "target", *names]

    def row(self, example: Mapping[str, Any], answer: torch.Tensor) -> Sequence[str]:
        labels = torch.as_tensor(example["label"]).long().flatten().tolist()
        self._counts = len(answer), len(labels)
        numbers = [f"{float(value):.9g}" for value in answer]
        return [str(example["case"]), str(example["target"]), *numbers, *map(str, labels)]


@dataclass(frozen=True)
class Answers:
    """Answers to one question, row by row; every row has a label.

    Attributes:
        case: Names of the studies, (N,).
        target: Slugs of what was asked about, (N,).
        probabilities: (N, classes), each row of sum 1.
        labels: Place of the true answer, (N,).
    """

    case: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def called(self) -> np.ndarray:
        """Place of the most probable answer, (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def and_also(self, others: Sequence[Answers]) -> Answers:
        """These and others, one below the other."""
        every = (self, *others)
        return Answers(
            case=np.concatenate([one.case for one in every]),
            target=np.concatenate([one.target for one in every]),
            probabilities=np.concatenate([one.probabilities for one in every]),
            labels=np.concatenate([one.labels for one in every]),
        )


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, Answers]:
    """Read what `SaveAnswers` wrote.

    Args:
        path: The table.
        questions: All of the bundle, in their order.

    Returns:
        Answers by the question's name; rows without a label are left out.

    Raises:
        TableError: The table is cut or broken.
    """
    table = _table(path, questions)
    found, first = {}, 0
    for at, question in enumerate(questions):
        last = first + len(question.answers)
        rows = table[table[f"label_{at}"] >= 0]
        values = rows[[f"probability_{column}" for column in range(first, last)]].to_numpy(float)
        values = values / values.sum(axis=1, keepdims=True)
        case, target = rows["case"].to_numpy(object), rows["target"].to_numpy(object)
        found[question.name] = Answers(case, target, values, rows[f"label_{at}"].to_numpy(np.int64))
        first = last
    return found


def _table(path: Path, questions: Sequence[Question]) -> pd.DataFrame:
    counts = [len(question.answers) for question in questions]
    kinds = {"case": str, "target": str, **{f"probability_{at}": float for at in range(sum(counts))}}
    labels = {f"label_{at}": count for at, count in enumerate(counts)}
    try:
        table = pd.read_csv(path, usecols=[*kinds, *labels], dtype={**kinds, **dict.fromkeys(labels, int)})
        wrong = [name for name, count in labels.items() if not table[name].between(-1, count - 1).all()]
        if wrong:
            raise ValueError(f"{wrong[0]} is no answer's place")
        if table.isna().any(axis=None):
            raise ValueError("there are values that are no numbers")
    except ValueError as error:
        raise TableError(f"{path} is cut or broken ({error}). Remove it and run the comparison again.") from error
    return table
