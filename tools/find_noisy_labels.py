"""List the labels that out-of-fold predictions contradict strongly, the most strongly contradicted first.

    python tools/find_noisy_labels.py work/cv/out_of_fold.csv --solution DATA/train.csv -o work/noisy_labels.csv
    python -m monai.bundle run training \\
        --config_file "['bundles/X/configs/train.json','configs/training/clean_labels.json']" --noisy_labels work/noisy_labels.csv

The predictions are a submission (row_id, normal_mild, moderate, severe), scaled by the score's weights 1, 2, 4, which is undone
here; with --frequencies they are taken as they stand. Every row has to come from a model that was not trained on it
(tools/cross_validate.py writes such a table). Rows that hold the prior of the training set are no predictions and contradict
nothing. A listed label is a question to a reader: training may leave it out or soften it, the score must not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS, Condition, Severity, Target
from monai_spine.errors import SpineError, TableError
from monai_spine.studies.priors import hold_prior
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.studies.submissions import PROBABILITIES, read_submission
from monai_spine.training.noisy_labels import noisy_rows, write_noisy

_WEIGHTS = np.array([severity.weight for severity in Severity], dtype=float)
_CONDITIONS = {target.slug: target.condition.slug for target in TARGETS}


def labelled_predictions(predictions: Path, solution: Path, *, frequencies: bool = False) -> pd.DataFrame:
    """What `noisy_rows` takes: every row that has a label and a prediction.

    Raises:
        TableError: A table breaks its specification, or the two have no row in common.
    """
    predicted, true = read_submission(predictions), read_solution(solution)
    values = predicted[list(PROBABILITIES)].to_numpy() / (1.0 if frequencies else _WEIGHTS)
    values = values / values.sum(axis=1, keepdims=True)
    predicted = predicted.assign(**dict(zip(PROBABILITIES, values.T, strict=True)))
    predicted = predicted[~hold_prior(predicted["target"].tolist(), values)]
    table = predicted.merge(true[true["label"] >= 0], on=["study", "target"])
    if table.empty:
        raise TableError(f"No row of {predictions} is a prediction for a label of {solution}. Give tables of the same studies.")
    ids = [f"{study}_{target}" for study, target in zip(table["study"], table["target"], strict=True)]
    frame: pd.DataFrame = table.assign(row_id=ids, condition=table["target"].map(_CONDITIONS))
    return frame


def summary(table: pd.DataFrame, noisy: pd.DataFrame) -> list[str]:
    """Per condition and label: how many there are, and how many are contradicted."""
    listed = noisy.assign(condition=[Target.parse(_target_of(name)).condition.slug for name in noisy["row_id"]])
    lines = [f"{'condition':30}{'label':14}{'labels':>8}{'listed':>8}{'share':>8}"]
    for condition, severity in product(Condition, Severity):
        labels = int(((table["condition"] == condition.slug) & (table["label"] == severity.index)).sum())
        count = int(((listed["condition"] == condition.slug) & (listed["label"] == severity.slug)).sum())
        if labels:
            lines.append(f"{condition.slug:30}{severity.slug:14}{labels:8}{count:8}{100 * count / labels:7.1f}%")
    return lines


def _target_of(row_id: str) -> str:
    return next(slug for slug in _CONDITIONS if row_id.endswith(f"_{slug}"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, help="out-of-fold table in submission format")
    parser.add_argument("--solution", type=Path, required=True, help="train.csv, or a solution in the long form")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table of the contradicted labels")
    parser.add_argument("--margin", type=float, default=0.6, help="by how much another severity must be the more probable one")
    parser.add_argument("--frequencies", action="store_true", help="the predictions are not scaled by 1, 2, 4")
    given = parser.parse_args(arguments)
    try:
        table = labelled_predictions(given.predictions, given.solution, frequencies=given.frequencies)
        noisy = noisy_rows(table, margin=given.margin)
        write_noisy(noisy, given.output)
    except (SpineError, ValueError) as error:
        parser.exit(2, f"Error: {error}\n")
    print("\n".join(summary(table, noisy)))
    print(f"{len(noisy)} of {len(table)} labels are contradicted: {given.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
