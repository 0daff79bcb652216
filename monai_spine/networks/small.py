"""The small networks of documents 000, 001 and 003: trunks for 2D and 3D that need no more than convolutions and linear layers.

The documents state the kinds and numbers of layers; the widths are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from monai.networks.blocks import ResidualUnit
from torch import nn

from monai_spine.networks.field import Field, Trunk
from monai_spine.networks.layers import convolution, dense, global_pool, max_pool, normalized

__all__ = ["Inception", "cnn", "dense_cnn", "inception_cnn", "mcnn", "mcnn_maps", "residual_cnn", "simple_cnn"]

Between = Callable[[int], list[nn.Module]]


def cnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """Three times convolution, ReLU and pooling, then two linear layers; the head is the third. Document 000."""
    maps = _stages(field, in_channels, lambda channels: [nn.ReLU()])
    return Trunk(nn.Sequential(maps, dense(_WIDTHS[-1], field.last, (256, 64), dropout_prob)), 64)


def mcnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """The `cnn` with GELU and layer normalisation. Document 000."""
    maps = mcnn_maps(field, in_channels)
    return Trunk(nn.Sequential(maps, dense(_WIDTHS[-1], field.last, (256, 64), dropout_prob)), 64)


def mcnn_maps(field: Field, in_channels: int) -> nn.Sequential:
    """Three times convolution, GELU, layer normalisation and pooling: (B, C, …) to (B, 128, …).

    The layer normalisation is over all channels and voxels of each example, with a scale and a shift per channel, so that it fits
    pictures of any size.
    """
    return _stages(field, in_channels, lambda channels: [nn.GELU(), nn.GroupNorm(1, channels)])


def simple_cnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """Three convolutions with ReLU and pooling, two dense layers with dropout. Document 001, first model."""
    maps = _stages(field, in_channels, lambda channels: [nn.ReLU()])
    return Trunk(nn.Sequential(maps, dense(_WIDTHS[-1], field.last, (128, 128), dropout_prob)), 128)


def inception_cnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """Two convolutions, one `Inception` module, each with pooling, and a dense layer. Document 001, second model."""
    dims, pools = field.spatial_dims, [max_pool(stride) for stride in field.strides]
    inception = Inception(dims, 192)
    maps = nn.Sequential(
        *(convolution(dims, in_channels, 64), nn.ReLU(), pools[0]),
        *(convolution(dims, 64, 192), nn.ReLU(), pools[1]),
        *(inception, pools[2]),
    )
    return Trunk(nn.Sequential(maps, dense(inception.channels, field.last, (128,), dropout_prob)), 128)


def dense_cnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """Four pairs of normalised convolutions with pooling, two dense layers with dropout. Document 003."""
    dims, layers, inputs = field.spatial_dims, [], in_channels
    for outputs, stride in zip((32, 64, 128, 256), field.strides, strict=True):
        layers += [*normalized(dims, inputs, outputs), *normalized(dims, outputs, outputs), max_pool(stride)]
        inputs = outputs
    return Trunk(nn.Sequential(nn.Sequential(*layers), dense(inputs, field.last, (512, 128), dropout_prob)), 128)


def residual_cnn(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """A convolution with pooling, three stages of two of MONAI's residual units, the mean over all voxels. Document 003."""
    dims, widths = field.spatial_dims, (32, 64, 128, 256)
    layers = [*normalized(dims, in_channels, widths[0]), max_pool(field.strides[0])]
    for (inputs, outputs), stride in zip(pairwise(widths), field.strides[1:], strict=True):
        layers += [
            ResidualUnit(dims, inputs, outputs, strides=stride, act="relu", norm="batch"),
            ResidualUnit(dims, outputs, outputs, act="relu", norm="batch"),
        ]
    return Trunk(nn.Sequential(nn.Sequential(*layers), global_pool(dims)), widths[-1])


class Inception(nn.Module):
    """What 1 × 1, 3 × 3 and 5 × 5 convolutions and pooling see, side by side.

    The four branches are as in the first module of GoogLeNet: 64 maps by 1 × 1; 128 by 1 × 1 (96) and 3 × 3; 32 by 1 × 1 (16) and
    5 × 5; 32 by pooling and 1 × 1. A ReLU follows each convolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Maps that it is given.

    Source: Szegedy et al., Going deeper with convolutions, CVPR 2015, table 1, inception (3a).
    """

    channels = 64 + 128 + 32 + 32

    def __init__(self, spatial_dims: int, in_channels: int) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
            return [convolution(spatial_dims, inputs, outputs, kernel), nn.ReLU()]

        pool = (nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d)(3, stride=1, padding=1)
        self.branches = nn.ModuleList(
            nn.Sequential(*layers)
            for layers in (
                layer(in_channels, 64, 1),
                layer(in_channels, 96, 1) + layer(96, 128, 3),
                layer(in_channels, 16, 1) + layer(16, 32, 5),
                [pool, *layer(in_channels, 32, 1)],
            )
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (B, 256, …) of maps (B, in_channels, …)."""
        return torch.cat([branch(maps) for branch in self.branches], dim=1)


_WIDTHS = (32, 64, 128)


def _stages(field: Field, in_channels: int, between: Between) -> nn.Sequential:
    """Convolutions, each with what follows it and pooling."""
    layers: list[nn.Module] = []
    for (inputs, outputs), stride in zip(pairwise((in_channels, *_WIDTHS)), field.strides, strict=True):
        layers += [convolution(field.spatial_dims, inputs, outputs), *between(outputs), max_pool(stride)]
    return nn.Sequential(*layers)
