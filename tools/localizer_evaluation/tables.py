"""From rows of what was found on held-out scans to the tables of docs/localization.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from localizer_evaluation.looks import ABLATED_LOOKS, CUTS, WHOLE
from monai_spine.level_confidence import Calibration

_NOT_POINTS = ("dice", "outside", "sacrum_not_seen")
_OTHER_LOOKS = (WHOLE, *CUTS, *ABLATED_LOOKS)
_BINS = 10


def report(tables: Mapping[str, pd.DataFrame]) -> str:
    """All tables, as Markdown.

    Args:
        tables: Rows of `looks.look` by experiment.
    """
    tables = {name: rows if "value" in rows else rows.assign(value=np.nan) for name, rows in tables.items()}
    folds = {name: rows for name, rows in tables.items() if name.startswith("fold_") and name.count("_") == 1}
    parts = {name: rows for name, rows in tables.items() if name.startswith("without_")}
    ablations = {name: rows for name, rows in tables.items() if name.startswith("fold_") and name.count("_") > 1}
    sections = []
    if folds:
        every = pd.concat([rows.assign(fold=name) for name, rows in folds.items()])
        sections += [("Five folds by patient", _accuracy({"all folds": every, **folds}))]
        sections += [("Cut on purpose, all folds", _cut(every)), ("Confidence, all folds", _confidence(every))]
        sections += [("Made worse on purpose, all folds", _worse(every)), ("Worst cases", _worst(every))]
        if every["look"].isin(ABLATED_LOOKS).any():
            sections.insert(-1, ("Ablation", _ablation(folds, ablations)))
    if parts:
        left_out = {name: rows[rows.study == "lumbar_volumes"] for name, rows in parts.items()}
        sections.insert(min(1, len(sections)), ("One set left out", _accuracy(left_out)))
    reused = {name: rows for name, rows in tables.items() if name.startswith("reuse_")}
    if reused:
        sections.append(("Labelled scans of another study", _reuse(reused, tables)))
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in sections if table)


def _accuracy(tables: Mapping[str, pd.DataFrame]) -> str:
    head = ["experiment", "set", "scans", "points", "within 5 mm", "right", "median mm", "all right", "body Dice"]
    lines = []
    for name, rows in tables.items():
        for study, mine in rows[rows["look"] == WHOLE].groupby("study"):
            points, dice = _points(mine), mine[mine.name == "dice"].value
            near = [f"{np.mean(points.mm <= 5):.1%}", f"{_share(points):.1%}", f"{points.mm.median():.2f}"]
            whole = _is_right(points).groupby(points.case).all().mean()
            overlap = f"{dice.mean():.3f}" if len(dice) else "–"
            lines.append([name, study, points.case.nunique(), len(points), *near, f"{whole:.1%}", overlap])
    return _table(head, lines)


def _reuse(reused: Mapping[str, pd.DataFrame], tables: Mapping[str, pd.DataFrame]) -> str:
    """What so many labelled scans of a part add, always on the same held-out half of it; 0 is the part left out."""
    count_of = {name: int(name.rpartition("_")[2]) for name in reused}
    shown = {count_of[name]: rows for name, rows in reused.items()}
    part = next(iter(reused)).split("_")[1]
    if f"without_{part}" in tables:
        without, held_out = tables[f"without_{part}"], next(iter(reused.values())).case
        shown[0] = without[without.case.isin(held_out)]
    lines = []
    for count, rows in sorted(shown.items()):
        points, dice = _points(rows), rows[rows.name == "dice"].value
        lines.append([count, points.case.nunique(), f"{_share(points):.1%}", f"{points.mm.median():.2f}", f"{dice.mean():.3f}"])
    return _table([f"labelled scans of {part}", "scans looked at", "right", "median mm", "body Dice"], lines)


def _cut(rows: pd.DataFrame) -> str:
    head = ["cut", "scans", "levels in view", "right", "named though cut away", "points outside", "`sacrum_not_seen`"]
    lines = []
    for name, mine in rows[rows["look"].isin(CUTS)].groupby("look", sort=False):
        flags = mine[mine.name == "sacrum_not_seen"].value
        points, gone = _points(mine), mine[mine.is_there.eq(False) & mine.confidence.notna()]
        outside = mine[mine.name == "outside"].value.sum()
        lines.append(
            [name, mine.case.nunique(), len(points), f"{_share(points):.1%}", len(gone), int(outside), f"{flags.mean():.1%}"]
        )
    return _table(head, lines)


def _worse(rows: pd.DataFrame) -> str:
    lines = []
    for name, mine in rows[(rows.study == "lumbar_volumes") & ~rows["look"].isin(_OTHER_LOOKS)].groupby("look", sort=False):
        points = _points(mine)
        lines.append([name, mine.case.nunique(), len(points), f"{_share(points):.1%}", f"{points.mm.median():.2f}"])
    return _table(["fault", "scans", "levels in view", "right", "median mm"], lines)


def _confidence(rows: pd.DataFrame) -> str:
    """Calibration error as the networks say it and after a calibration that was fitted on the other folds."""
    named = rows[rows.confidence.notna() & ~rows["look"].isin(ABLATED_LOOKS)].astype({"without_sacrum": bool})
    named["right"] = _is_right(named)
    fitted = named.confidence.copy()
    for fold in named.fold.unique():
        here = named.fold == fold
        fitted[here] = _fit(named[~here] if (~here).any() else named)(named[here].confidence, named[here].without_sacrum)
    named["fitted"] = fitted
    whole = named["look"] == WHOLE
    groups = {"whole scans": whole & (named.study == "lumbar_volumes"), "pictures": whole & (named.study == "midsagittal")}
    cut = named["look"].isin(CUTS)
    groups |= {"cut scans": cut, "worse scans": ~whole & ~cut, "all": whole | ~whole}
    lines = []
    for title, chosen in groups.items():
        if not chosen.any():
            continue
        mine = named[chosen]
        errors = [f"{calibration_error(mine[column], mine.right):.3f}" for column in ("confidence", "fitted")]
        lines.append([title, len(mine), f"{mine.right.mean():.1%}", f"{mine.fitted.mean():.1%}", *errors])
    every = _fit(named)
    table = _table(["levels of", "named", "right", "mean confidence", "error before", "error after"], lines)
    found = f"slope {every.slope:.3f}, offset {every.offset:.3f}, without a sacrum {every.without_sacrum:.3f}"
    return f"{table}\n\nFitted on all folds: {found}."


def _fit(named: pd.DataFrame) -> Calibration:
    return Calibration.fit(named.confidence, named.right, named.without_sacrum)


def calibration_error(confidence: pd.Series, right: pd.Series) -> float:
    """Expected calibration error over ten bins of equal width."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = pd.DataFrame({"gap": right - confidence, "bin": place}).groupby("bin").gap.sum().abs()
    return float(gaps.sum() / max(len(confidence), 1))


