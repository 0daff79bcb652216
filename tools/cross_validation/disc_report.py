"""What answers about discs and vertebrae out of five folds come to. What is fitted for a fold is fitted on the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from monai_spine.degeneration import HEADS
from monai_spine.training.calibration import expected_calibration_error, reliability_table
from monai_spine.training.decisions import Offset, balanced_weights, fit_offset, macro_f1_weights

__all__ = ["ANSWERS", "COLUMNS", "out_of_fold", "report"]

ANSWERS = [f"{head} {name}" for head, names in HEADS.items() for name in names]
"""Columns of logits."""
COLUMNS = ["fold", "case", "target", "found", *ANSWERS, *(f"true {head}" for head in HEADS)]
"""Of a table of answers, one row per graded structure; labels of a head that does not ask it are -1."""


def decision(head: str, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a head's answers: of a disc's grade for the best mean F1, of a vertebra's for the best balanced accuracy."""
    if head == "grade":
        return macro_f1_weights(probabilities, labels)
    return balanced_weights(labels, len(HEADS[head])) if head == "vertebra" else np.ones(len(HEADS[head]))


def out_of_fold(
    head: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and weights of answers, (N, C): those of a fold by what is fitted on the others.

    Args:
        head: Of `HEADS`.
        logits: (N, C).
        labels: (N,).
        folds: Number of each row's fold, (N,).
        found: Whether the structure was found, (N,); what was not has the frequencies of the other folds.
    """
    classes = logits.shape[1]
    probabilities, weights = np.full_like(logits, 1 / classes), np.ones_like(logits)
    for fold in np.unique(folds):
        mine, others = folds == fold, folds != fold
        if others.any():
            probabilities[mine] = np.bincount(labels[others], minlength=classes) / others.sum()
        here, fitted = mine & found, others & found
        offset = fit_offset(logits[fitted], labels[fitted]) if fitted.any() else Offset(1.0, np.zeros(classes))
        probabilities[here] = offset(logits[here])
        if fitted.any():
            weights[here] = decision(head, offset(logits[fitted]), labels[fitted])
    return probabilities, weights


def report(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Figures of each head. What was not found is wrong.

    Args:
        table: With `COLUMNS`.
    """
    return {head: _of_head(head, table[table[f"true {head}"] >= 0]) for head in HEADS}


def _of_head(head: str, rows: pd.DataFrame) -> dict[str, object]:
    names = HEADS[head]
    logits, labels = rows[[f"{head} {name}" for name in names]].to_numpy(float), rows[f"true {head}"].to_numpy(int)
    folds, found, classes = rows["fold"].to_numpy(), rows["found"].to_numpy(bool), list(range(len(names)))
    even, weights = out_of_fold(head, logits, labels, folds, found)
    grade = np.where(found, (even * weights).argmax(axis=1), -1)

    def macro_f1(called: np.ndarray, chosen: np.ndarray) -> float:
        return float(f1_score(labels[chosen], called[chosen], average="macro", labels=classes, zero_division=0))

    every, whole = np.ones(len(labels), bool), fit_offset(logits[found], labels[found])
    by_fold = [macro_f1(grade, folds == fold) for fold in np.unique(folds)]
    return {
        "rows": len(labels),
        "found": int(found.sum()),
        "macro_f1": macro_f1(grade, every),
        "macro_f1_most_probable": macro_f1(np.where(found, even.argmax(axis=1), -1), every),
        "macro_f1_sd_over_folds": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
        "f1": f1_score(labels, grade, average=None, labels=classes, zero_division=0).tolist(),
        "balanced_accuracy": float(np.mean([(grade[labels == one] == one).mean() for one in classes])),
        "auroc_not_first": roc_auc_score(labels > 0, 1 - even[:, 0]),
        "calibration_error": expected_calibration_error(reliability_table(even, labels)),
        "confusion": confusion_matrix(labels, grade, labels=[-1, *classes]).tolist(),
        "temperature": whole.temperature,
        "offsets": whole.offsets.tolist(),
        "decision": decision(head, whole(logits[found]), labels[found]).tolist(),
    }
