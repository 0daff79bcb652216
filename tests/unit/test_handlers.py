"""The best network is kept, a killed run goes on, and a run without gain ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from monai_spine.errors import OutputError, TrainingError, WeightsError
from monai_spine.training.handlers import (
    BestModel,
    EpochSeed,
    FiniteLoss,
    FirstProcessWriter,
    LastCheckpoint,
    LogLearningRate,
    StopEarly,
    ValidateLast,
)
from monai_spine.training.intensities import RandIntensityd

ROOT = Path(__file__).resolve().parents[2]


def evaluator(values: list[float]) -> Engine:
    """An engine whose runs report these values of `loss`, one after the other."""
    engine, waiting = Engine(lambda engine, batch: None), iter(values)

    @engine.on(Events.COMPLETED)
    def _report(engine: Engine) -> None:
        engine.state.metrics["loss"] = next(waiting)

    return engine


def test_the_best_network_is_kept(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    best = BestModel(tmp_path / "models" / "model.pt", network, "loss")
    engine = evaluator([0.5, 0.3, 0.4])
    best.attach(engine)
    for value in (1.0, 2.0, 3.0):
        torch.nn.init.constant_(network.weight, value)
        engine.run([0])
    assert float(torch.load(best.path, weights_only=True)["weight"]) == 2.0
    assert best.state_dict() == {"best": 0.3, "validations_since": 1}


@pytest.mark.parametrize(("lower", "expected"), [(True, 0.2), (False, 0.9)])
def test_better_is_lower_or_higher(tmp_path: Path, lower: bool, expected: float) -> None:
    best = BestModel(tmp_path / "model.pt", torch.nn.Linear(1, 1), "loss", lower_is_better=lower)
    engine = evaluator([0.5, 0.2, 0.9])
    best.attach(engine)
    for _ in range(3):
        engine.run([0])
    assert best.best == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_ends_the_training_and_leaves_the_best_network(tmp_path: Path, value: float) -> None:
    best = BestModel(tmp_path / "model.pt", torch.nn.Linear(1, 1), "loss")
    engine = evaluator([0.5, value])
    best.attach(engine)
    engine.run([0])
    written = best.path.read_bytes()
    with pytest.raises(TrainingError, match=rf"The loss of the validation in epoch 1 is {value}: .* Lower learning_rate"):
        engine.run([0])
    assert best.path.read_bytes() == written


def test_the_first_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(batch)})
    FiniteLoss().attach(trainer)
    with pytest.raises(TrainingError, match=r"The loss of iteration 5 in epoch 2 is nan: .* Lower learning_rate"):
        trainer.run(iter([0.5, 0.4, 0.3, 0.2, float("nan"), 0.1]), max_epochs=2, epoch_length=3)
    assert trainer.state.iteration == 5


@pytest.mark.parametrize("config", [*ROOT.glob("bundles/*/configs/train.json"), ROOT / "configs/study_head/train.json"])
def test_every_training_ends_with_a_loss_that_is_no_number(config: Path) -> None:
    assert {"_target_": f"{FiniteLoss.__module__}.FiniteLoss"} in json.loads(config.read_text())["train"]["handlers"]


@pytest.mark.parametrize(("interval", "epochs", "expected"), [(5, 1, [1]), (3, 7, [3, 6, 7]), (2, 4, [2, 4]), (1, 3, [1, 2, 3])])
def test_the_last_epoch_is_validated_whatever_the_interval(interval: int, epochs: int, expected: list[int]) -> None:
    validated: list[int] = []
    validator = Evaluator(torch.device("cpu"), [0], epoch_length=1)
    validator.run = validated.append
    trainer = Engine(lambda engine, batch: None)
    ValidateLast(interval, validator).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert validated == expected


def test_weights_that_could_not_be_written_are_refused_before_the_training(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(OutputError, match=r"is a folder\. Name a file with --ckpt_path"):
        BestModel(tmp_path, network, "loss")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"nothing can be written in .*file\. Name a file"):
        BestModel(tmp_path / "file" / "runs" / "model.pt", network, "loss")


def test_a_run_without_gain_ends(tmp_path: Path) -> None:
    best = BestModel(tmp_path / "model.pt", torch.nn.Linear(1, 1), "loss")
    validation = evaluator([0.5] * 10)
    best.attach(validation)
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validation.run([0]))
    StopEarly(best, patience=3).attach(trainer)
    assert trainer.run([0], max_epochs=10).epoch == 4


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    path, network = tmp_path / "last.pt", torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, 7.0)
    first = Engine(lambda engine, batch: None)
    LastCheckpoint(path, {"network": network}).attach(first)
    first.run([0, 0], max_epochs=3)
    again, epochs = torch.nn.Linear(1, 1), []
    second = Engine(lambda engine, batch: None)
    second.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
    LastCheckpoint(path, {"network": again}, resume=True).attach(second)
    second.run([0, 0], max_epochs=5)
    assert epochs == [4, 5]
    assert again.weight.item() == 7.0


def test_a_run_does_not_go_on_from_another_one_in_the_same_folder(tmp_path: Path) -> None:
    def run(name: str, *, epochs: int, data: str = "fold_0") -> Engine:
        engine, network = Engine(lambda engine, batch: None), torch.nn.Linear(1, 1)
        contents = {"network": network, "best": BestModel(tmp_path / name, network, "loss")}
        LastCheckpoint(tmp_path / "last.pt", contents, resume=True, run=(data,)).attach(engine)
        engine.run([0], max_epochs=epochs)
        return engine

    run("canal.pt", epochs=1)
    with pytest.raises(WeightsError, match=r"canal\.pt, fold_0\) than this one .*foramen\.pt, fold_0\).*output_dir"):
        run("foramen.pt", epochs=2)
    with pytest.raises(WeightsError, match=r"canal\.pt, fold_1"):
        run("canal.pt", epochs=2, data="fold_1")
    assert run("canal.pt", epochs=2).state.epoch == 2


def drawn_in(epochs: range, seed: int = 3) -> list[list[float]]:
    """What torch, two sources of the same kind and a shared generator draw in each of some epochs."""
    sources, shared, found = [RandIntensityd(), RandIntensityd()], torch.Generator(), []
    engine = Engine(lambda engine, batch: None)
    EpochSeed(seed, sources=sources, shared=[shared]).attach(engine)

    @engine.on(Events.ITERATION_COMPLETED)
    def _draw() -> None:
        images = [source({"image": torch.ones(1)})["image"] for source in sources]
        found.append([float(value) for value in (torch.rand(()), *images, torch.rand((), generator=shared))])

    @engine.on(Events.STARTED)
    def _go_on(engine: Engine) -> None:
        engine.state.epoch = engine.state.iteration = epochs.start

    engine.run([0], max_epochs=epochs.stop)
    return found


def test_an_epoch_draws_the_same_whether_or_not_the_run_was_killed_before_it() -> None:
    whole, resumed = drawn_in(range(4)), drawn_in(range(2, 4))
    assert resumed == whole[2:]
    assert len({value for epoch in whole for value in epoch}) == 16
    assert drawn_in(range(4), seed=4) != whole


class Scaler:
    """Stands in for the loss scaler of mixed precision, which needs a GPU."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


