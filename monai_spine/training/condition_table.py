"""Write what both heads say of each crop as a table."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Engine, Events

from monai_spine.anatomy import KINDS, Severity
from monai_spine.studies.table_output import write_rows
from monai_spine.training.condition_heads import split_heads

__all__ = ["COLUMNS", "SaveConditions"]

COLUMNS: tuple[str, ...] = (
    "case",
    "target",
    "condition",
    "severity",
    *(kind.slug for kind in KINDS),
    *(severity.slug for severity in Severity),
    "true_condition",
    "true_severity",
)
"""What was asked, the most probable condition and severity, all probabilities, and what is true; empty: nobody graded it."""


class SaveConditions:
    """Write one row per crop, see `COLUMNS`. Attach it to an evaluator on one process.

    Args:
        path: CSV file to write; it appears when the run is complete.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        for example, row in zip(engine.state.batch, engine.state.output, strict=True):
            both = torch.as_tensor(row["pred"]).float().cpu()
            heads = split_heads(both)
            called = [KINDS[int(heads["condition"].argmax())].slug, list(Severity)[int(heads["severity"].argmax())].slug]
            kind, severity = (int(value) for value in example["label"])
            true = [KINDS[kind].slug, list(Severity)[severity].slug if severity >= 0 else ""]
            numbers = [f"{float(value):.6f}" for value in both]
            self._rows.append([str(example["case"]), str(example["target"]), *called, *numbers, *true])

    def _write(self, engine: Engine) -> None:
        write_rows(self.path, COLUMNS, self._rows)
