"""What the level networks' metrics and pictures have in common: rows gathered over an epoch, and the first few cases drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

__all__ = ["FirstPictures", "RowMetric", "StudyTable"]

_log = logging.getLogger(__name__)


class RowMetric(Metric):
    """Collects rows over an epoch, on all processes.

    A subclass gives `rows_of` one element and `compute` from `self.gathered()`. Where its rows say which case they are of, it
    sets `distinct`: a row that comes twice, as a distributed sampler's padding, then counts once.
    """

    distinct = False

    def __init__(
        self, output_transform: Callable[[Any], Any] = lambda output: output, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        self._rows: list[Any] = []

    @reinit__is_reduced
    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        for element in output:
            self._rows += self.rows_of(element)

    def rows_of(self, element: Mapping[str, Any]) -> list[Any]:
        """Rows of one decollated element of an evaluator's output."""
        raise NotImplementedError

    def gathered(self) -> list[Any]:
        """The rows of all processes."""
        if idist.get_world_size() == 1:
            return self._rows
        shares: list[Any] = [None] * idist.get_world_size()
        torch.distributed.all_gather_object(shares, self._rows)
        rows = [row for share in shares for row in share]
        return list(dict.fromkeys(rows)) if self.distinct else rows


class FirstPictures:
    """Draw the first elements of each validation into TensorBoard. Attach it to the evaluator. A subclass gives `draw`.

    Args:
        writer: Where to write.
        count: Pictures per validation.
    """

    tag = "pictures"

    def __init__(self, writer: Any, count: int = 6) -> None:
        self.writer, self.count = writer, count
        self._shown = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def draw(self, output: Mapping[str, Any]) -> Any:
        """Picture (3, rows, columns), 0 to 1, of one decollated element of an evaluator's output."""
        raise NotImplementedError

    def _start(self, engine: Engine) -> None:
        self._shown = 0

    def __call__(self, engine: Engine) -> None:
        for output in engine.state.output:
            if self._shown < self.count:
                self.writer.add_image(f"{self.tag}/{self._shown}", self.draw(output), engine.state.epoch)
                self._shown += 1


class StudyTable:
    """Print one line per data set from a metric that computes a mapping of `<data set> <column>`. Attach it to the evaluator.

    A subclass gives `columns`. Every data set has a `<data set> count`, its number of blocks.

    Args:
        metric: Its name among the evaluator's metrics.
    """

    columns: ClassVar[Mapping[str, str]] = {}
    """Format of each column, by its name."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        values: Mapping[str, float] = engine.state.metrics.get(self.metric, {})
        lines = [f"{'data set':16s}  blocks" + "".join(f"  {name:>10s}" for name in self.columns)]
        for study in [name.removesuffix(" count") for name in values if name.endswith(" count")]:
            cells = [format(values.get(f"{study} {name}", float("nan")), form) for name, form in self.columns.items()]
            lines.append(f"{study:16s}  {values[f'{study} count']:6.0f}" + "".join(f"  {cell:>10s}" for cell in cells))
        if idist.get_rank() == 0:
            _log.info("\n%s", "\n".join(lines))
