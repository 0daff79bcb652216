"""MONAI's own classifiers as trunks: without their heads, and with strides that spare an axis with few slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai.networks.nets import DenseNet, EfficientNetBN, ResNet, ViT
from torch import nn

from monai_spine.networks.field import Field, Trunk
from monai_spine.networks.layers import global_pool

__all__ = ["VISION_TRANSFORMER", "TokenFeatures", "densenet", "efficientnet", "resnet", "vit"]

VISION_TRANSFORMER = {"hidden_size": 384, "mlp_dim": 1536, "num_layers": 12, "num_heads": 6, "qkv_bias": True}
"""ViT-S: the document gives no numbers, and ViT-B has more weights than its data could teach.

Source: Touvron et al., Training data-efficient image transformers, ICML 2021, table 1 (DeiT-S).
"""

_PATCHES = {2: 14, 3: 7}
"""Patches along the longest axis, by dimensions: 14 × 14 in 2D, as of 16 pixels in 224."""


def resnet(field: Field, in_channels: int, dropout_prob: float, *, block: str, layers: Sequence[int]) -> Trunk:
    """MONAI's ResNet as published: its first convolution halves, and shortcuts have no bias, neither of which is MONAI's default.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, table 1.
    """
    widths = [64, 128, 256, 512]
    network = ResNet(
        block,
        list(layers),
        widths,
        spatial_dims=field.spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
    )
    firsts = [getattr(network, f"layer{stage}")[0] for stage in (2, 3, 4)]
    halving = [[network.conv1], [network.maxpool], *([*_strided(first)] for first in firsts)]
    _restride(halving, field.strides)
    return Trunk(network, widths[-1] * (4 if block == "bottleneck" else 1))


def densenet(field: Field, in_channels: int, dropout_prob: float, *, blocks: Sequence[int]) -> Trunk:
    """MONAI's DenseNet with a growth of 32, as published.

    Source: Huang et al., Densely connected convolutional networks, CVPR 2017, table 1.
    """
    network = DenseNet(field.spatial_dims, in_channels, 1, block_config=tuple(blocks))
    features, width = network.features, network.class_layers.out.in_features
    transitions = [[getattr(features, f"transition{at}").pool] for at in range(1, len(blocks))]
    _restride([[features.conv0], [features.pool0], *transitions], field.strides)
    parts = {"features": features, "relu": network.class_layers.relu, "pool": global_pool(field.spatial_dims)}
    trunk = nn.Sequential()
    for name, part in parts.items():
        trunk.add_module(name, part)
    return Trunk(trunk, width)


def efficientnet(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """MONAI's EfficientNet-B0, padded for what it is shown and not for 224 × 224.

    Batch statistics are taken over with PyTorch's momentum of 0.1, not with the 0.01 of the original: after 150 steps these still
    lagged so far behind that in validation all crops were answered alike.

    Source: Tan, Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019.
    """
    norm = ("batch", {"eps": 1e-3, "momentum": 0.1})
    network = EfficientNetBN("efficientnet-b0", False, spatial_dims=field.spatial_dims, in_channels=in_channels, norm=norm)
    network.set_swish(memory_efficient=False)  # the other cannot be scripted
    width = network._fc.in_features
    network._fc, network._dropout = nn.Identity(), nn.Identity()
    places: list[tuple[Any, str]] = [(network, "_conv_stem")]
    places += [(block, "_depthwise_conv") for stack in network._blocks for block in stack if block.stride != 1]
    size: Sequence[int] = field.shape
    for (holder, name), stride in zip(places, field.strides, strict=True):
        conv = getattr(holder, name)
        _restride([[conv]], [stride])
        setattr(holder, f"{name}_padding", _same_padding(size, conv.kernel_size, stride))
        size = [-(-edge // step) for edge, step in zip(size, stride, strict=True)]
    return Trunk(network, width)


class TokenFeatures(nn.Module):
    """A vision transformer's class token (B, hidden_size) in the place of its answer and hidden states."""

    def __init__(self, network: ViT) -> None:
        super().__init__()
        network.classification_head = nn.Identity()
        for block in network.blocks:
            block.norm_cross_attn = nn.Identity()  # weights that nothing uses
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image)[0]


def vit(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """MONAI's ViT with class token and learnt positions; patches are square, or cubes, and what does not fill one is not seen.

    Source: Dosovitskiy et al., An image is worth 16 × 16 words, ICLR 2021.
    """
    edge = -(-max(field.shape) // _PATCHES[field.spatial_dims])
    network = ViT(
        in_channels,
        field.shape,
        tuple(min(edge, size) for size in field.shape),
        classification=True,
        post_activation="none",
        spatial_dims=field.spatial_dims,
        **VISION_TRANSFORMER,
    )
    return Trunk(TokenFeatures(network), VISION_TRANSFORMER["hidden_size"])


def _strided(block: nn.Module) -> Iterable[nn.Module]:
    """The layers of a block that halve: a convolution, and the one of its shortcut."""
    return (part for part in block.modules() if isinstance(part, (nn.Conv2d, nn.Conv3d)) and max(part.stride) > 1)


def _restride(halving: Iterable[Iterable[Any]], strides: Sequence[tuple[int, ...]]) -> None:
    """Give the layers of each step its stride; pooling without overlap pools over it, and rounds up what is odd."""
    for layers, stride in zip(halving, strides, strict=True):
        for layer in layers:
            layer.stride = stride
            if isinstance(layer, (nn.AvgPool2d, nn.AvgPool3d)):
                layer.kernel_size, layer.ceil_mode = stride, True


def _same_padding(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> nn.Module:
    """Zeros around maps so that a convolution gives as many voxels as it has steps, as TensorFlow's `same`."""
    edges: list[int] = []
    for length, width, step in reversed(list(zip(size, kernel, stride, strict=True))):
        lacking = max((-(-length // step) - 1) * step + width - length, 0)
        edges += [lacking // 2, lacking - lacking // 2]
    return (nn.ConstantPad2d if len(size) == 2 else nn.ConstantPad3d)(tuple(edges), 0.0)
