"""Ignite handlers that every bundle's training shares. All are built on every process; only the first one writes.

A run keeps two files: the best network (a plain state dict, which inference loads) and the last state of the whole run, from
which `--resume True` goes on after a kill.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler
from torch.utils.tensorboard import SummaryWriter

from monai_spine.errors import OutputError, TrainingError, WeightsError

__all__ = [
    "BestModel",
    "EpochSeed",
    "FiniteLoss",
    "FirstProcessWriter",
    "LastCheckpoint",
    "LogLearningRate",
    "StopEarly",
    "ValidateLast",
]

_log = logging.getLogger(__name__)

_LENGTHS = ("t_total", "warmup_steps", "total_steps", "T_max")


def _save(contents: Any, path: Path) -> None:
    """Write beside the place, then rename, so that a kill leaves the former file whole."""
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(contents, beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error}). Free some space, then go on with --resume True.") from error


def _refuse_unwritable(path: Path) -> None:
    """Refuse a file whose place is taken by a folder, or whose folder cannot be made or written to."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        what = f"{path} is a folder" if path.is_dir() else f"nothing can be written in {there}"
        raise OutputError(f"No weights can be written: {what}. Name a file with --ckpt_path, such as runs/model.pt.")


def _refuse_unless_finite(value: float, what: str, engine: Engine) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{what} in epoch {engine.state.epoch} is {value}: the network has come apart, and the training ends. The best "
            "weights before are kept. Lower learning_rate, or give other weights to begin with."
        )


class FirstProcessWriter:
    """A TensorBoard writer that writes on the first process only, and opens its file with the first value.

    Args:
        folder: Where the event file goes.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return self._do_nothing if idist.get_rank() > 0 else getattr(self._opened(), name)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder))
        return self._writer

    @staticmethod
    def _do_nothing(*_: Any, **__: Any) -> None:
        return None


class BestModel:
    """Write the network's state dict whenever a validation metric is better than ever before. Attach it to the evaluator.

    Args:
        path: File to write, such as `models/model.pt`.
        network: The network itself, not wrapped for several processes.
        metric: Name among the evaluator's metrics.
        lower_is_better: True for losses and distances.

    Raises:
        OutputError: The file cannot be written there, which is better known before the first epoch than after it.
        TrainingError: The metric is NaN or infinite, which nothing can be better than.
    """

    def __init__(self, path: Path | str, network: torch.nn.Module, metric: str, *, lower_is_better: bool = True) -> None:
        self.path = Path(path)
        _refuse_unwritable(self.path)
        self.network = network
        self.metric = metric
        self.sign = -1.0 if lower_is_better else 1.0
        self.best: float | None = None
        self.validations_since = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        value = float(engine.state.metrics[self.metric])
        _refuse_unless_finite(value, f"The {self.metric} of the validation", engine)
        self.validations_since += 1
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best, self.validations_since = value, 0
            if idist.get_rank() == 0:
                _save(self.network.state_dict(), self.path)

    def state_dict(self) -> dict[str, float | int | None]:
        return {"best": self.best, "validations_since": self.validations_since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.validations_since = state["best"], state["validations_since"]


class ValidateLast(ValidationHandler):
    """MONAI's `ValidationHandler` that validates after the last epoch too, whatever the interval. Attach it to the trainer."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_due), self)

    def _is_due(self, engine: Engine, epoch: int) -> bool:
        return bool(epoch % self.interval == 0 or epoch == engine.state.max_epochs)


