"""Where a training begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_spine.errors import WeightsError
from monai_spine.training.starting import start_network


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
    with pytest.raises(WeightsError, match="does not fit the network"):
        start_network(nn.Linear(3, 2), path)
