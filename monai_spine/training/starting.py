"""Where a training begins: from given weights, or from scratch with a network that first answers nothing."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from monai_spine.errors import WeightsError

__all__ = ["start_network"]


def start_network(network: nn.Module, pretrained: str | Path | None = None, *, quiet: torch.Tensor | None = None) -> None:
    """Load weights into a network; without any, lower a bias so that its maps start near zero, as most voxels are nothing.

    Args:
        network: Changed in place.
        pretrained: A state dict, as a bundle's `models/model.pt`; None starts from scratch.
        quiet: The bias of the last convolution.

    Raises:
        WeightsError: The file cannot be read or belongs to another network.
    """
    if pretrained is not None:
        try:
            network.load_state_dict(torch.load(pretrained, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, ValueError, IndexError, UnpicklingError) as error:
            raise WeightsError(
                f"{pretrained} does not fit the network: {error}. Give the model.pt of a bundle with this network_def, or "
                "leave `pretrained` out to train from scratch."
            ) from error
    elif quiet is not None:
        nn.init.constant_(quiet, -4.0)
