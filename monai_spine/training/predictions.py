"""Write what networks say of each example as a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_spine.anatomy import Severity
from monai_spine.studies.table_output import write_rows

__all__ = ["SavePredictions", "SaveRows"]


class SaveRows(ABC):
    """Write one row per example. Attach it to an evaluator on one process.

    Args:
        path: CSV file to write; it appears when the run is complete.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: list[Sequence[str]] = []

    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Names of the columns."""

    @abstractmethod
    def row(self, example: Mapping[str, Any], answer: torch.Tensor) -> Sequence[str]:
        """One row of an example and its `pred`, float32 on the CPU."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        for example, output in zip(engine.state.batch, engine.state.output, strict=True):
            self._rows.append(self.row(example, torch.as_tensor(output["pred"]).float().cpu()))

    def _write(self, engine: Engine) -> None:
        write_rows(self.path, self.columns(), self._rows)


class SavePredictions(SaveRows):
    """Case, target, three probabilities and the label of each crop."""

    def columns(self) -> Sequence[str]:
        return ("case", "target", *(severity.slug for severity in Severity), "label")

    def row(self, example: Mapping[str, Any], answer: torch.Tensor) -> Sequence[str]:
        probabilities = [f"{float(value):.6f}" for value in answer]
        return [str(example["case"]), str(example["target"]), *probabilities, str(int(example["label"]))]
