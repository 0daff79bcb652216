"""What all folds say together: scores, scaling, calibration and abstention, as tables, pictures and a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import Condition
from monai_spine.studies.submissions import PROBABILITIES, write_submission
from monai_spine.studies.table_output import write_rows
from monai_spine.training.calibration import expected_calibration_error, reliability_table
from monai_spine.training.calibration_pictures import reliability_figure, risk_figure
from monai_spine.training.out_of_fold import calibrated, fold_scores, submission_rows
from monai_spine.training.risk_coverage import RiskCoverage, risk_coverage
from monai_spine.training.scaling import Scaling
from monai_spine.training.score import PARTS

__all__ = ["COVERAGES", "calibration_lines", "score_lines", "write_report"]

_COLUMNS = list(PROBABILITIES)
COVERAGES = (1.0, 0.9, 0.8, 0.5)
"""Shares that are kept: the report says how many of them are wrong, and above which expected risk the others are."""
RAW, TEMPERED, FITTED = "as predicted", "with temperature", "with temperature and fitted weights"
"""The three ways of scaling that are compared; the first two weight by 1, 2, 4. The second is that of `out_of_fold.csv`."""


@dataclass(frozen=True)
class _Calibration:
    """One condition's labelled predictions: expected calibration error before and after scaling, and risk over coverage."""

    condition: Condition
    rows: int
    before: float
    after: float
    curve: RiskCoverage


