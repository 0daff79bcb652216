"""What a network takes from a file of weights: all of it, all but the head, or kernels of a 2D network made 3D.

Files of torchvision (VGG, MNASNet, ResNet, DenseNet) are understood by their names: the trunks of `networks.architectures` have
the same, and what torchvision calls `fc` or the last of `classifier` is the head.

A 2D kernel is put into the middle of its 3D kernel along the axis across the slices, with zeros before and behind it. So the 3D
network begins as the 2D network on each slice, pooled over slices: on a crop that is the same in all slices both have the same
features, up to the crop's first and last slice. Repeating the kernel and dividing it by its depth promises that far from the
border only: crops are 16 voxels deep, 2 or 1 after the last pooling, and there the zeros of the padding take a third of each sum
or two. Slices lie 4 mm apart, too, so that a mean over neighbours blurs. How much of them to take, the training finds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_spine.dicom_elements import first_line
from monai_spine.errors import WeightsError
from monai_spine.misfits import misfits_in_words

__all__ = ["HEADS", "Transfer", "inflated", "read_weights", "transfer_weights"]

Weights = Mapping[str, Tensor]

HEADS: tuple[str, ...] = ("class_layers",)
"""Parts that answer for the classes, as MONAI's DenseNet calls them: they begin anew where a file has other classes or none."""

_NESTED = ("network", "state_dict", "model_state_dict", "model")
_LEAST_SHARE = 0.5
_FIRST = ("features.conv0.weight", "features.0.weight", "layers.0.weight", "conv1.weight")
"""The first kernel of a DenseNet, VGG, MNASNet, ResNet."""
_HEAD = re.compile(r"(?:fc|classifier\.[16]|class_layers\.out)\.(weight|bias)")
"""The head of a ResNet; of a MNASNet or a VGG; of a DenseNet."""
_TORCHVISION_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")
_COUNTER = "num_batches_tracked"  # old files lack it, and it changes no answer


@dataclass(frozen=True)
class Transfer:
    """What of a file's weights goes into a network.

    Attributes:
        taken: Tensors for the network, by its own names and shapes.
        inflated: Names of those that were kernels of a 2D network.
        new: The network's names that keep what they were drawn as.
        unused: The file's names that go nowhere.
        share: Of the trunk's weights, by their number, how many are taken.
    """

    taken: dict[str, Tensor]
    inflated: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        """One line: how much is taken, what begins anew, what is not used."""
        kernels = f", {len(self.inflated)} of them 2D kernels made 3D" if self.inflated else ""
        parts = [f"{len(self.taken)} tensors taken{kernels}: {100 * self.share:.0f} % of the trunk"]
        parts += [f"begins anew: {_by_part(self.new)}"] if self.new else []
        parts += [f"not used: {_by_part(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name: a state dict, or the one in a checkpoint, such as `last.pt` with its `network`.

    Names are MONAI's: those of torchvision's DenseNet are turned into them.

    Raises:
        WeightsError: The file cannot be read, holds no state dict, or values that are NaN or infinite.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # unpickling raises errors of many kinds for one cause
        raise WeightsError(
            f"{path} does not fit the network: it cannot be read as weights ({type(error).__name__}: {first_line(error)}). Give "
            "a model.pt, a last.pt, or a state dict saved with torch.save; a model.ts cannot be trained further."
        ) from error
    found = _state_dict_in(content)
    if not found:
        raise WeightsError(
            f"{path} does not fit the network: it holds no state dict, neither itself nor as {', '.join(_NESTED)}. "
            "Save network.state_dict() with torch.save."
        )
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path} cannot be trained further: {len(broken)} of its {len(found)} tensors hold values that are NaN or infinite, "
            f"{broken[0]} the first. Give weights of a training that did not come apart."
        )
    return {_monai_name(name): tensor for name, tensor in found.items()}


def transfer_weights(
    network: nn.Module, weights: Weights, *, through_axis: int | None = None, heads: Sequence[str] = HEADS
) -> Transfer:
    """Find what of given weights a network can take; the network stays as it is.

    Weights of the same kind of network must fit all of its trunk. A head that is missing or has other classes begins anew. From
    a 2D network a 3D one takes as much of the trunk as fits, half of it at least; its head begins anew. Where a DenseNet, ResNet,
    VGG or MNASNet is a part of the network (`trunk.`, `encoder.`, or several branches) or of what was saved (`module.`), the
    weights of one go there. Where the first kernel of a 2D network has other channels than are wanted, its colours are summed.

    Args:
        network: To take the weights.
        weights: Tensors by name, as `read_weights` gives them.
        through_axis: The axis of a crop across its slices (0, 1, 2), for weights of a 2D network.
        heads: Parts that may begin anew.

    Raises:
        WeightsError: Nothing or too little fits; or the weights are 2D and `through_axis` is not given.
    """
    wanted = network.state_dict()
    given, places = _aligned(weights, wanted)
    flat = [name for name, tensor in given.items() if tensor.dim() == 4 and name in wanted and wanted[name].dim() == 5]
    fitting = {name: tensor for name, tensor in given.items() if name in wanted and tensor.shape == wanted[name].shape}
    if flat:
        fitting = _of_same_meaning(fitting, given, wanted, heads) | _inflated_kernels(flat, given, wanted, through_axis)
    result = Transfer(
        taken=fitting,
        inflated=tuple(name for name in flat if name in fitting),
        new=tuple(name for name in wanted if name not in fitting and not name.endswith(_COUNTER)),
        unused=tuple(name for name in given if name not in fitting and not name.endswith(_COUNTER)),
        share=_share(fitting, {name: tensor for name, tensor in wanted.items() if name.startswith(places)}, heads),
    )
    astray = [name for name in (*result.new, *result.unused) if name.startswith(places) and not _is_part(name, heads)]
    if result.share < _LEAST_SHARE or (astray and not flat):
        raise WeightsError(_what_is_astray(result, list(dict.fromkeys(astray)), given, wanted))
    return result


