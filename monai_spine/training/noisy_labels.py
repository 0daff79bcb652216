"""Labels that out-of-fold predictions contradict strongly: found, written as a table, and left out of training or softened.

A prediction is held to contradict a label when it gives another severity at least the probability that this severity has on
average where it is the label. These thresholds are made for each condition: a severe foramen is seen less surely than a severe
canal. What is contradicted is a question for a reader, not a wrong label: of a rare, hard case the prediction may be wrong.

Source: Northcutt, Jiang, Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70, 2021 (the confident joint
and its self-confidence thresholds); softened labels: Reed et al., Training deep neural networks on noisy labels with
bootstrapping, ICLR 2015 workshop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from monai_spine.anatomy import Severity
from monai_spine.errors import TableError
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.studies.table_output import write_rows

__all__ = ["COLUMNS", "confident_thresholds", "contradicted", "noisy_rows", "read_noisy", "without_noise", "write_noisy"]

COLUMNS: tuple[str, ...] = ("row_id", "label", "suggested", "margin", *PROBABILITIES)
"""Of the table: the given label, the one that the prediction suggests, by how much it is the more probable, and all three."""

_SLUGS = [severity.slug for severity in Severity]


def confident_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How probable each severity is on average where it is the label, (3,); infinite where it never is.

    Args:
        probabilities: Frequencies (N, 3), out of fold.
        labels: Indices (N,).
    """
    own = [probabilities[labels == severity.index, severity.index] for severity in Severity]
    return np.array([values.mean() if len(values) else np.inf for values in own])


def contradicted(probabilities: np.ndarray, labels: np.ndarray, *, margin: float = 0.0) -> np.ndarray:
    """Which severity each prediction confidently sees instead of the label, (N,); -1 where it sees none.

    Args:
        probabilities: Frequencies (N, 3) of one condition, out of fold: not scaled for the score.
        labels: Indices (N,).
        margin: By how much it must be more probable than the label.

    Raises:
        ValueError: The shapes do not fit, or the margin lies outside [0, 1).
    """
    if probabilities.shape != (len(labels), len(Severity)) or labels.ndim != 1:
        raise ValueError(f"Probabilities must be (N, 3) and labels (N,), got {probabilities.shape} and {labels.shape}.")
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be in [0, 1), got {margin}.")
    sure = np.where(probabilities >= confident_thresholds(probabilities, labels), probabilities, -1.0)
    seen, rows = sure.argmax(axis=1), np.arange(len(labels))
    ahead = probabilities[rows, seen] - probabilities[rows, labels]
    return np.where((sure[rows, seen] >= 0) & (seen != labels) & (ahead > margin), seen, -1)


def noisy_rows(table: pd.DataFrame, *, margin: float = 0.0) -> pd.DataFrame:
    """The labels that are contradicted, the most strongly first.

    Args:
        table: row_id, condition (slug), label (index), and the frequencies under the names of `PROBABILITIES`.
        margin: As in `contradicted`.

    Returns:
        `COLUMNS`, with severities as slugs.
    """
    found = []
    for _, rows in table.groupby("condition"):
        values, labels = rows[list(PROBABILITIES)].to_numpy(float), rows["label"].to_numpy(np.int64)
        suggested = contradicted(values, labels, margin=margin)
        there = suggested >= 0
        ahead = values[there, suggested[there]] - values[there, labels[there]]
        names = {"label": [_SLUGS[at] for at in labels[there]], "suggested": [_SLUGS[at] for at in suggested[there]]}
        found.append(rows[there][["row_id", *PROBABILITIES]].assign(**names, margin=ahead))
    noisy = pd.concat(found) if found else pd.DataFrame(columns=list(COLUMNS))
    return noisy.sort_values(["margin", "row_id"], ascending=[False, True], ignore_index=True)[list(COLUMNS)]


def write_noisy(noisy: pd.DataFrame, path: Path | str) -> None:
    """Write a table of `COLUMNS` with six decimals.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = noisy[list(COLUMNS)].itertuples(index=False)
    write_rows(Path(path), COLUMNS, [(*row[:3], *(f"{value:.6f}" for value in row[3:])) for row in rows])


def read_noisy(path: Path | str) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Label (slug) and frequencies of each contradicted row, by row id.

    Raises:
        TableError: The file breaks the format of `write_noisy`.
    """
    table = SourceTable.read(path, columns=COLUMNS)
    table.unique(["row_id"])
    labels = table.one_of("label", _SLUGS)
    values = np.stack([table.numbers(column) for column in PROBABILITIES], axis=1)
    table.refuse(
        (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-3),
        lambda row: f"{', '.join(map(str, values[row]))} are no probabilities",
        remedy="Write the table again with tools/find_noisy_labels.py.",
    )
    ids = table.cells["row_id"].tolist()
    return {name: (label, tuple(row)) for name, label, row in zip(ids, labels, values.tolist(), strict=True)}


def without_noise(
    items: Sequence[Mapping[str, Any]], path: Path | str | None, *, action: Literal["drop", "soften"] = "drop", trust: float = 0.5
) -> list[dict[str, Any]]:
    """Training items, those with a contradicted label left out or softened.

    Args:
        items: As `items_of` gives them.
        path: Table that `tools/find_noisy_labels.py` wrote.
        action: `drop` leaves out; `soften` gives every item `shares` (three numbers): `trust` of the label and the rest of the
            prediction where it is contradicted, all of the label elsewhere.
        trust: Share of the label.

    Raises:
        TableError: There is no table, it cannot be read, none of it belongs to the items, or its labels are not theirs.
        ValueError: The action is unknown, or the share lies outside [0, 1].
    """
    if action not in ("drop", "soften") or not 0 <= trust <= 1:
        raise ValueError(f"action must be drop or soften and trust in [0, 1], got {action!r} and {trust}.")
    if path is None:
        raise TableError(
            "No table says which labels to clean. Give one with --noisy_labels; tools/find_noisy_labels.py writes it."
        )
    noisy = read_noisy(path)
    known = {f"{item['case']}_{item['target']}": item for item in items}
    _check(noisy, known, path)
    if action == "drop":
        return [dict(item) for name, item in known.items() if name not in noisy]
    return [{**item, "shares": _shares(int(item["label"]), noisy.get(name), trust)} for name, item in known.items()]


def _check(noisy: Mapping[str, tuple[str, tuple[float, ...]]], known: Mapping[str, Mapping[str, Any]], path: Path | str) -> None:
    """A table of other data must not pass for one that finds nothing to clean."""
    both = [name for name in noisy if name in known]
    if noisy and not both:
        raise TableError(
            f"None of the {len(noisy)} rows of {path} belongs to the {len(known)} training items, such as "
            f"{next(iter(known), 'none')!r}. Give the table that was made from this data and this condition."
        )
    other = [name for name in both if _SLUGS[int(known[name]["label"])] != noisy[name][0]]
    if other:
        raise TableError(
            f"{path} takes {other[0]!r} for {noisy[other[0]][0]}, the training data for "
            f"{_SLUGS[int(known[other[0]]['label'])]} ({len(other)} such rows). Make the table from these labels."
        )


def _shares(label: int, noisy: tuple[str, tuple[float, ...]] | None, trust: float) -> list[float]:
    own = [float(label == severity.index) for severity in Severity]
    return own if noisy is None else [trust * true + (1 - trust) * seen for true, seen in zip(own, noisy[1], strict=True)]
