"""How much of a training goes by waiting for data."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Timer

__all__ = ["DataWaitShare"]


class DataWaitShare:
    """Measure the share of each epoch's steps spent waiting for data, 0 to 1, as the trainer's metric `data_wait_share`.

    Attach it to the trainer before the handlers that print its metrics and write them to TensorBoard.

    A step lasts from asking for a batch until the network has learnt from it, so that neither validation nor checkpoints count.
    Work on a GPU is waited for at the end of each step: what it still has to do would otherwise seem to be waiting for data.
    Nothing is drawn and nothing kept from one epoch to the next: a training that goes on after a kill computes as before.

    Args:
        device: Where the network is trained.
    """

    name = "data_wait_share"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._steps, self._waits = Timer(), Timer()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._begin_step)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._waits.pause)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _begin_epoch(self) -> None:
        for timer in (self._steps, self._waits):
            timer.pause()
            timer.total = 0.0

    def _begin_step(self) -> None:
        self._steps.resume()
        self._waits.resume()

    def _end_step(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._steps.pause()

    def _report(self, engine: Engine) -> None:
        total = self._steps.value()
        engine.state.metrics[self.name] = self._waits.value() / total if total > 0 else 0.0
