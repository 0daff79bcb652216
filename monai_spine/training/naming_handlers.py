"""What only the naming network's engines need: batches, the loss, metrics and a table at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from monai_spine.level_names import CLASSES

__all__ = ["NameAccuracy", "NameLoss", "NameTable", "NamingLogLoss", "prepare_batch"]

_log = logging.getLogger(__name__)

_LOWEST_DISC = CLASSES.index("L5/S1")


def prepare_batch(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Images (B, 1, R, A, S) and their answers: `label` (B,), and for the metrics `study`."""
    answer = {"label": torch.as_tensor(batch["label"]).to(device=device, non_blocking=non_blocking), "study": batch["study"]}
    return torch.as_tensor(batch["image"]).to(device=device, non_blocking=non_blocking), answer


class NameLoss(nn.Module):
    """Cross-entropy over the classes of `level_names.CLASSES`.

    Args:
        label_smoothing: Share of each answer that is spread over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, answer: Mapping[str, Any]) -> Tensor:
        """Mean over a batch of logits (B, 8)."""
        return cross_entropy(logits, answer["label"], label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class _Row:
    """One block: its class, whether it was the most probable one, and minus the logarithm of its probability."""

    study: str
    label: int
    is_right: bool
    log_loss: float


def _row_of(output: Mapping[str, Any]) -> _Row:
    """Judge one decollated element of an evaluator's output (probabilities `pred`) by its `label`."""
    probabilities, label = output["pred"].float().cpu(), int(output["label"]["label"])
    loss = -float(torch.log(probabilities[label].clamp_min(1e-6)))
    return _Row(str(output["label"]["study"]), label, int(probabilities.argmax()) == label, loss)


class NameAccuracy(Metric):
    """Share of blocks with the right name, of L5/S1 alone, and log loss, for each data set.

    Computes a mapping such as `{"phantom accuracy": 0.9, "phantom L5/S1": 0.97, "phantom log loss": 0.3, "phantom count": 60.0}`.
    """

    def __init__(
        self, output_transform: Callable[[Any], Any] = lambda output: output, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        self._rows: list[_Row] = []

    @reinit__is_reduced
    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        self._rows += [_row_of(element) for element in output]

    def compute(self) -> Any:
        rows = self._gathered()
        result: dict[str, float] = {}
        for study in sorted({row.study for row in rows}):
            mine = [row for row in rows if row.study == study]
            lowest = [row.is_right for row in mine if row.label == _LOWEST_DISC]
            result[f"{study} accuracy"] = float(np.mean([row.is_right for row in mine]))
            result |= {f"{study} L5/S1": float(np.mean(lowest))} if lowest else {}
            result[f"{study} log loss"] = float(np.mean([row.log_loss for row in mine]))
            result[f"{study} count"] = float(len(mine))
        return result

    def _gathered(self) -> list[_Row]:
        if idist.get_world_size() == 1:
            return self._rows
        shares: list[Any] = [None] * idist.get_world_size()
        torch.distributed.all_gather_object(shares, self._rows)
        return [row for share in shares for row in share]


class NamingLogLoss(NameAccuracy):
    """One number to choose the best network by: the log loss, the mean over data sets. Lower is better."""

    def compute(self) -> float:
        values = super().compute()
        return float(np.mean([value for name, value in values.items() if name.endswith("log loss")]))


class NameTable:
    """Print the metrics of `NameAccuracy` as a table. Attach it to the evaluator.

    Args:
        metric: Its name among the evaluator's metrics.
    """

    def __init__(self, metric: str = "names") -> None:
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        values: Mapping[str, float] = engine.state.metrics.get(self.metric, {})
        lines = ["data set          blocks  right name  L5/S1 right  log loss"]
        for study in [name.removesuffix(" count") for name in values if name.endswith(" count")]:
            right, lowest, loss = (values.get(f"{study} {name}", float("nan")) for name in ("accuracy", "L5/S1", "log loss"))
            lines.append(f"{study:16s}  {values[f'{study} count']:6.0f}  {right:10.1%}  {lowest:11.1%}  {loss:8.3f}")
        if idist.get_rank() == 0:
            _log.info("\n%s", "\n".join(lines))
