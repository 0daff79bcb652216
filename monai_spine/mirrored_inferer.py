"""Look at a scan twice, once mirrored from left to right: an `Inferer` for networks whose answers have no side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["MirroredInferer"]


class MirroredInferer(Inferer):
    """Average a network's answer to a batch and its answer to the mirrored batch, mirrored back.

    Args:
        axis: Axis of the batch that is mirrored: 2 is R in (B, C, R, A, S).
        mirror_back: Whether answers have that axis too, and are mirrored back.
    """

    def __init__(self, axis: int = 2, *, mirror_back: bool = True) -> None:
        self.axis, self.mirror_back = axis, mirror_back

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Both looks in one pass of the network.

        Args:
            inputs: (B, C, R, A, S).
            network: Gives an answer on the grid of its input, or one without places.
            args: Go to the network.
            kwargs: Go to the network.

        Returns:
            The mean of both answers.
        """
        answers = network(torch.cat([inputs, inputs.flip(self.axis)]), *args, **kwargs)
        seen, mirrored = answers.chunk(2)
        return (seen + (mirrored.flip(self.axis) if self.mirror_back else mirrored)) / 2
