"""VGG for 2D and 3D, with torchvision's names for its weights.

Source: Simonyan, Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015, table 1, A and D.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from monai.networks.layers.factories import Pool
from torch import nn

from monai_spine.networks.field import Field, Trunk
from monai_spine.networks.layers import convolution, he_normal, max_pool

__all__ = ["VGG11", "VGG16", "vgg"]

VGG11 = (1, 1, 2, 2, 2)
VGG16 = (2, 2, 3, 3, 3)
"""Convolutions before each pooling."""

_WIDTHS = (64, 128, 256, 512, 512)
_POOLED = 7


def vgg(field: Field, in_channels: int, dropout_prob: float, *, stages: Sequence[int], hidden: int = 4096) -> Trunk:
    """All of VGG but its last linear layer.

    Its maps are brought to 7 × 7 before the linear layers, in 3D to one slice of 7 × 7, so that these are the same in 2D and 3D.

    Args:
        field: With five steps.
        in_channels: Of what it is shown.
        dropout_prob: Between the linear layers.
        stages: Convolutions before each pooling.
        hidden: Width of the linear layers.
    """
    layers: list[nn.Module] = []
    inputs = in_channels
    for count, outputs, stride in zip(stages, _WIDTHS, field.strides, strict=True):
        for _ in range(count):
            layers += [convolution(field.spatial_dims, inputs, outputs), nn.ReLU()]
            inputs = outputs
        layers.append(max_pool(stride))
    pooled = [1 if axis == field.slice_axis else _POOLED for axis in range(field.spatial_dims)]
    trunk = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*layers),
            avgpool=Pool["adaptiveavg", field.spatial_dims](tuple(pooled)),
            flatten=nn.Flatten(1),
            classifier=nn.Sequential(
                *(nn.Linear(inputs * math.prod(pooled), hidden), nn.ReLU(), nn.Dropout(dropout_prob)),
                *(nn.Linear(hidden, hidden), nn.ReLU()),
            ),
        )
    )
    he_normal(trunk)
    return Trunk(trunk, hidden)
