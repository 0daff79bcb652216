"""Where the trunks of a network of several branches begin: each from a grader that looks at one series alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from monai_spine.errors import WeightsError
from monai_spine.networks.two_branch import TwoBranchDenseNet
from monai_spine.training.transfer import read_weights

__all__ = ["start_branches"]

_log = logging.getLogger(__name__)


def start_branches(network: TwoBranchDenseNet, weights: Sequence[str | Path | None], shapes: Sequence[Sequence[int]]) -> None:
    """Load a grader's trunk into each branch. Its head stays behind; its kernels are turned as `branches.stacked` turns crops.

    Args:
        network: Changed in place.
        weights: A DenseNet's `model.pt` for each branch; None leaves that one as it is.
        shapes: Voxels of each branch's crop along R, A, S.

    Raises:
        WeightsError: There is not one entry or one shape for each branch, or a file cannot be read or holds another network.
    """
    if len(shapes) != len(network.trunks) or not all(isinstance(shape, Sequence) for shape in shapes):
        raise WeightsError(
            f"crop#shape is {list(shapes)}: give one shape for each of the {len(network.trunks)} branches, such as "
            "[[16,56,56],[56,56,16]]."
        )
    if len(weights) != len(network.trunks):
        raise WeightsError(
            f"trunk_weights has {len(weights)} entries for {len(network.trunks)} branches. Give one for each, null for none."
        )
    for trunk, path, shape in zip(network.trunks, weights, shapes, strict=True):
        if path is None:
            continue
        across = 2 + int(np.argmin(shape))
        taken = {name: _turned(value, across) for name, value in read_weights(path).items() if name.startswith("features.")}
        try:
            trunk.load_state_dict(taken)
        except RuntimeError as error:
            raise WeightsError(
                f"{path} is no trunk for a branch: {error}. Give the weights of a grader with the same `network_def`, or null."
            ) from error
        _log.info("%s: the trunk of a branch, %d tensors", path, len(taken))


def _turned(value: torch.Tensor, across: int) -> torch.Tensor:
    """A 3D kernel with the axis across the slices first, as its crop has it in a network of several branches."""
    return value.movedim(across, 2).contiguous() if value.ndim == 5 else value
