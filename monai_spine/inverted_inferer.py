"""Look at a scan twice, once with its grey scale upside down: an `Inferer` for networks that learnt from both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

__all__ = ["InvertedInferer", "inverted"]

_AIR = 0.04


def inverted(image: torch.Tensor) -> torch.Tensor:
    """Turn intensities from 0 to 1 upside down, so that the brightest tissue is the darkest; air stays black."""
    return torch.where(image > _AIR, 1 + _AIR - image, image)


class InvertedInferer(Inferer):
    """Average a network's answer to a batch, and its answer to the batch with its grey scale upside down.

    Which tissue is bright differs from one kind of sequence to another, what lies where does not. On a kind that training did not
    have, the inverted image may be the more familiar one.

    Args:
        inferer: How each of the two is looked at. None: in one pass.
    """

    def __init__(self, inferer: Inferer | None = None) -> None:
        self.inferer = SimpleInferer() if inferer is None else inferer

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The mean of both answers.

        Args:
            inputs: (B, C, R, A, S), values from 0 to 1.
            network: Gives an answer to such a batch.
            args: Go to the network.
            kwargs: Go to the network.
        """
        answers = [self.inferer(batch, network, *args, **kwargs) for batch in (inputs, inverted(inputs))]
        return torch.stack(answers).mean(dim=0)
