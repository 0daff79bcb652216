"""Whether a network can see a crop at all: asked before a training, so that the answer names an axis and not a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from monai_spine.errors import ArchitectureError

__all__ = ["refuse_small_crop"]

_AMPLE = 64
"""Voxels along an axis that every network here can see."""


def refuse_small_crop(network: nn.Module, shape: Sequence[Any]) -> None:
    """Refuse a crop with too few voxels along an axis for all the halvings of a network.

    Args:
        network: Left as it is.
        shape: Voxels of the crop along R, A, S, or pixels of a picture; of several branches a list of such (`branches.py`). What
            is no shape is left to `crops.CropSpec`.

    Raises:
        ArchitectureError: The crop is too small; the message names the axis and the least size.

    Example:
        >>> from torch import nn
        >>> refuse_small_crop(nn.Conv3d(1, 3, kernel_size=5), (4, 8, 8))
        Traceback (most recent call last):
        monai_spine.errors.ArchitectureError: The network cannot see a crop of 4 × 8 × 8 voxels: along R it takes 5 at least, ...
    """
    if not isinstance(shape, Sequence) or not shape:
        return
    branches = len(shape) if isinstance(shape[0], Sequence) else 0
    edges = list(shape[0] if branches else shape)
    if not all(isinstance(edge, int) for edge in edges):
        return
    edges = sorted(edges) if branches else edges
    names = ("the slices' normal", "the slices", "the slices") if branches else ("R", "A", "S")[-len(edges) :]
    was_training = network.training
    network.eval()
    try:
        if not _sees(network, max(1, branches), edges):
            _refuse(network, max(1, branches), edges, names)
    finally:
        network.train(was_training)


def _refuse(network: nn.Module, channels: int, edges: Sequence[int], names: Sequence[str]) -> None:
    """Name the first axis that is too short where the others are not; what fails for another reason fails in the training."""
    ample = [max(_AMPLE, edge) for edge in edges]
    if not _sees(network, channels, ample):
        return
    for axis, edge in enumerate(edges):
        shapes = ([*ample[:axis], size, *ample[axis + 1 :]] for size in range(edge, ample[axis] + 1))
        least = next((one[axis] for one in shapes if _sees(network, channels, one)), edge)
        if least > edge:
            raise ArchitectureError(
                f"The network cannot see a crop of {' × '.join(map(str, edges))} voxels: along {names[axis]} it takes {least} at "
                f"least, and there are {edge}. Give the crop more voxels (--crop#shape), or the network fewer blocks."
            )


def _sees(network: nn.Module, channels: int, edges: Sequence[int]) -> bool:
    parameter = next(network.parameters())
    try:
        with torch.no_grad():
            network(parameter.new_zeros(1, channels, *edges))
    except (RuntimeError, ValueError):
        return False
    return True
