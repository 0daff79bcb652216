"""Figures of one run: how often a contender is right, how far its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from monai_spine.anatomy import Target
from monai_spine.comparison.answers import Answers
from monai_spine.comparison.questions import Question
from monai_spine.studies.submissions import label_weights
from monai_spine.training.calibration import expected_calibration_error, reliability_table
from monai_spine.training.score import ScoredRows, reweight, score_rows

__all__ = ["COSTS", "FIGURES", "Figure", "official_score_of", "scores_of"]

_LEAST = 1e-15


@dataclass(frozen=True)
class Figure:
    """One column of the table.

    Attributes:
        key: Its name in `runs.csv`.
        title: For people.
        meaning: One sentence.
        lower_is_better: True for losses, errors and costs.
        unit: What numbers are divided by to be shown, and digits behind the point.
    """

    key: str
    title: str
    meaning: str
    lower_is_better: bool = False
    unit: tuple[float, int] = (1.0, 3)


FIGURES: tuple[Figure, ...] = (
    Figure("accuracy", "accuracy", "Share of crops whose most probable answer is right."),
    Figure("precision_macro", "precision, macro", "Of what is called an answer, the share that is it; mean over the answers."),
    Figure("recall_macro", "recall, macro", "Of what is an answer, the share that is called it; mean over the answers."),
    Figure("f1_macro", "F1, macro", "Harmonic mean of precision and recall; mean over the answers."),
    Figure("precision_weighted", "precision, weighted", "The same, answers weighted by how often they are true."),
    Figure("recall_weighted", "recall, weighted", "The same, answers weighted by how often they are true: the accuracy."),
    Figure("f1_weighted", "F1, weighted", "The same, answers weighted by how often they are true."),
    Figure("log_loss", "log loss", "Mean of -log of the probability of what is true.", True),
    Figure("weighted_log_loss", "weighted log loss", "The challenge's: rows count 1, 2, 4 by their severity.", True),
    Figure("official_score", "official score", "The challenge's, of all three conditions together.", True),
    Figure("calibration_error", "calibration error", "Expected, of the most probable answer, in ten bins.", True),
)

COSTS: tuple[Figure, ...] = (
    Figure("parameters", "parameters, M", "Weights of the network.", True, (1e6, 2)),
    Figure("flops", "GFLOPs", "Operations for one crop, a multiplication and an addition counted as two.", True, (1e9, 2)),
    Figure("seconds_per_epoch", "s/epoch", "Of training, without validation.", True, (1.0, 1)),
    Figure("inference_ms", "inference, ms", "One crop at a time, median of repeated runs.", True, (1.0, 1)),
)


def scores_of(answers: Answers, question: Question) -> dict[str, float]:
    """Every figure of `FIGURES` that one question alone has, by its key."""
    truth, called = answers.labels, answers.called
    said = np.clip(answers.probabilities[np.arange(len(truth)), truth], _LEAST, 1)
    found = {"rows": float(len(truth)), "accuracy": float((truth == called).mean()), "log_loss": float(-np.log(said).mean())}
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(truth, called, average=average, zero_division=0)
        found |= {f"{name}_{average}": float(value) for name, value in zip(("precision", "recall", "f1"), values, strict=False)}
    if question.weights is not None:
        weights, scored = np.asarray(question.weights)[truth], reweight(answers.probabilities)
        logarithms = np.log(np.clip(scored[np.arange(len(truth)), truth], _LEAST, 1))
        found["weighted_log_loss"] = float(-(weights * logarithms).sum() / weights.sum())
    found["calibration_error"] = expected_calibration_error(reliability_table(answers.probabilities, truth))
    return found


def official_score_of(severities: Sequence[Answers]) -> float:
    """The challenge's score of all answers together; NaN where a condition is absent.

    Args:
        severities: Answers about each condition, of the same studies.
    """
    first, *others = severities
    rows = first.and_also(others)
    return score_rows(
        ScoredRows(
            study=rows.case,
            group=np.array([Target.parse(slug).condition.score_group for slug in rows.target], dtype=object),
            label=rows.labels,
            weight=label_weights(rows.labels),
            probabilities=reweight(rows.probabilities),
        )
    ).score
