"""The studies of a test, which no fold has seen: predicted by the model of each fold, and by all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cross_validation.report import calibration_lines, score_lines
from cross_validation.runs import Plan
from monai_spine.anatomy import Condition
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.submissions import PROBABILITIES, write_submission
from monai_spine.studies.table_output import write_rows
from monai_spine.training.out_of_fold import Labels, fold_scores, labels_of, out_of_fold_table, submission_rows
from monai_spine.training.scaling import fit_temperature, tempered

__all__ = ["averaged", "fitted_temperatures", "member_tables", "with_temperature", "write_test_report"]

_COLUMNS = list(PROBABILITIES)
_FOLD = "test"
ONE, ALL, SCALED = "one fold's model", "ensemble", "ensemble with temperature"


def member_tables(plan: Plan, labels: Labels | None = None) -> dict[str, pd.DataFrame]:
    """What the models of each fold say of the test, as `out_of_fold_table` has it.

    Args:
        plan: What was run.
        labels: What is true; None: what the data list says, which has the targets with a point only.

    Raises:
        TableError: A table breaks its format.
    """
    datalist = read_datalist(plan.test_points)
    members = {_FOLD: [case.case for case in datalist.cases_of("test")]}
    known = labels_of(datalist, "test") if labels is None else labels
    return {
        fold: out_of_fold_table(members, {_FOLD: [plan.test_predictions_of(bundle, fold) for bundle in plan.bundles]}, known)
        for fold in plan.folds
    }


def averaged(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table with the mean of the probabilities that the folds' models give, as `ensemble.Ensemble` does."""
    first = next(iter(tables.values()))
    mean = np.mean([table[_COLUMNS].to_numpy(float) for table in tables.values()], axis=0)
    return first.assign(**dict(zip(_COLUMNS, mean.T, strict=True)))


def fitted_temperatures(table: pd.DataFrame) -> dict[str, float]:
    """The temperature of each condition (slug) on all out-of-fold predictions: for studies that lie in no fold."""
    rows = table[table["predicted"] & (table["label"] >= 0)]
    return {
        str(condition): fit_temperature(found[_COLUMNS].to_numpy(float), found["label"].to_numpy(np.int64))
        for condition, found in rows.groupby("condition")
    }


def with_temperature(table: pd.DataFrame, temperatures: Mapping[str, float]) -> pd.DataFrame:
    """The table with each condition at its temperature; priors stay as they are."""
    result = table.copy()
    for condition, temperature in temperatures.items():
        rows = table.index[table["predicted"] & (table["condition"] == condition)]
        result.loc[rows, _COLUMNS] = tempered(table.loc[rows, _COLUMNS].to_numpy(float), temperature)
    return result


def write_test_report(tables: Mapping[str, pd.DataFrame], temperatures: Mapping[str, float], out: Path) -> str:
    """Write what the ensemble says of the test, and what it reaches beside its members.

    Args:
        tables: As `member_tables` gives them.
        temperatures: As `fitted_temperatures` gives them.
        out: Folder: submission.csv, frequencies.csv, scores.csv, calibration.csv, risk_coverage.csv, report.md and pictures.

    Raises:
        OutputError: A file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    ensemble = averaged(tables)
    scaled = with_temperature(ensemble, temperatures)
    write_submission(submission_rows(scaled), out / "submission.csv")
    write_submission(submission_rows(scaled, scored=False), out / "frequencies.csv")
    scores = {
        ONE: pd.concat([fold_scores(table).rename(index={_FOLD: fold}) for fold, table in tables.items()]),
        ALL: fold_scores(ensemble),
        SCALED: fold_scores(scaled),
    }
    _write_scores(scores, out / "scores.csv")
    heading = [f"# Test: {ensemble['study'].nunique()} studies that lie in no fold, {len(tables)} models", ""]
    shown = [f"{Condition.parse(name).label} {value:.3f}" for name, value in temperatures.items()]
    said = ["", f"Temperature, fitted on all folds: {', '.join(shown)}.", ""]
    text = "\n".join([*heading, *score_lines(scores), *said, *calibration_lines(ensemble, scaled, out)]) + "\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    return text


def _write_scores(scores: Mapping[str, pd.DataFrame], path: Path) -> None:
    columns = list(scores[ALL].columns)
    rows = [(name, fold, *row) for name, frame in scores.items() for fold, row in zip(frame.index, frame.to_numpy(), strict=True)]
    write_rows(path, ("model", "fold", *columns), rows)