def write_report(table: pd.DataFrame, out: Path) -> str:
    """Write everything, and return the text of `report.md`.

    Args:
        table: As `out_of_fold_table` gives it.
        out: Folder: out_of_fold.csv (a submission), frequencies.csv (the same, not weighted), scores.csv, scaling.csv,
            calibration.csv, risk_coverage.csv, report.md and pictures.

    Raises:
        OutputError: A file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    scaled, fitted = calibrated(table)
    exponents = {place: scaling.exponent for place, scaling in fitted.items()}
    scores = {RAW: fold_scores(table), TEMPERED: fold_scores(scaled), FITTED: fold_scores(scaled, exponents)}
    write_submission(submission_rows(scaled), out / "out_of_fold.csv")
    write_submission(submission_rows(scaled, scored=False), out / "frequencies.csv")
    _write_scores(scores, out / "scores.csv")
    _write_scaling(fitted, out / "scaling.csv")
    calibration = calibration_lines(table, scaled, out)
    text = "\n".join([*_heading(table), *score_lines(scores), "", *_scaling_lines(fitted), "", *calibration]) + "\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    return text


def calibration_lines(table: pd.DataFrame, scaled: pd.DataFrame, out: Path) -> list[str]:
    """Write calibration and abstention as tables and pictures into a folder, and return what the report says of them.

    Args:
        table: As predicted.
        scaled: The same with temperature.
        out: Folder.
    """
    found = [_calibration(condition, table, scaled, out) for condition in _predicted(table)]
    _write_calibration(found, out)
    risk_figure({one.condition.label: one.curve for one in found}).savefig(out / "risk_coverage.png", dpi=120)
    return [*_calibration_lines(found), "", *_referral_lines(found)]


def _predicted(table: pd.DataFrame) -> list[Condition]:
    labelled = set(table.loc[table["predicted"] & (table["label"] >= 0), "condition"])
    return [condition for condition in Condition if condition.slug in labelled]


def _calibration(condition: Condition, table: pd.DataFrame, scaled: pd.DataFrame, out: Path) -> _Calibration:
    rows = table["predicted"] & (table["label"] >= 0) & (table["condition"] == condition.slug)
    labels = table.loc[rows, "label"].to_numpy(np.int64)
    before, after = (reliability_table(one.loc[rows, _COLUMNS].to_numpy(), labels) for one in (table, scaled))
    figure = reliability_figure(condition.label, {"as predicted": before, "scaled": after})
    figure.savefig(out / f"reliability_{condition.slug}.png", dpi=120)
    curve = risk_coverage(scaled.loc[rows, _COLUMNS].to_numpy(), labels)
    errors = expected_calibration_error(before), expected_calibration_error(after)
    return _Calibration(condition, len(labels), *errors, curve)


def _write_scores(scores: Mapping[str, pd.DataFrame], path: Path) -> None:
    columns = list(next(iter(scores.values())).columns)
    rows = [(name, fold, *row) for name, frame in scores.items() for fold, row in zip(frame.index, frame.to_numpy(), strict=True)]
    write_rows(path, ("scaling", "fold", *columns), rows)


def _write_scaling(fitted: Mapping[tuple[str, str], Scaling], path: Path) -> None:
    rows = [(condition, fold, one.temperature, one.exponent) for (condition, fold), one in sorted(fitted.items())]
    write_rows(path, ("condition", "fold", "temperature", "exponent"), rows)


def _write_calibration(found: list[_Calibration], out: Path) -> None:
    header = ("condition", "rows", "error_as_predicted", "error_scaled", "area_under_risk")
    write_rows(out / "calibration.csv", header, [(o.condition.slug, o.rows, o.before, o.after, o.curve.area) for o in found])
    rows = [
        (one.condition.slug, *values)
        for one in found
        for values in zip(one.curve.threshold, one.curve.coverage, one.curve.risk, strict=True)
    ]
    write_rows(out / "risk_coverage.csv", ("condition", "threshold", "coverage", "risk"), rows)


def _heading(table: pd.DataFrame) -> list[str]:
    labelled = table["label"] >= 0
    modelled = table["condition"].isin([condition.slug for condition in _predicted(table)])
    unseen = int((labelled & modelled & ~table["predicted"]).sum())
    return [
        f"# {table['fold'].nunique()} folds, {table['study'].nunique()} studies, out of fold",
        "",
        f"{int((labelled & modelled).sum())} labels of the trained conditions; {unseen} had no crop and hold the prior.",
        "",
    ]


def score_lines(scores: Mapping[str, pd.DataFrame]) -> list[str]:
    """Mean and standard deviation over rows (n - 1), lower is better, of the parts and of their mean.

    The mean is the official score where no part is missing; otherwise it is that of the parts that there are, and is called so.
    """
    whole = all(frame["score"].notna().all() for frame in scores.values())
    columns = [*PARTS, "score" if whole else "mean_of_parts"]
    lines = [
        f"| official score | {' | '.join(column.replace('_', ' ') for column in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, frame in scores.items():
        cells = [_mean_and_deviation(frame[column].to_numpy(float)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    meant = "Score: the mean of the four parts." if whole else "Mean of parts: of those that are there. The score needs all four."
    return [*lines, "", f"{meant} Lower is better."]


def _mean_and_deviation(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "-"
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


def _scaling_lines(fitted: Mapping[tuple[str, str], Scaling]) -> list[str]:
    lines = ["| fitted on the other folds | temperature | exponent of the weights 1, 2, 4 |", "|---|---|---|"]
    for condition in sorted({condition for condition, _ in fitted}):
        own = [one for (name, _), one in fitted.items() if name == condition]
        values = [np.array([one.temperature for one in own]), np.array([one.exponent for one in own])]
        lines.append(f"| {Condition.parse(condition).label} | " + " | ".join(map(_mean_and_deviation, values)) + " |")
    return lines


def _calibration_lines(found: list[_Calibration]) -> list[str]:
    shares = " | ".join(f"wrong of the surest {100 * share:.0f} %" for share in COVERAGES)
    lines = [f"| | rows | ECE as predicted | ECE scaled | {shares} |", "|---" * (4 + len(COVERAGES)) + "|"]
    for one in found:
        risks = " | ".join(f"{100 * one.curve.risk_at(share):.1f} %" for share in COVERAGES)
        lines.append(f"| {one.condition.label} | {one.rows} | {one.before:.4f} | {one.after:.4f} | {risks} |")
    return lines


def _referral_lines(found: list[_Calibration]) -> list[str]:
    """Thresholds for `tools/choose_referral.py` and the `referral` section of a bundle."""
    shares = [share for share in COVERAGES if share < 1]
    lines = [
        f"| expected risk above which findings are referred | {' | '.join(f'keeps {100 * share:.0f} %' for share in shares)} |",
        "|---" * (1 + len(shares)) + "|",
    ]
    for one in found:
        places = [int(np.searchsorted(one.curve.coverage, share - 1e-12)) for share in shares]
        cells = [f"{1 - one.curve.threshold[place]:.4f}" for place in places]
        lines.append(f"| {one.condition.label} | {' | '.join(cells)} |")
    return lines
