"""Optimisers by name, so that a config or a search chooses one in a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from monai_spine.errors import TableError
from monai_spine.suggestions import did_you_mean

__all__ = ["OPTIMIZERS", "build_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": AdamW,
    "adam": Adam,
    "rmsprop": RMSprop,
    "sgd": partial(SGD, momentum=0.9, nesterov=False),
}
"""AdamW, Adam, RMSProp, and stochastic gradient descent with a momentum of 0.9."""


def build_optimizer(
    name: str, params: Iterable[Parameter] | Iterable[dict[str, Any]], *, lr: float, weight_decay: float = 0.0
) -> Optimizer:
    """Build an optimiser.

    Args:
        name: One of `OPTIMIZERS`, in capitals or not.
        params: What learns.
        lr: Learning rate.
        weight_decay: Apart from the gradient with AdamW, as a part of it with the others.

    Raises:
        TableError: There is none of this name; the message offers the nearest.
    """
    build = OPTIMIZERS.get(name.strip().lower())
    if build is None:
        hint = did_you_mean(name, OPTIMIZERS)
        raise TableError(f"There is no optimiser {name!r}. {hint}Choose from: {', '.join(OPTIMIZERS)}.")
    return build(params, lr=lr, weight_decay=weight_decay)
