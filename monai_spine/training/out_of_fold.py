"""All studies predicted by models that were not trained on them: one table, its calibration across folds, its scores.

A row of the table is a study and target: `fold`, `study`, `target`, `condition` (slugs), `label` (-1 where there is none),
`predicted` (False: no crop, the prior of the training set stands in), and frequencies under the names of `PROBABILITIES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.errors import TableError
from monai_spine.studies.prepared import Datalist
from monai_spine.studies.priors import prior_probabilities
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import PROBABILITIES, SubmissionRow, label_weights
from monai_spine.training.scaling import Scaling, cross_fitted, tempered, weighted
from monai_spine.training.score import PARTS, ScoredRows, score_rows

__all__ = ["calibrated", "fold_scores", "labels_of", "out_of_fold_table", "read_predictions", "submission_rows"]

_COLUMNS = list(PROBABILITIES)
_GROUP = {condition.slug: condition.score_group for condition in Condition}

Labels = Mapping[tuple[str, str], int]
"""Index of the severity of each study and target (slug) that has one."""


def labels_of(datalist: Datalist, split: str = "validation") -> dict[tuple[str, str], int]:
    """What the readers said of the targets of a split that have a point."""
    graded = [(case.case, target, found.severity) for case in datalist.cases_of(split) for target, found in case.targets.items()]
    return {(case, target.slug): severity.index for case, target, severity in graded if severity is not None}


def read_predictions(path: Path | str) -> pd.DataFrame:
    """What `SavePredictions` wrote: study, target, and frequencies of sum 1.

    Raises:
        TableError: The file is missing or breaks its format.
    """
    table = SourceTable.read(path, columns=("case", "target", *PROBABILITIES))
    table.unique(["case", "target"])
    targets = table.one_of("target", [target.slug for target in TARGETS])
    values = np.stack([table.numbers(column) for column in PROBABILITIES], axis=1)
    table.refuse(
        (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-3),
        lambda row: f"{', '.join(map(str, values[row]))} are no probabilities",
        remedy="Remove the file and predict again.",
    )
    values = values / values.sum(axis=1, keepdims=True)
    frame: pd.DataFrame = pd.DataFrame({"study": table.cells["case"].tolist(), "target": targets})
    return frame.assign(**dict(zip(_COLUMNS, values.T, strict=True)))


def out_of_fold_table(
    members: Mapping[str, Sequence[str]], predictions: Mapping[str, Sequence[Path]], labels: Labels
) -> pd.DataFrame:
    """Put the folds together, 25 rows for each study.

    Args:
        members: The studies that each fold held out.
        predictions: Files of what each fold's models say of them.
        labels: What is true.

    Raises:
        TableError: A study lies in two folds, a fold predicts a study that it did not hold out, or a file cannot be read.
    """
    fold_of = {study: fold for fold, studies in members.items() for study in studies}
    if len(fold_of) < sum(len(studies) for studies in members.values()):
        raise TableError("A study is held out by two folds: the predictions would not be out of fold. Prepare the data again.")
    found: dict[tuple[str, str], np.ndarray] = {}
    for fold, paths in predictions.items():
        for path in paths:
            rows = read_predictions(path)
            foreign = sorted(set(rows["study"]) - set(members[fold]))
            if foreign:
                raise TableError(
                    f"{path} predicts {foreign[0]}, which fold {fold} did not hold out. Remove it and predict again."
                )
            found |= dict(zip(zip(rows["study"], rows["target"], strict=True), rows[_COLUMNS].to_numpy(), strict=True))
    keys = [(study, target) for study in fold_of for target in TARGETS]
    values = np.array([found.get((study, target.slug), np.array(prior_probabilities(target))) for study, target in keys])
    frame: pd.DataFrame = pd.DataFrame(
        {
            "fold": [fold_of[study] for study, _ in keys],
            "study": [study for study, _ in keys],
            "target": [target.slug for _, target in keys],
            "condition": [target.condition.slug for _, target in keys],
            "label": [labels.get((study, target.slug), -1) for study, target in keys],
            "predicted": [(study, target.slug) in found for study, target in keys],
        }
    )
    return frame.assign(**dict(zip(_COLUMNS, values.T, strict=True)))


def calibrated(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Scaling]]:
    """The table with frequencies at the temperature that the other folds give, per condition; priors stay as they are.

    Returns:
        The table, and what was fitted for each condition and fold.
    """
    result, fitted = table.copy(), {}
    for condition, rows in table[table["predicted"]].groupby("condition"):
        values, labels, folds = rows[_COLUMNS].to_numpy(), rows["label"].to_numpy(), rows["fold"].to_numpy(object).astype(str)
        for fold, scaling in cross_fitted(values, labels, folds).items():
            fitted[str(condition), str(fold)] = scaling
            here = folds == fold
            result.loc[rows.index[here], _COLUMNS] = tempered(values[here], scaling.temperature)
    return result, fitted


def fold_scores(table: pd.DataFrame, exponents: Mapping[tuple[str, str], float] | None = None) -> pd.DataFrame:
    """The official score of each fold, frequencies weighted by 1, 2, 4.

    Args:
        table: As `out_of_fold_table` or `calibrated` gives it.
        exponents: Of the weights, for each condition and fold; None, and priors: 1.

    Returns:
        One row a fold: `PARTS`, NaN for a condition that no model predicted, `score` (NaN where a part is) and `mean_of_parts`.
    """
    given = exponents or {}
    powers = [
        given.get((condition, fold), 1.0) if predicted else 1.0
        for condition, fold, predicted in zip(table["condition"], table["fold"], table["predicted"], strict=True)
    ]
    scored = table.assign(**dict(zip(_COLUMNS, weighted(table[_COLUMNS].to_numpy(), np.array(powers)[:, None]).T, strict=True)))
    modelled = table.loc[table["predicted"], "condition"].unique()
    scored = scored[(scored["label"] >= 0) & scored["condition"].isin(modelled)]
    rows = {}
    for fold, members in scored.groupby("fold"):
        score = score_rows(_scored_rows(members))
        rows[fold] = {**score.parts, "score": score.score, "mean_of_parts": score.mean_of_parts}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*PARTS, "score", "mean_of_parts"])


def submission_rows(table: pd.DataFrame, *, scored: bool = True) -> list[SubmissionRow]:
    """All rows of the table as those of a submission.

    Args:
        table: As `out_of_fold_table` gives it.
        scored: Weighted by 1, 2, 4; False: frequencies.
    """
    values = table[_COLUMNS].to_numpy()
    values = weighted(values) if scored else values
    by_slug = {target.slug: target for target in TARGETS}
    places = zip(table["study"], table["target"], values.tolist(), strict=True)
    return [SubmissionRow(study, by_slug[target], (row[0], row[1], row[2])) for study, target, row in places]


def _scored_rows(rows: pd.DataFrame) -> ScoredRows:
    labels = rows["label"].to_numpy(np.int64)
    return ScoredRows(
        study=rows["study"].to_numpy(object),
        group=rows["condition"].map(_GROUP).to_numpy(object),
        label=labels,
        weight=label_weights(labels),
        probabilities=rows[_COLUMNS].to_numpy(np.float64),
    )
