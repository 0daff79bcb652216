"""Where a training begins."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_spine.ensemble import Ensemble
from monai_spine.errors import WeightsError
from monai_spine.training.starting import freeze_trunk, start_network


def test_given_weights_are_loaded(tmp_path: Path) -> None:
    source, network = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    start_network(network, tmp_path / "model.pt", quiet=network.bias)
    assert torch.equal(network.weight, source.weight)
    assert torch.equal(network.bias, source.bias)


def test_a_network_from_scratch_answers_nothing_at_first() -> None:
    network = nn.Linear(3, 2)
    start_network(network, quiet=network.bias)
    assert network(torch.zeros(1, 3)).sigmoid().max() < 0.02


@pytest.mark.parametrize("contents", ["another network", "text", None])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, contents: str | None) -> None:
    path = tmp_path / "model.pt"
    if contents == "another network":
        torch.save(nn.Linear(4, 2).state_dict(), path)
    elif contents is not None:
        path.write_text(contents)
    with pytest.raises(WeightsError, match="not fit the network"):
        start_network(nn.Linear(3, 2), path)


@pytest.mark.parametrize("text", ["hello", "To whom it may concern", "12"])
def test_a_text_for_weights_is_refused_whatever_it_says(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.pt").write_text(text)
    with pytest.raises(
        WeightsError, match=r"model\.pt does not fit the network: it cannot be read as weights \(\w+: .*\)\. Give a"
    ):
        start_network(nn.Linear(3, 2), tmp_path / "model.pt")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    source = nn.Linear(3, 2)
    nn.init.constant_(source.bias, value)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        WeightsError, match=r"model\.pt .*1 of its 2 tensors hold values that are NaN or infinite, bias the first"
    ):
        start_network(nn.Linear(3, 2), tmp_path / "model.pt")


def trunk_and_head() -> nn.Sequential:
    trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    return nn.Sequential(OrderedDict(trunk=trunk, head=nn.Sequential(nn.ReLU(), nn.Linear(8, 3))))


def test_a_frozen_trunk_stays_as_it_is_while_the_head_learns(tmp_path: Path) -> None:
    network = trunk_and_head()
    torch.save(network.state_dict(), tmp_path / "step_one.pt")
    start_network(network, tmp_path / "step_one.pt", head="head")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    network.train()
    seen = torch.randn(16, 4)
    nn.functional.cross_entropy(network(seen), torch.arange(16) % 3).backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.1.weight", "head.1.bias"}


def test_a_frozen_trunk_gives_in_training_the_features_that_it_gives_at_work() -> None:
    network = trunk_and_head()
    freeze_trunk(network, "head")
    seen = torch.randn(16, 4)
    in_training = network.train()(seen)
    assert torch.equal(in_training, network.eval()(seen))
    assert network.train().head.training


def test_of_an_ensemble_each_member_keeps_its_trunk_and_learns_with_its_head() -> None:
    ensemble = Ensemble([trunk_and_head(), trunk_and_head()])
    freeze_trunk(ensemble, "head")
    learning = {name for name, value in ensemble.named_parameters() if value.requires_grad}
    assert learning == {f"members.{number}.head.1.{what}" for number in range(2) for what in ("weight", "bias")}
    ensemble.train()(torch.randn(4, 4))
    assert [member.trunk.training for member in ensemble.members] == [False, False]


def test_dropout_within_the_head_goes_on() -> None:
    network = nn.Sequential(OrderedDict(trunk=nn.Linear(4, 64), head=nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3))))
    freeze_trunk(network, "head")
    seen = torch.randn(16, 4)
    assert not torch.equal(network.train()(seen), network.eval()(seen))


def test_a_part_that_is_not_there_or_an_untrained_trunk_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no part 'neck' that can learn. Choose `head` from: trunk, head"):
        freeze_trunk(trunk_and_head(), "neck")
    with pytest.raises(WeightsError, match=r"a trunk that has learnt nothing. Give .* --pretrained"):
        start_network(trunk_and_head(), head="head")
