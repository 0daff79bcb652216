"""The share of a training that goes by waiting for data is what it is, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import timing
from monai.handlers import StatsHandler, TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_spine.training.handlers import FirstProcessWriter
from monai_spine.training.timing import DataWaitShare


class Clock:
    """Time goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


class Loader:
    """Batches that take their time; the first of an epoch, which fills a queue, takes more."""

    def __init__(self, clock: Clock, *, seconds: float, first: float) -> None:
        self.clock, self.seconds, self.first = clock, seconds, first

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        for batch in range(4):
            self.clock.passes(self.seconds if batch else self.first)
            yield batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(timing, "perf_counter", turned)
    return turned


def trainer(clock: Clock, *, step_s: float, device: str = "cpu") -> tuple[Engine, list[float]]:
    """A trainer whose steps and validations take their time, and the share after each epoch."""
    engine, shares = Engine(lambda engine, batch: clock.passes(step_s)), []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: clock.passes(100.0))
    DataWaitShare(device).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: shares.append(engine.state.metrics["data_wait_share"]))
    return engine, shares


@pytest.mark.parametrize(
    ("wait_s", "first_s", "step_s", "share"),
    [(1.0, 1.0, 3.0, 0.25), (1.0, 5.0, 2.0, 0.5), (0.0, 0.0, 2.0, 0.0), (2.0, 2.0, 0.0, 1.0)],
)
def test_the_share_is_the_loader_s_time_within_the_steps(
    clock: Clock, wait_s: float, first_s: float, step_s: float, share: float
) -> None:
    engine, shares = trainer(clock, step_s=step_s)
    engine.run(Loader(clock, seconds=wait_s, first=first_s), max_epochs=2)
    assert shares == [pytest.approx(share)] * 2, "of each epoch alone, validation not counted"


def test_a_resumed_run_measures_its_own_epochs(clock: Clock) -> None:
    engine, shares = trainer(clock, step_s=3.0)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", 2))
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "iteration", 8))
    clock.passes(1000.0)
    engine.run(Loader(clock, seconds=1.0, first=1.0), max_epochs=3)
    assert shares == [pytest.approx(0.25)]


def test_what_a_gpu_still_has_to_do_is_no_waiting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step returns at once; the device is done three seconds later, when it is asked."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: clock.passes(3.0))
    engine, shares = trainer(clock, step_s=0.0, device="cuda:0")
    engine.run(Loader(clock, seconds=1.0, first=1.0), max_epochs=1)
    assert shares == [pytest.approx(0.25)]


def test_the_share_stands_in_the_epoch_s_line_and_in_tensorboard(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, _ = trainer(clock, step_s=3.0)
    writer = FirstProcessWriter(tmp_path)
    StatsHandler(iteration_log=False, name=str(tmp_path)).attach(engine)  # a logger that no other test has changed
    TensorBoardStatsHandler(writer, iteration_log=False).attach(engine)
    engine.run(Loader(clock, seconds=1.0, first=1.0), max_epochs=2)
    writer.close()
    printed = [line.strip().partition(" INFO - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [f"Epoch[{epoch}] Metrics -- data_wait_share: 0.2500" for epoch in (1, 2)]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("data_wait_share")] == [(1, 0.25), (2, 0.25)]
