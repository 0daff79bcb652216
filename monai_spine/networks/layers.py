"""Layers that the project's own architectures share, in 2D and 3D alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers.factories import Conv, Norm, Pool
from torch import nn

__all__ = ["convolution", "dense", "global_pool", "he_normal", "max_pool", "normalized"]


def convolution(
    spatial_dims: int,
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: Sequence[int] | int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A convolution that keeps the size, or halves it where `stride` says so."""
    layer: nn.Module = Conv["conv", spatial_dims](
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
    )
    return layer


def normalized(
    spatial_dims: int,
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: Sequence[int] | int = 1,
    groups: int = 1,
    relu: bool = True,
) -> list[nn.Module]:
    """A convolution without bias, batch normalisation and, unless told otherwise, ReLU."""
    layers = [
        convolution(spatial_dims, inputs, outputs, kernel, stride=stride, groups=groups, bias=False),
        Norm["batch", spatial_dims](outputs),
    ]
    return [*layers, nn.ReLU()] if relu else layers


def max_pool(stride: Sequence[int]) -> nn.Module:
    """The largest of every 2 × 2 (× 2) voxels; where `stride` is 1 an axis stays as it is, and what is odd is rounded up."""
    layer: nn.Module = Pool["max", len(stride)](tuple(stride), ceil_mode=True)
    return layer


def global_pool(spatial_dims: int) -> nn.Sequential:
    """The mean over all voxels: (B, C, …) to (B, C)."""
    return nn.Sequential(Pool["adaptiveavg", spatial_dims](1), nn.Flatten(1))


def dense(channels: int, size: Sequence[int], widths: Sequence[int], dropout_prob: float = 0.0) -> nn.Sequential:
    """Maps (B, channels, *size) through linear layers of some widths, each with ReLU, and dropout between them."""
    layers: list[nn.Module] = [nn.Flatten(1)]
    for inputs, outputs in pairwise([channels * math.prod(size), *widths]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout_prob)]
    return nn.Sequential(*layers[:-1])


def he_normal(network: nn.Module) -> None:
    """Draw the kernels of all convolutions so that ReLUs keep the spread of gradients; biases begin at zero.

    Source: He et al., Delving deep into rectifiers, ICCV 2015.
    """
    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
