"""What of given weights does not fit a network, in words: names with the shapes on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["misfits", "misfits_in_words", "why_not"]

_NAMED = 5


def misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names that one side lacks or has in another shape: those of the network first, then those that only the file has.

    Args:
        given: Tensors of a file.
        wanted: Those of the network.
    """
    differing = [name for name, tensor in wanted.items() if name not in given or given[name].shape != tensor.shape]
    return (*differing, *(name for name in given if name not in wanted))


def misfits_in_words(names: Sequence[str], given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """`fc.weight (5 × 16 in the file, 3 × 16 in the network), …`: the first five names, and how many more there are.

    Args:
        names: Of `misfits`, or some of them.
        given: Tensors of a file.
        wanted: Those of the network.
    """
    lines = [f"{name} ({_shape(given, name)} in the file, {_shape(wanted, name)} in the network)" for name in names[:_NAMED]]
    return f"{', '.join(lines)}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"


def why_not(state: Any, network: nn.Module, error: Exception) -> str:
    """Why weights could not be loaded: the tensors that differ, or the error where nothing was read or none differs.

    Args:
        state: What was read of the file, if anything.
        network: What it was to be loaded into.
        error: What was raised.
    """
    if isinstance(state, Mapping) and all(hasattr(value, "shape") for value in state.values()):
        wanted = network.state_dict()
        differing = misfits(state, wanted)
        if differing:
            return misfits_in_words(differing, state, wanted)
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "nothing"
    return " × ".join(map(str, tensors[name].shape)) or "one number"
