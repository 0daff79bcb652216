"""What a network is shown, and how it halves that step by step: the same rule for pictures, thin crops and cubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from monai_spine.errors import ArchitectureError

__all__ = ["Field", "Trunk", "field_of"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """What a network is shown, and its steps down.

    Attributes:
        shape: Voxels (pixels) along each axis.
        strides: Of each step that halves, along each axis: 2, or 1 where the axis stays as it is.
        slice_axis: In 3D the axis across the slices.
    """

    shape: Shape
    strides: tuple[Shape, ...] = ()
    slice_axis: int | None = None

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def last(self) -> Shape:
        """Voxels along each axis after all steps; what is odd is rounded up."""
        size = self.shape
        for stride in self.strides:
            size = _after(size, stride)
        return size


class Trunk(NamedTuple):
    """The part of a network that looks: from (B, C, …) to features (B, `features`)."""

    module: nn.Module
    features: int


def field_of(shape: Sequence[int], steps: int, *, axes: Sequence[str], slice_axis: int | None = None) -> Field:
    """Plan the steps of a network: each halves the longest axis, and with it every axis that has more than half as many voxels.

    What is square or cubic is halved along all axes, as the published networks do. A crop with few slices keeps them until its
    other axes have come down to their number, so that deep networks fit it.

    Args:
        shape: Voxels along each axis.
        steps: How often the network halves.
        axes: Names of the axes, for the error.
        slice_axis: In 3D the axis across the slices.

    Raises:
        ArchitectureError: The longest axis is too short for so many steps.

    Example:
        >>> field_of((16, 56, 56), 3, axes="RAS").strides
        ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    """
    size, least = tuple(int(edge) for edge in shape), 2**steps
    longest = max(range(len(size)), key=size.__getitem__)
    if size[longest] < least:
        raise ArchitectureError(
            f"it halves what it is shown {steps} times and needs at least {least} voxels along {axes[longest]}, the longest "
            f"axis, where {' × '.join(map(str, size))} voxels ({' × '.join(axes)}) have {size[longest]}."
        )
    strides = []
    for _ in range(steps):
        strides.append(tuple(2 if 2 * edge > max(size) else 1 for edge in size))
        size = _after(size, strides[-1])
    return Field(shape=tuple(int(edge) for edge in shape), strides=tuple(strides), slice_axis=slice_axis)


def _after(size: Shape, stride: Shape) -> Shape:
    return tuple(-(-edge // step) for edge, step in zip(size, stride, strict=True))
