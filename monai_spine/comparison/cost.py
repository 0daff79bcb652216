"""What a network costs: weights, operations, and milliseconds for one crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "cost_of"]

_WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """Of one network.

    Attributes:
        parameters: Weights.
        flops: Operations for one crop, a multiplication and an addition counted as two; those of convolutions and products of
            matrices, which are nearly all.
        inference_ms: One crop at a time, median.
    """

    parameters: int
    flops: int
    inference_ms: float


def cost_of(network: nn.Module, shape: Sequence[int], *, device: torch.device | str = "cpu", repeats: int = 15) -> Cost:
    """Measure a network.

    Args:
        network: Put into evaluation mode and onto the device.
        shape: Of one crop with its channel, (C, …).
        device: Where it works.
        repeats: Runs of which the median is taken, after three that count for nothing.
    """
    network, image = network.to(device).eval(), torch.zeros(1, *shape, device=device)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            network(image)
        times = [_milliseconds(network, image) for _ in range(repeats)]
    with torch.no_grad(), counter:
        network(image)
    return Cost(sum(weight.numel() for weight in network.parameters()), counter.get_total_flops(), median(times))


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    begun = perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return 1000 * (perf_counter() - begun)