def test_a_run_in_mixed_precision_goes_on_with_its_scale(tmp_path: Path) -> None:
    first, second = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    first.scaler, second.scaler = Scaler(128.0), Scaler(65536.0)
    LastCheckpoint(tmp_path / "last.pt", {}).attach(first)
    first.run([0])
    LastCheckpoint(tmp_path / "last.pt", {}, resume=True).attach(second)
    second.run([0], max_epochs=2)
    assert second.scaler.scale == 128.0


def test_without_a_checkpoint_a_resumed_run_starts_at_the_beginning(tmp_path: Path) -> None:
    trainer = Engine(lambda engine, batch: None)
    LastCheckpoint(tmp_path / "last.pt", {}, resume=True).attach(trainer)
    assert trainer.run([0], max_epochs=2).epoch == 2


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    trainer = Engine(lambda engine, batch: None)
    LastCheckpoint(path, {}).attach(trainer)
    trainer.run([0], max_epochs=1)
    before = path.read_bytes()

    def full(contents: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        trainer.run([0], max_epochs=2)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["last.pt"]


def test_the_writer_opens_its_file_with_the_first_value(tmp_path: Path) -> None:
    writer = FirstProcessWriter(tmp_path / "runs")
    writer.close()
    assert not (tmp_path / "runs").exists()
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    trainer = Engine(lambda engine, batch: None)
    LogLearningRate(writer, optimizer).attach(trainer)
    trainer.run([0], max_epochs=1)
    writer.close()
    assert len(list((tmp_path / "runs").glob("events.out.tfevents.*"))) == 1
