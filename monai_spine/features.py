"""What a grader's last layer looks at: the features behind an answer, taken while the network runs as it always does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from monai_spine.anatomy import Severity
from monai_spine.errors import WeightsError

__all__ = ["Features", "last_layer", "watching"]


class Features:
    """Features of the crops that a network saw since they were last taken.

    Args:
        width: Number of features of a crop.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._calls: list[torch.Tensor] = []

    def add(self, features: torch.Tensor) -> None:
        """Keep the features (N, F) of one call."""
        self._calls.append(features.detach().flatten(1).float().cpu())

    def take(self, count: int) -> torch.Tensor:
        """Features (`count`, F) float32 of so many crops, and forget them. Of several passes over the same crops, the mean.

        Raises:
            WeightsError: The network did not look at each crop equally often.
        """
        calls, self._calls = self._calls, []
        seen = sum(map(len, calls))
        if count == 0 == seen:
            return torch.zeros(0, self.width)
        if count == 0 or seen == 0 or seen % count:
            raise WeightsError(
                f"A network gave features of {seen} crops where {count} were graded, so that nobody knows which belong to which. "
                "Leave the study head out, or use a grader that sees each crop once."
            )
        return torch.cat(calls).unflatten(0, (seen // count, count)).mean(dim=0)


def last_layer(network: nn.Module) -> nn.Linear:
    """The linear layer that gives the three answers; what it is given are the features.

    Raises:
        WeightsError: The network has none.
    """
    layers = [part for part in network.modules() if isinstance(part, nn.Linear) and part.out_features == len(Severity)]
    if not layers:
        raise WeightsError(
            f"{type(network).__name__} ends in no linear layer with {len(Severity)} outputs, so that it has no features for a "
            "study head. Leave the study head out, or use a grader that ends in one."
        )
    return layers[-1]


@contextmanager
def watching(network: nn.Module) -> Iterator[Features]:
    """Take down the features of all crops that a network sees meanwhile; what it answers stays the same.

    Raises:
        WeightsError: The network has no last layer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
        >>> with watching(network) as features:
        ...     answers = network(torch.ones(2, 2, 2, 2))
        >>> features.take(2).shape
        torch.Size([2, 8])
    """
    layer = last_layer(network)
    features = Features(layer.in_features)

    def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
        features.add(given[0])

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield features
    finally:
        handle.remove()