def inflated(kernel: Tensor, shape: Sequence[int], through_axis: int) -> Tensor | None:
    """A 3D kernel that does to each slice what a 2D kernel does.

    Args:
        kernel: (out, in, height, width); height and width become the two axes of a crop within a slice, in their order.
        shape: (out, in, i, j, k) of the 3D kernel.
        through_axis: 0, 1 or 2: which of i, j, k runs across the slices.

    Returns:
        The kernel, or None where the shapes do not fit.
    """
    axis = 2 + through_axis
    if [*kernel.shape[:axis], shape[axis], *kernel.shape[axis:]] != list(shape):
        return None
    result = kernel.new_zeros(*shape)
    result.select(axis, shape[axis] // 2).copy_(kernel)
    return result


def _inflated_kernels(flat: Iterable[str], given: Weights, wanted: Weights, through_axis: int | None) -> dict[str, Tensor]:
    """Those of the 2D kernels that fit, as 3D ones."""
    if through_axis is None:
        raise WeightsError("The weights do not fit the network: they are 2D, and `through_axis` does not say which axis is not.")
    made = {name: inflated(given[name], wanted[name].shape, through_axis) for name in flat}
    return {name: kernel for name, kernel in made.items() if kernel is not None}


def _of_same_meaning(fitting: Weights, given: Weights, wanted: Weights, heads: Sequence[str]) -> dict[str, Tensor]:
    """Without the head, and without a last norm that follows another block: DenseNets of any length call theirs `norm5`."""
    blocks = [{part for name in names for part in name.split(".") if "denseblock" in part} for names in (given, wanted)]
    left = heads if blocks[0] == blocks[1] else (*heads, "features.norm5")
    return {name: tensor for name, tensor in fitting.items() if not _is_part(name, left)}


def _state_dict_in(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one that a checkpoint holds; empty where there is none."""
    if not isinstance(content, Mapping):
        return {}
    nested = next((content[name] for name in _NESTED if isinstance(content.get(name), Mapping)), content)
    return {name: tensor for name, tensor in nested.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def _monai_name(name: str) -> str:
    """A name of torchvision's DenseNet, of any release, as MONAI's says it; other names as they are."""
    return re.sub(r"^classifier\.(?=weight|bias)", "class_layers.out.", _TORCHVISION_LAYER.sub(r"\1.layers.\2\3.", name))


def _aligned(weights: Weights, wanted: Weights) -> tuple[Weights, tuple[str, ...]]:
    """Weights by the names that a network has for them, and what these begin with: the places of its trunks, or nothing."""
    held, places = _places(weights), _places(wanted)
    if next(iter(wanted), "") in weights or len(held) != 1 or not places:
        return _with_channels(weights, wanted, places), ("",)
    bare = {name.removeprefix(held[0]): tensor for name, tensor in weights.items()}
    given = {_named(name, place, wanted): tensor for place in places for name, tensor in bare.items()}
    return _with_channels(given, wanted, places), tuple(places)


def _named(name: str, place: str, wanted: Weights) -> str:
    """What a network calls a part of a trunk at some place; its head may stand beside the trunk."""
    head = _HEAD.fullmatch(name)
    return f"class_layers.out.{head[1]}" if head and f"{place}{name}" not in wanted else f"{place}{name}"


def _places(names: Iterable[str]) -> list[str]:
    """What the names of trunks begin with, each told by its first kernel: not by one that lies deeper within a trunk."""
    found = {name.removesuffix(first) for name in names for first in _FIRST if f".{name}".endswith(f".{first}")}
    return sorted(place for place in found if not any(place != other and place.startswith(other) for other in found))


def _with_channels(given: Weights, wanted: Weights, places: Iterable[str]) -> Weights:
    """Weights whose first 2D kernels have the channels that are wanted.

    Red, green and blue are summed, as a grey picture shows the same in each, and evenly divided among those that are wanted.
    """
    firsts = [f"{place}{first}" for place in places for first in _FIRST]
    other = [name for name in firsts if name in given and name in wanted and given[name].dim() == 4]
    summed = {name: given[name].sum(dim=1, keepdim=True) for name in other if given[name].shape[1] != wanted[name].shape[1]}
    channels = {name: wanted[name].shape[1] for name in summed}
    return {**given, **{name: (tensor / channels[name]).repeat(1, channels[name], 1, 1) for name, tensor in summed.items()}}


def _is_part(name: str, parts: Iterable[str]) -> bool:
    """Whether a name, or what it has after some prefix, is one of some parts or lies in it."""
    return any(f".{part}." in f".{name}." for part in parts)


def _share(taken: Iterable[str], wanted: Weights, heads: Sequence[str]) -> float:
    """Of all numbers outside of the heads, how many are taken."""
    trunk = {name: tensor.numel() for name, tensor in wanted.items() if not _is_part(name, heads)}
    return float(sum(trunk.get(name, 0) for name in taken) / max(1, sum(trunk.values())))


def _by_part(names: Iterable[str]) -> str:
    """The parts that names belong to, with the number of tensors of each."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{part} ({count})" for part, count in counts.items())


def _what_is_astray(result: Transfer, names: Sequence[str], given: Weights, wanted: Weights) -> str:
    return (
        f"The weights do not fit the network: {100 * result.share:.0f} % of its trunk is found in them. What does not fit: "
        f"{misfits_in_words(names, given, wanted)}. Give weights of this network_def, or the network_def of these weights; only "
        "a head may begin anew."
    )
