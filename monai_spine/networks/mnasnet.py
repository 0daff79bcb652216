"""MNASNet (B1) for 2D and 3D, with torchvision's names for its weights.

Source: Tan et al., MnasNet: platform-aware neural architecture search for mobile, arXiv 1807.11626v1, 2018, whose layers the
authors' code calls `mnasnet_b1`. Figure 7 of the paper at CVPR 2019 shows another network, A1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from monai_spine.networks.field import Field, Trunk
from monai_spine.networks.layers import global_pool, he_normal, normalized

__all__ = ["InvertedResidual", "mnasnet"]

_STEM = (32, 16)
_STACKS = ((24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1))
"""Channels, kernel, stride, expansion and number of blocks."""
_FEATURES = 1280


class InvertedResidual(nn.Module):
    """Channels are multiplied, each is filtered by itself, and they are brought back; what came in is added where it fits.

    Args:
        spatial_dims: 2 or 3.
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Edge of the filters.
        stride: Of the filters, along each axis.
        expansion: By what the channels are multiplied.
    """

    def __init__(
        self, spatial_dims: int, inputs: int, outputs: int, *, kernel: int, stride: Sequence[int], expansion: int
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.added = inputs == outputs and max(stride) == 1
        self.layers = nn.Sequential(
            *normalized(spatial_dims, inputs, inner, 1),
            *normalized(spatial_dims, inner, inner, kernel, stride=stride, groups=inner),
            *normalized(spatial_dims, inner, outputs, 1, relu=False),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (B, outputs, …) of maps (B, inputs, …)."""
        return self.layers(maps) + maps if self.added else self.layers(maps)


def mnasnet(field: Field, in_channels: int, dropout_prob: float, *, width: float) -> Trunk:
    """All of MNASNet but its linear layer.

    Batch statistics are taken over with PyTorch's momentum of 0.1, not with the 0.0003 of the original: they have to follow
    trainings of a few hundred steps.

    Args:
        field: With five steps.
        in_channels: Of what it is shown.
        dropout_prob: Not used: the only dropout is that of the head.
        width: By what the channels are multiplied, such as 0.75; the result is a multiple of 8.
    """
    dims, strides, still = field.spatial_dims, list(field.strides), (1,) * field.spatial_dims
    widths = [_rounded(width * channels) for channels in (*_STEM, *(stack[0] for stack in _STACKS))]
    layers = [
        *normalized(dims, in_channels, widths[0], stride=strides.pop(0)),
        *normalized(dims, widths[0], widths[0], groups=widths[0]),
        *normalized(dims, widths[0], widths[1], 1, relu=False),
    ]
    for (inputs, outputs), (_, kernel, step, expansion, count) in zip(pairwise(widths[1:]), _STACKS, strict=True):
        first = strides.pop(0) if step == 2 else still
        blocks = [(inputs, first), *[(outputs, still)] * (count - 1)]
        layers.append(
            nn.Sequential(
                *(
                    InvertedResidual(dims, channels, outputs, kernel=kernel, stride=stride, expansion=expansion)
                    for channels, stride in blocks
                )
            )
        )
    layers += normalized(dims, widths[-1], _FEATURES, 1)
    trunk = nn.Sequential(OrderedDict(layers=nn.Sequential(*layers), pool=global_pool(dims)))
    he_normal(trunk)
    return Trunk(trunk, _FEATURES)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, and never less than nine tenths of what was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