class FiniteLoss:
    """End a training with an error at the first loss that is NaN or infinite. Attach it to the trainer.

    Raises:
        TrainingError: The loss of an iteration is no finite number.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        _refuse_unless_finite(engine.state.output["loss"].item(), f"The loss of iteration {engine.state.iteration}", engine)


class StopEarly:
    """End a training after so many validations without a better one. Attach it to the trainer.

    Args:
        best: Counts the validations.
        patience: Validations without gain after which the training ends.
    """

    def __init__(self, best: BestModel, patience: int) -> None:
        self.best = best
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.best.validations_since >= self.patience:
            _log.info("no better %s than %s in %d validations: training ends", self.best.metric, self.best.best, self.patience)
            engine.terminate()


class EpochSeed:
    """Give each epoch random numbers of its own, so that a run that goes on after a kill draws what it would have drawn.

    Attach it to the trainer.

    Args:
        seed: Of the run.
        sources: What draws besides torch, differently on each process: anything with MONAI's `set_random_state`.
        shared: What has to draw the same on every process, such as a sampler's generator.
    """

    def __init__(self, seed: int, *, sources: Sequence[Any] = (), shared: Sequence[torch.Generator] = ()) -> None:
        self.seed = seed
        self.sources, self.shared = tuple(sources), tuple(shared)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        own = self._seeds(engine.state.epoch, idist.get_rank() + 1, count=1 + len(self.sources))
        torch.manual_seed(own[0])
        for source, seed in zip(self.sources, own[1:], strict=True):
            source.set_random_state(seed=seed)
        for generator, seed in zip(self.shared, self._seeds(engine.state.epoch, 0, count=len(self.shared)), strict=True):
            generator.manual_seed(seed)

    def _seeds(self, epoch: int, stream: int, *, count: int) -> list[int]:
        return [int(seed) for seed in np.random.SeedSequence([self.seed, epoch, stream]).generate_state(count)]


class LastCheckpoint:
    """Write the state of the whole run after each epoch, and go on from it where asked to. The trainer's last handler.

    The lengths of learning-rate schedules are not restored: they belong to the run that goes on, so that it may be a longer one.

    Args:
        path: File to write, such as `runs/last.pt`.
        contents: Everything with `state_dict` and `load_state_dict`: network, optimizer, scheduler, best model.
        resume: Go on from `path` if it is there; otherwise start at the beginning.
        run: What tells this run from another one, such as its bundle and its data, besides where its best model goes.

    Raises:
        WeightsError: `path` is that of another run: two share a folder.
    """

    def __init__(
        self, path: Path | str, contents: Mapping[str, Any], *, resume: bool = False, run: Sequence[object] = ()
    ) -> None:
        self.path = Path(path)
        self.contents = dict(contents)
        self.resume = resume
        self.run = run

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write epoch, iteration, random state, the scaler of mixed precision and all contents."""
        if idist.get_rank() == 0:
            states = {name: part.state_dict() for name, part in self.contents.items()}
            if getattr(engine, "scaler", None) is not None:
                states["scaler"] = engine.scaler.state_dict()
            counters = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            _save({"trainer": counters, "random": torch.get_rng_state(), "run": self._run, **states}, self.path)

    def restore(self, engine: Engine) -> None:
        """Load what `save` wrote, on every process."""
        if not self.resume or not self.path.is_file():
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state.get("run", self._run) != self._run:
            raise WeightsError(
                f"{self.path} is of another run ({state['run']}) than this one ({self._run}). "
                "Give each run an output_dir of its own, or go on with the bundle, dataset_dir and ckpt_path that it had."
            )
        for name, part in self.contents.items():
            lengths = {key: getattr(part, key) for key in _LENGTHS if hasattr(part, key)}
            part.load_state_dict({**state[name], **lengths} if lengths else state[name])
        if getattr(engine, "scaler", None) is not None and "scaler" in state:
            engine.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        engine.state.epoch, engine.state.iteration = state["trainer"]["epoch"], state["trainer"]["iteration"]
        _log.info("going on from %s after epoch %d of %d", self.path, engine.state.epoch, engine.state.max_epochs)

    @property
    def _run(self) -> str:
        """The run in words; of its best model the last folder and name, as folders may move."""
        best = [part for part in self.contents.values() if isinstance(part, BestModel)]
        return ", ".join([*("/".join(one.path.absolute().parts[-2:]) for one in best), *(str(part) for part in self.run)])


class LogLearningRate:
    """Write the learning rate of each epoch to TensorBoard. Attach it to the trainer.

    Args:
        writer: Where to write.
        optimizer: Whose first group is read.
    """

    def __init__(self, writer: Any, optimizer: torch.optim.Optimizer) -> None:
        self.writer = writer
        self.optimizer = optimizer

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], engine.state.epoch)