def _ablation(folds: Mapping[str, pd.DataFrame], ablations: Mapping[str, pd.DataFrame]) -> str:
    lines = [[name, "all", *_shares(pd.concat(folds.values()), name)] for name in ABLATED_LOOKS]
    ablated = sorted({name[: len("fold_0")] for name in ablations})
    same = [folds[name] for name in ablated if name in folds]
    if same:
        lines.append(["all parts", ", ".join(ablated), *_shares(pd.concat(same), "all parts")])
    for what in sorted({name[len("fold_0_") :] for name in ablations}):
        mine = {name: rows for name, rows in ablations.items() if name.endswith(what)}
        title = f"trained {what.replace('_', ' ')}"
        lines.append(
            [title, ", ".join(sorted(name[: len("fold_0")] for name in mine)), *_shares(pd.concat(mine.values()), "all parts")]
        )
    return _table(["decoding", "folds", "lumbar_volumes", "all right", "midsagittal", "all right"], lines)


def _shares(rows: pd.DataFrame, look: str) -> list[str]:
    found = []
    for study in ("lumbar_volumes", "midsagittal"):
        points = _points(rows[(rows["look"] == look) & (rows.study == study)])
        right = _is_right(points)
        found += [f"{right.mean():.1%}", f"{right.groupby(points.case).all().mean():.1%}"]
    return found


def _worst(rows: pd.DataFrame, count: int = 10) -> str:
    points = _points(rows[rows["look"] == WHOLE])
    share = points.mm.clip(upper=100) / points.limit_mm
    worst = share.groupby(points.study + " | " + points.case).mean().nlargest(count)
    return _table(["set", "scan", "mean distance, of what is right"], [[case, f"{value:.2f}"] for case, value in worst.items()])


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of structures that should be found."""
    return rows[rows.is_there.eq(True) & ~rows.name.isin(_NOT_POINTS)]


def _is_right(points: pd.DataFrame) -> pd.Series:
    return points.mm <= points.limit_mm


def _share(points: pd.DataFrame) -> float:
    return float(_is_right(points).mean())


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [head, ["---"] * len(head), *lines] if lines else []
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
