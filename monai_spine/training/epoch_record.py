"""A table of a training's epochs: seconds, loss and what validation says."""

from __future__ import annotations

import csv
from pathlib import Path
from time import perf_counter

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events

from monai_spine.studies.table_output import write_rows

__all__ = ["EpochRecord"]


class EpochRecord:
    """Write one row per epoch: `epoch`, `seconds`, the trainer's metrics, and the validator's after `validation_`.

    Seconds last from the epoch's first step to its last, without validation and checkpoints. A training that goes on after a kill
    keeps the rows up to where it goes on. Attach it to the trainer as its last handler.

    Args:
        path: CSV file, written anew after each epoch.
        validator: Whose metrics are recorded as they stand at the end of each epoch.
    """

    def __init__(self, path: Path | str, validator: Engine) -> None:
        self.path = Path(path)
        self.validator = validator
        self._rows: list[dict[str, str]] = []
        self._begun = self._seconds = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._go_on)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _go_on(self, engine: Engine) -> None:
        if self.path.is_file() and engine.state.epoch > 0:
            with self.path.open(newline="", encoding="utf-8") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= engine.state.epoch]

    def _begin(self) -> None:
        self._begun = perf_counter()

    def _measure(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds = perf_counter() - self._begun

    def _write(self, engine: Engine) -> None:
        found = {**engine.state.metrics, **{f"validation_{name}": value for name, value in self.validator.state.metrics.items()}}
        numbers = {name: f"{float(value):.6g}" for name, value in found.items()}
        self._rows.append({"epoch": str(engine.state.epoch), "seconds": f"{self._seconds:.3f}", **numbers})
        if idist.get_rank() == 0:
            header = list(dict.fromkeys(name for row in self._rows for name in row))
            write_rows(self.path, header, [[row.get(name, "") for name in header] for row in self._rows])
