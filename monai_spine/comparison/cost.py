"""What a network costs: weights, operations, and milliseconds for one crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_spine import __version__
from monai_spine.device import model_of

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
        device: Model of the processor or GPU that this was measured on; None where it was not written down.
        threads: Of a processor; None for a GPU.
        versions: Of monai_spine and torch.
    """

    parameters: int
    flops: int
    inference_ms: float
    device: str | None = None
    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured_on(self) -> str:
        """For people: `AMD EPYC, 1 thread; monai_spine 0.5.0, torch 2.8.0`."""
        if self.device is None:
            return "what is not written down"
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.device}{threads}; {', '.join(f'{name} {version}' for name, version in self.versions.items())}"


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
    return Cost(
        parameters=sum(weight.numel() for weight in network.parameters()),
        flops=counter.get_total_flops(),
        inference_ms=median(times),
        device=model_of(str(device)),
        threads=None if image.is_cuda else torch.get_num_threads(),
        versions={"monai_spine": __version__, "torch": torch.__version__},
    )


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    begun = perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return 1000 * (perf_counter() - begun)
