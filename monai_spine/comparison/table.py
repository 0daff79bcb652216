"""One table of all runs: mean and deviation over folds, and which contenders are different."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from monai_spine.comparison.scores import COSTS, FIGURES, Figure
from monai_spine.comparison.significance import corrected_t_test, holm

__all__ = ["KEYS", "TESTED", "Cell", "cells", "markdown", "mean_and_deviation", "paired_tests"]

KEYS = ("bundle", "question", "contender")
"""What a row of the table is about."""
TESTED = ("accuracy", "f1_macro", "log_loss", "weighted_log_loss", "official_score")
LEVEL = 0.05


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        text: `0.712 ± 0.031`, or `–`.
        best: The best of its column, or as good.
        different: Differs from the best of its column, after correction.
    """

    text: str
    best: bool = False
    different: bool = False


def mean_and_deviation(runs: pd.DataFrame, figures: Iterable[Figure]) -> pd.DataFrame:
    """Mean and SD of each figure over folds, the seeds of a fold averaged first; over seeds where there is one fold.

    Args:
        runs: One row per run: `KEYS`, `fold`, `seed` and figures.
        figures: Columns.

    Returns:
        One row per contender and question; columns `<key>` and `<key>_sd` (NaN for a single value).
    """
    keys = [figure.key for figure in figures if figure.key in runs]
    units = _units(runs, keys)
    grouped = units.groupby(list(KEYS), sort=False)[keys]
    return grouped.mean().join(grouped.std(ddof=1).add_suffix("_sd")).reset_index()


def _units(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    over = "seed" if runs["fold"].nunique() == 1 else "fold"
    return runs.groupby([*KEYS, over], sort=False)[keys].mean().reset_index().rename(columns={over: "unit"})


def paired_tests(runs: pd.DataFrame, *, test_to_training: float) -> pd.DataFrame:
    """Every pair of contenders on every figure of `TESTED`, with p corrected for the number of pairs.

    There are tests from two folds on: seeds of one split say nothing of other patients.

    Args:
        runs: As in `mean_and_deviation`.
        test_to_training: As of `corrected_t_test`.

    Returns:
        `bundle`, `question`, `figure`, `first`, `second`, `difference` (first − second), `t`, `p`, `p_holm`.
    """
    rows = []
    if runs["fold"].nunique() > 1:
        keys = [key for key in TESTED if key in runs]
        for (bundle, question), part in _units(runs, keys).groupby(["bundle", "question"], sort=False):
            for key in keys:
                wide = part.pivot(index="unit", columns="contender", values=key).dropna(axis=1)
                pairs = list(combinations(wide.columns, 2))
                apart = [(wide[a] - wide[b]).to_numpy(float) for a, b in pairs]
                found = [corrected_t_test(one.tolist(), test_to_training=test_to_training) for one in apart]
                even = holm([p for _, p in found])
                rows += [
                    (bundle, question, key, *pair, float(one.mean()), *test, corrected)
                    for pair, one, test, corrected in zip(pairs, apart, found, even, strict=True)
                ]
    columns = ["bundle", "question", "figure", "first", "second", "difference", "t", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def cells(means: pd.DataFrame, tests: pd.DataFrame) -> tuple[list[Figure], list[dict[str, Cell]]]:
    """The table as text: the figures that there are, and the cells of each row by figure.

    Args:
        means: Of one bundle and question, as `mean_and_deviation` gives it.
        tests: Of the same, as `paired_tests` gives it.
    """
    shown = [one for one in (*FIGURES, *COSTS) if one.key in means and means[one.key].notna().any()]
    first = {one.key: int((means[one.key] * (1 if one.lower_is_better else -1)).argmin()) for one in shown}
    best = {key: means.iloc[at] for key, at in first.items()}
    rows = [{str(key): value for key, value in row.items()} for row in means.to_dict("records")]
    return shown, [{one.key: _cell(row, one, best[one.key], tests) for one in shown} for row in rows]


def _cell(row: Mapping[str, object], figure: Figure, best: pd.Series, tests: pd.DataFrame) -> Cell:
    value, deviation = (float(str(row.get(key, "nan"))) for key in (figure.key, f"{figure.key}_sd"))
    if np.isnan(value):
        return Cell("–")
    divisor, digits = figure.unit
    spread = "" if np.isnan(deviation) or figure in COSTS else f" ± {deviation / divisor:.{digits}f}"
    both = [row["contender"], best["contender"]]
    pair = tests[(tests["figure"] == figure.key) & tests["first"].isin(both) & tests["second"].isin(both)]
    return Cell(f"{value / divisor:.{digits}f}{spread}", value == best[figure.key], bool((pair["p_holm"] < LEVEL).any()))


def markdown(names: Sequence[str], figures: Sequence[Figure], rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """A table in Markdown: bold is the best of a column, † what differs from it."""
    lines = [f"| contender | {' | '.join(figure.title for figure in figures)} |", "|---" + "|---:" * len(figures) + "|"]
    for name, row in zip(names, rows, strict=True):
        texts = [f"**{cell.text}**" if cell.best else cell.text + " †" * cell.different for cell in row.values()]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return lines
