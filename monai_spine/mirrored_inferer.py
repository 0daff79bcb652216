"""Look at a scan twice, once mirrored from left to right: an `Inferer` for networks whose answers have no side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["MirroredInferer"]

_SAME = 1e-6


class MirroredInferer(Inferer):
    """Average a network's answer to a batch and its answer to the mirrored batch, mirrored back.

    Args:
        axis: Axis of the batch that is mirrored: 2 is R in (B, C, R, A, S).
        mirror_back: Whether answers have that axis too, and are mirrored back.
    """

    def __init__(self, axis: int = 2, *, mirror_back: bool = True) -> None:
        self.axis, self.mirror_back = axis, mirror_back

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Both looks in one pass of the network; one look where the batch is its own mirror image, as pictures are.

        Args:
            inputs: (B, C, R, A, S).
            network: Gives an answer on the grid of its input, or one without places.
            args: Go to the network.
            kwargs: Go to the network.

        Returns:
            The mean of both answers.
        """
        mirrored = inputs.flip(self.axis)
        if torch.allclose(inputs, mirrored, rtol=0.0, atol=_SAME):
            answer = seen_mirrored = network(inputs, *args, **kwargs)
        else:
            answer, seen_mirrored = network(torch.cat([inputs, mirrored]), *args, **kwargs).chunk(2)
        return (answer + (seen_mirrored.flip(self.axis) if self.mirror_back else seen_mirrored)) / 2
