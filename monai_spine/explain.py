"""Where a network looks (Grad-CAM), what its layers show, and its first filters; in 2D and 3D alike."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn

from monai_spine.ensemble import Ensemble
from monai_spine.errors import ArchitectureError

__all__ = ["class_activation", "feature_maps", "first_filters", "seen_by"]

Array = npt.NDArray[np.float32]
_LEAST = 4
"""Voxels along the longest axis that a layer's maps must have: fewer say nothing of a place."""


def seen_by(network: nn.Module, image: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of a network without the `view` that cuts a slice out of a crop, and what that gives it to see.

    Args:
        network: From crops to logits; it stays as it is.
        image: (1, C, R, A, S) or (1, C, height, width).
    """
    copied = deepcopy(network).eval()
    for part in copied.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # gradients of what is overwritten cannot be had
    view = getattr(copied, "view", None)
    if view is None:
        return copied, image
    rest = nn.Sequential()
    for name, part in copied.named_children():
        if name != "view":
            rest.add_module(name, part)
    return rest, view(image)


def class_activation(network: nn.Module, image: Tensor, answer: int) -> Array:
    """How much each place of what a network sees speaks for an answer: Grad-CAM, scaled from 0 to 1.

    The part that is asked is the last whose maps have at least four voxels along their longest axis; of a vision transformer it
    is the patches, as it has no later map. Of an ensemble it is the mean over its members.

    Args:
        network: From crops to logits.
        image: (1, C, …), on the network's device.
        answer: Place among the logits.

    Returns:
        As many voxels as the network sees: of the crop, or of its slice. All 0 where nothing speaks for the answer.

    Source: Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017.

    Raises:
        ArchitectureError: No layer has maps.
    """
    if isinstance(network, Ensemble):
        return _scaled(np.mean([class_activation(member, image, answer) for member in network.members], axis=0))
    plain, seen = seen_by(network, image)
    layer = list(_maps(plain, seen))[-1]
    asked = seen.detach().clone().requires_grad_()
    found = GradCAM(plain, layer, postprocessing=lambda heat: heat)(asked, class_idx=answer)
    return _scaled(torch.as_tensor(found).detach().cpu()[0, 0].numpy())


def _scaled(heat: npt.NDArray[np.floating]) -> Array:
    """Heat with 1 where it is strongest."""
    strongest = float(heat.max())
    return np.asarray(heat / strongest if strongest > 0 else heat, dtype=np.float32)


def feature_maps(network: nn.Module, image: Tensor, *, layers: int = 3) -> dict[str, Array]:
    """What convolutions show of an image, (channels, …), by their names: the first, the last and some between.

    Of an ensemble its first member is asked.

    Args:
        network: From crops to logits.
        image: (1, C, …), on the network's device.
        layers: How many.

    Raises:
        ArchitectureError: No layer has maps.
    """
    plain, seen = seen_by(network.members[0] if isinstance(network, Ensemble) else network, image)
    maps = _maps(plain, seen, kinds=(nn.Conv2d, nn.Conv3d))
    names = list(maps)
    wanted = np.unique(np.linspace(0, len(names) - 1, layers).round().astype(int))
    return {names[at]: maps[names[at]].cpu().numpy()[0] for at in wanted}


def first_filters(network: nn.Module) -> tuple[str, Array]:
    """The name and the kernels (out, …) of the first convolution, their input channels averaged.

    Raises:
        ArchitectureError: There is no convolution.
    """
    for name, part in network.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            return name, part.weight.detach().mean(dim=1).cpu().numpy()
    raise ArchitectureError("The network has no convolution, so there are no filters to show.")


def _maps(network: nn.Module, image: Tensor, kinds: tuple[type[nn.Module], ...] = (nn.Module,)) -> dict[str, Tensor]:
    """What each part gives that works once and has maps of enough voxels, in the order in which they end their work."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == image.dim() and max(output.shape[2:]) >= _LEAST:
            found.setdefault(name, []).append(output.detach())

    handles = [
        part.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, part in network.named_modules()
        if name and isinstance(part, kinds)
    ]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    once = {name: outputs[0] for name, outputs in found.items() if len(outputs) == 1}
    if not once:
        raise ArchitectureError(
            f"No layer of the network has maps of {_LEAST} voxels or more along an axis: there is no place to point at. "
            "Give the crop more voxels (crop#shape)."
        )
    return once
