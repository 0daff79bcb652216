"""Write a grader's predictions as a table."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from monai_spine.anatomy import Severity

__all__ = ["SavePredictions"]


class SavePredictions:
    """Write one row per crop: case, target, three probabilities and the label. Attach it to an evaluator on one process.

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
            probabilities = [f"{float(value):.6f}" for value in torch.as_tensor(row["pred"]).cpu()]
            self._rows.append([str(example["case"]), str(example["target"]), *probabilities, str(int(example["label"]))])

    def _write(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".part")
        with beside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["case", "target", *(severity.slug for severity in Severity), "label"])
            writer.writerows(self._rows)
        beside.replace(self.path)
