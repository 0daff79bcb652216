"""Every architecture by one name, for pictures and crops: what `configs/architectures` and comparisons build.

A network is `view` (the middle slice of a crop, where the network is a 2D one), `trunk` and `class_layers`: whoever trains the
head alone, takes features or starts from other weights finds the same parts in each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from monai_spine.errors import ArchitectureError
from monai_spine.networks.field import Field, Trunk, field_of
from monai_spine.networks.kan import SplineLinear, ckan
from monai_spine.networks.middle_slice import MiddleSlice
from monai_spine.networks.mnasnet import mnasnet
from monai_spine.networks.monai_trunks import densenet, efficientnet, resnet, vit
from monai_spine.networks.small import cnn, dense_cnn, inception_cnn, mcnn, residual_cnn, simple_cnn
from monai_spine.networks.two_heads import TwoHeads
from monai_spine.networks.vgg import VGG11, VGG16, vgg
from monai_spine.suggestions import did_you_mean

__all__ = ["ARCHITECTURES", "Architecture", "architecture", "build_network"]


def _linear_head(features: int, classes: Sequence[int], dropout_prob: float) -> nn.Module:
    """Dropout and a linear layer; several heads side by side for several questions."""
    if len(classes) > 1:
        return TwoHeads(nn.Identity(), features=features, classes=classes, dropout_prob=dropout_prob, activated=False)
    return nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout_prob), out=nn.Linear(features, classes[0])))


def _spline_head(features: int, classes: Sequence[int], dropout_prob: float) -> nn.Module:
    """A spline-linear layer; the answers to several questions stand side by side."""
    return SplineLinear(features, sum(classes))


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry.

    Attributes:
        name: As in `configs/architectures` and on the command line.
        trunk: Builds the trunk from what it is shown, its channels and the share of dropout.
        steps: How often it halves what it is shown.
        source: Where it comes from.
        head: Builds the head from its features, the classes of each question and the share of dropout.
    """

    name: str
    trunk: Callable[[Field, int, float], Trunk]
    steps: int
    source: str
    head: Callable[[int, Sequence[int], float], nn.Module] = _linear_head


def _resnet(name: str, block: str, layers: Sequence[int], source: str) -> Architecture:
    return Architecture(name, partial(resnet, block=block, layers=layers), 5, source)


