"""Where a training begins: from given weights, all of them or a head alone, or from scratch, answering nothing at first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from monai_spine.ensemble import Ensemble
from monai_spine.errors import WeightsError
from monai_spine.training.transfer import Transfer, read_weights, transfer_weights

__all__ = ["freeze_trunk", "start_network"]

_log = logging.getLogger(__name__)


def start_network(
    network: nn.Module,
    pretrained: str | Path | None = None,
    *,
    quiet: torch.Tensor | None = None,
    head: str | None = None,
    through_axis: int | None = None,
) -> None:
    """Load weights into a network; without any, lower a bias so that its maps start near zero, as most voxels are nothing.

    Args:
        network: Changed in place.
        pretrained: A state dict, as a bundle's `models/model.pt`, a checkpoint that holds one, as `last.pt`, or one of a 2D
            network; see `transfer.py`. None starts from scratch.
        quiet: The bias of the last convolution.
        head: The only part that learns, see `freeze_trunk`; None: all of the network learns.
        through_axis: The axis of a crop across its slices, for weights of a 2D network.

    Raises:
        WeightsError: The file cannot be read or belongs to another network; or only the head of an untrained network would learn.
    """
    if head is not None and pretrained is None:
        raise WeightsError(
            f"Only {head!r} would learn, on a trunk that has learnt nothing. Give the first step's weights with --pretrained."
        )
    if pretrained is not None:
        transfer = _transfer(network, pretrained, through_axis)
        network.load_state_dict(transfer.taken, strict=False)
        _log.info("%s: %s", pretrained, transfer)
    elif quiet is not None:
        nn.init.constant_(quiet, -4.0)
    if head is not None:
        freeze_trunk(network, head)


def _transfer(network: nn.Module, pretrained: str | Path, through_axis: int | None) -> Transfer:
    weights = read_weights(pretrained)
    try:
        return transfer_weights(network, weights, through_axis=through_axis)
    except WeightsError as error:
        raise WeightsError(f"{pretrained}: {error} Leave `pretrained` out to train from scratch.") from error


def freeze_trunk(network: nn.Module, head: str) -> None:
    """Let only the head learn; the trunk gives the features that it gives at work: no dropout, no new statistics.

    To be called before the network is wrapped for several processes.

    Args:
        network: Changed in place; of an ensemble each member.
        head: Name of a part, such as `class_layers` of MONAI's DenseNet.

    Raises:
        WeightsError: The network has no such part, or nothing in it can learn.
    """
    if isinstance(network, Ensemble):
        for member in network.members:
            freeze_trunk(member, head)
        return
    kept = [parameter for name, parameter in network.named_parameters() if name.startswith(f"{head}.")]
    if not kept:
        parts = ", ".join(name for name, part in network.named_children() if any(True for _ in part.parameters()))
        raise WeightsError(f"The network has no part {head!r} that can learn. Choose `head` from: {parts}.")
    network.requires_grad_(False)
    for parameter in kept:
        parameter.requires_grad_(True)
    frozen = [part for name, part in network.named_modules() if name and not _related(name, head)]
    network.register_forward_pre_hook(lambda *_: _rest(frozen))


def _related(name: str, head: str) -> bool:
    """Whether a part is the head, lies in it, or holds it."""
    return f"{name}.".startswith(f"{head}.") or head.startswith(f"{name}.")


def _rest(parts: Sequence[nn.Module]) -> None:
    """Bring parts into evaluation mode, whatever mode the network as a whole was put into."""
    for part in parts:
        part.eval()
