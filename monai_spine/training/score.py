"""The official score of RSNA 2024, in numpy, so that evaluating a table does not wait for torch.

1. Each row of probabilities is brought to sum 1, then clipped to [eps, 1 - eps], eps being that of float64.
2. Spinal, foraminal and subarticular rows (sides and levels pooled) each give a log loss in which a row weighs 1, 2 or 4 for a
   label of normal_mild, moderate or severe, divided by the sum of these weights.
3. any_severe_spinal is a binary log loss over studies: of a study's labelled spinal rows, the label is whether any is severe, the
   weight the largest, the prediction the largest probability of severe.
4. The score is the plain mean of the four. Lower is better; predicting a third everywhere gives about 0.999.

Rows without a label are not scored, and take no part in 3 either; a study without a spinal label drops out of it.

Source: the evaluation page of the competition; `monai_spine.training.metrics` holds the same as an Ignite metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS, Severity
from monai_spine.errors import TableError
from monai_spine.studies.rsna2024 import parse_solution
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import PROBABILITIES, parse_submission

__all__ = ["PARTS", "Score", "ScoredRows", "match_rows", "official_score", "reweight", "score_rows"]

PARTS: tuple[str, ...] = ("spinal", "foraminal", "subarticular", "any_severe_spinal")
"""The four parts of the score, in the order of its definition."""

_GROUP_OF: Mapping[str, str] = {target.slug: target.condition.score_group for target in TARGETS}
_WEIGHTS: tuple[int, ...] = tuple(severity.weight for severity in Severity)
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ScoredRows:
    """Predictions and labels row by row; every row has a label.

    Attributes:
        study: Name of the study, (N,), anything that compares.
        group: spinal, foraminal or subarticular, (N,).
        label: Index of the true severity, (N,) int.
        weight: Weight of the row, (N,) float, >= 0.
        probabilities: Finite, >= 0, (N, 3); a row need not sum to 1.
        ignored: Rows of the submission whose study is not in the solution.
    """

    study: np.ndarray
    group: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    probabilities: np.ndarray
    ignored: int = 0


@dataclass(frozen=True)
class Score:
    """The official score's four parts; a part for which nothing is labelled is NaN, and then so is the score.

    Attributes:
        spinal: Weighted log loss of spinal canal stenosis.
        foraminal: Weighted log loss of neural foraminal narrowing, both sides.
        subarticular: Weighted log loss of subarticular stenosis, both sides.
        any_severe_spinal: Weighted binary log loss of a study having any severe spinal canal stenosis.
        counts: What each part is computed from: labelled rows, and studies for any_severe_spinal.
        ignored_rows: Rows of the submission that were left out because the solution does not have their study.
    """

    spinal: float
    foraminal: float
    subarticular: float
    any_severe_spinal: float
    counts: Mapping[str, int] = field(default_factory=dict)
    ignored_rows: int = 0

    @property
    def parts(self) -> dict[str, float]:
        """Each of `PARTS` with its value."""
        return {part: float(getattr(self, part)) for part in PARTS}

    @property
    def score(self) -> float:
        """The plain mean of the four parts."""
        return float(np.mean(list(self.parts.values())))

    @property
    def mean_of_parts(self) -> float:
        """The mean of the parts that there are labels for: what a model of one condition is judged by."""
        known = [value for value in self.parts.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")


def official_score(
    solution: pd.DataFrame, submission: pd.DataFrame, *, names: tuple[str, str] = ("the solution", "the submission")
) -> Score:
    """Score a submission as the competition does.

    Args:
        solution: Wide as train.csv (study_id and 25 columns), or long (row_id, one-hot columns, sample_weight).
        submission: row_id, normal_mild, moderate, severe. Its order is free. Every study of the solution needs all 25 rows, with
            a label or not; rows of other studies are ignored and counted.
        names: What to call the two in messages.

    Raises:
        TableError: A table breaks its specification, rows are missing, or no row has a label.

    Example:
        >>> import pandas as pd
        >>> from monai_spine.anatomy import TARGETS
        >>> rows = [f"1_{target.slug}" for target in TARGETS]
        >>> truth = pd.DataFrame({"row_id": rows, "normal_mild": 1, "moderate": 0, "severe": 0, "sample_weight": 1})
        >>> thirds = pd.DataFrame({"row_id": rows, "normal_mild": 1 / 3, "moderate": 1 / 3, "severe": 1 / 3})
        >>> round(official_score(truth, thirds).spinal, 4)
        1.0986
    """
    return score_rows(
        match_rows(
            parse_solution(SourceTable.of(solution, names[0])),
            parse_submission(SourceTable.of(submission, names[1])),
            names=names,
        )
    )


def match_rows(solution: pd.DataFrame, submission: pd.DataFrame, *, names: tuple[str, str]) -> ScoredRows:
    """Find the prediction for each label.

    Args:
        solution: As `parse_solution` gives it.
        submission: As `parse_submission` gives it.
        names: What to call the two in messages.

    Raises:
        TableError: A study of the solution has not all 25 predictions, or no row has a label.
    """
    studies = solution["study"].unique()
    wanted = pd.MultiIndex.from_product([studies, [target.slug for target in TARGETS]])
    predictions = submission.set_index(["study", "target"])[list(PROBABILITIES)]
    missing = wanted[~wanted.isin(predictions.index)]
    if len(missing):
        examples = ", ".join(f"{study}_{target}" for study, target in missing[:3])
        raise TableError(
            f"{names[1]} lacks {len(missing)} of the {len(wanted)} rows that the {len(studies)} studies of {names[0]} need: "
            f"{examples}{', …' if len(missing) > 3 else ''}. Predict all {len(TARGETS)} targets of each study, labelled or not, "
            "or give a solution with the predicted studies only."
        )
    labelled = solution[solution["label"] >= 0]
    if labelled.empty:
        raise TableError(f"No row of {names[0]} has a label: there is nothing to score. Give a solution with labels.")
    keys = pd.MultiIndex.from_frame(labelled[["study", "target"]])
    return ScoredRows(
        study=labelled["study"].to_numpy(object),
        group=labelled["target"].map(_GROUP_OF).to_numpy(object),
        label=labelled["label"].to_numpy(np.int64),
        weight=labelled["weight"].to_numpy(np.float64),
        probabilities=predictions.loc[keys].to_numpy(np.float64),
        ignored=int((~submission["study"].isin(studies)).sum()),
    )


def score_rows(rows: ScoredRows) -> Score:
    """The score of labelled rows; how many rows a study has does not matter here."""
    probabilities = np.clip(rows.probabilities / rows.probabilities.sum(axis=1, keepdims=True), _EPS, 1 - _EPS)
    truth = probabilities[np.arange(len(rows.label)), rows.label]
    losses, counts = {}, {}
    for group in PARTS[:3]:
        members = rows.group == group
        losses[group] = _mean_log_loss(truth[members], rows.weight[members])
        counts[group] = int(members.sum())
    spinal = rows.group == "spinal"
    by_study = pd.DataFrame(
        {
            "severe": rows.label[spinal] == Severity.SEVERE.index,
            "weight": rows.weight[spinal],
            "predicted": probabilities[spinal, Severity.SEVERE.index],
        }
    ).groupby(rows.study[spinal])
    most = by_study.max()
    predicted = most["predicted"].to_numpy(np.float64)
    severe = most["severe"].to_numpy(bool)
    any_severe = _mean_log_loss(np.where(severe, predicted, 1 - predicted), most["weight"].to_numpy(np.float64))
    return Score(**losses, any_severe_spinal=any_severe, counts={**counts, PARTS[3]: len(most)}, ignored_rows=rows.ignored)


def reweight(probabilities: np.ndarray) -> np.ndarray:
    """Turn honest probabilities p into the best prediction under the score's weights: q_k ∝ w_k p_k, w = 1, 2, 4.

    The weighted log loss of a row, Σ w_k p_k (-log q_k), is least at this q. To be applied once, to a model that was trained
    without the weights; one that was trained with them gives q already.

    Args:
        probabilities: Of normal_mild, moderate, severe in the last axis, of any shape (..., 3) and any sum > 0.

    Returns:
        float64 of the same shape; the last axis sums to 1.

    Raises:
        ValueError: The last axis is not three long.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim == 0 or given.shape[-1] != len(_WEIGHTS):
        raise ValueError(f"Probabilities must have 3 severities in the last axis, got shape {given.shape}.")
    weighted: np.ndarray = given * np.array(_WEIGHTS, dtype=np.float64)
    result: np.ndarray = weighted / weighted.sum(axis=-1, keepdims=True)
    return result


def _mean_log_loss(probability_of_truth: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log p; NaN where nothing has a weight."""
    total = float(weights.sum())
    return float(-(weights * np.log(probability_of_truth)).sum() / total) if total > 0 else float("nan")