ARCHITECTURES: Mapping[str, Architecture] = {
    one.name: one
    for one in (
        Architecture("cnn", cnn, 3, "document 000"),
        Architecture("mcnn", mcnn, 3, "document 000"),
        Architecture("ckan", ckan, 3, "document 000; Liu 2025", _spline_head),
        Architecture("simple_cnn", simple_cnn, 3, "document 001"),
        Architecture("inception_cnn", inception_cnn, 3, "document 001; Szegedy 2015"),
        Architecture("dense_cnn", dense_cnn, 4, "document 003"),
        Architecture("residual_cnn", residual_cnn, 4, "document 003"),
        Architecture("vgg11", partial(vgg, stages=VGG11), 5, "document 004; Simonyan 2015"),
        Architecture("vgg16", partial(vgg, stages=VGG16), 5, "documents 001 and 004; Simonyan 2015"),
        Architecture("mnasnet0_75", partial(mnasnet, width=0.75), 5, "document 004; Tan 2018"),
        Architecture("mnasnet1_0", partial(mnasnet, width=1.0), 5, "document 004; Tan 2018"),
        _resnet("resnet18", "basic", (2, 2, 2, 2), "document 000; He 2016; MONAI"),
        _resnet("resnet50", "bottleneck", (3, 4, 6, 3), "document 003; He 2016; MONAI"),
        _resnet("resnet101", "bottleneck", (3, 4, 23, 3), "document 004; He 2016; MONAI"),
        _resnet("resnet152", "bottleneck", (3, 8, 36, 3), "document 004; He 2016; MONAI"),
        Architecture("vit", vit, 0, "document 000; Dosovitskiy 2021; MONAI"),
        Architecture("densenet121", partial(densenet, blocks=(6, 12, 24, 16)), 5, "document 002; Huang 2017; MONAI"),
        Architecture("densenet169", partial(densenet, blocks=(6, 12, 32, 32)), 5, "document 002; Huang 2017; MONAI"),
        Architecture("efficientnet", efficientnet, 5, "document 001, next steps; Tan 2019 (B0); MONAI"),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        ArchitectureError: There is none; the message offers the nearest.
    """
    found = ARCHITECTURES.get(name.strip().lower())
    if found is None:
        hint = did_you_mean(name, ARCHITECTURES)
        raise ArchitectureError(f"There is no architecture {name!r}. {hint}Choose from: {', '.join(ARCHITECTURES)}.")
    return found


def build_network(
    name: str,
    *,
    shape: Sequence[int],
    spatial_dims: int,
    in_channels: int = 1,
    out_channels: int | Sequence[int] = 3,
    slice_axis: int | None = None,
    dropout_prob: float = 0.0,
) -> nn.Module:
    """Build a network that fits a crop or a picture.

    Args:
        name: Of an architecture.
        shape: Voxels of the crop along R, A, S, or pixels of the picture: two numbers.
        spatial_dims: 3: a crop is seen as a volume. 2: a picture, or the slice through the middle of a crop.
        in_channels: Of the crop or picture.
        out_channels: Classes, or the classes of each head (condition, severity): their logits then stand side by side.
        slice_axis: The axis of a crop across its slices; None: the one with the fewest voxels, the first of several.
        dropout_prob: Share of the features that the head does without in training, and between linear layers before it.

    Returns:
        (B, in_channels, *shape) to logits (B, sum of out_channels).

    Raises:
        ArchitectureError: The architecture is unknown, or does not fit the shape; the message names the axis and the least size.

    Example:
        >>> import torch
        >>> network = build_network("cnn", shape=(16, 56, 56), spatial_dims=2, out_channels=(5, 3))
        >>> network(torch.zeros(2, 1, 16, 56, 56)).shape
        torch.Size([2, 8])
    """
    chosen = architecture(name)
    edges = _checked(shape, spatial_dims, slice_axis)
    thin = slice_axis if slice_axis is not None or len(edges) == 2 else edges.index(min(edges))
    axes, parts = ["R", "A", "S"] if len(edges) == 3 else ["height", "width"], OrderedDict[str, nn.Module]()
    if thin is not None and spatial_dims == 2:
        parts["view"] = MiddleSlice(thin)
        kept = [axis for axis in range(3) if axis != thin]
        edges, axes = [edges[axis] for axis in kept], [axes[axis] for axis in kept]
    try:
        field = field_of(edges, chosen.steps, axes=axes, slice_axis=thin if spatial_dims == 3 else None)
    except ArchitectureError as error:
        raise ArchitectureError(f"{chosen.name} does not fit: {error} {_way_out(max(edges))}") from error
    classes = [out_channels] if isinstance(out_channels, int) else list(out_channels)
    parts["trunk"], features = chosen.trunk(field, in_channels, float(dropout_prob))
    parts["class_layers"] = chosen.head(features, classes, float(dropout_prob))
    return nn.Sequential(parts)


def _checked(shape: Sequence[int], spatial_dims: int, slice_axis: int | None) -> list[int]:
    """The shape, of two or three whole numbers that can be seen in so many dimensions."""
    if not all(isinstance(edge, int) and edge > 0 for edge in shape) or len(shape) not in (2, 3):
        raise ArchitectureError(f"An architecture looks at a crop of 3 edges or a picture of 2, in voxels, got {list(shape)}.")
    if spatial_dims not in (2, 3) or spatial_dims > len(shape):
        raise ArchitectureError(f"spatial_dims must be 2, or 3 for a crop of 3 edges, got {spatial_dims} for {list(shape)}.")
    if slice_axis is not None and (len(shape) == 2 or slice_axis not in range(3)):
        raise ArchitectureError(f"slice_axis must be 0, 1 or 2, of a crop of 3 edges, got {slice_axis} for {list(shape)}.")
    return list(shape)


def _way_out(longest: int) -> str:
    fitting = [one.name for one in ARCHITECTURES.values() if 2**one.steps <= longest]
    return f"Give the crop more voxels (crop#shape), or choose an architecture that fits: {', '.join(fitting)}."
