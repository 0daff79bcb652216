"""Several networks that answer as one: their probabilities are averaged, not their logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

__all__ = ["Ensemble", "joined_state", "mean_logits"]


def mean_logits(answers: torch.Tensor, heads: list[int] | None = None) -> torch.Tensor:
    """Logits whose softmax is the mean of the answers' probabilities.

    Args:
        answers: Logits (K, B, C) of K answers to the same batch.
        heads: How many of the C classes each question has, where there are several: each has a softmax of its own.

    Returns:
        (B, C), the logarithms of the mean probabilities.
    """
    parts = torch.split(answers, [answers.shape[2]] if heads is None else heads, dim=2)
    means = [torch.logsumexp(torch.log_softmax(part, dim=2), dim=0) for part in parts]
    return torch.cat(means, dim=1) - math.log(answers.shape[0])


class Ensemble(torch.nn.Module):
    """A network of networks that each give logits (B, C) of the same classes, as those of the folds of a cross-validation.

    It stands in a bundle's configs where one network stands, and one weight file holds the weights of all members, so that
    whatever trains, runs, verifies or exports a bundle does the same with it:

        "member": {"_target_": "DenseNet", ...},
        "network_def": {"_target_": "monai_spine.ensemble.Ensemble", "members": ["%member", "%member"]}

    Members are trained one by one: a loss of their mean would teach all of them the same.

    Args:
        members: Each an instance of its own.
        heads: As in `mean_logits`.

    Raises:
        ValueError: There is no member, or one stands twice, as `"@member"` in a config would make it.
    """

    def __init__(self, members: Sequence[torch.nn.Module], *, heads: Sequence[int] | None = None) -> None:
        super().__init__()
        if not members or len({id(member) for member in members}) < len(members):
            raise ValueError(
                f"An ensemble needs members that are each an instance of their own, got {len(members)} of which "
                f'{len({id(member) for member in members})} differ. In a config write "%member", which copies, not "@member".'
            )
        self.members = torch.nn.ModuleList(members)
        self.heads = None if heads is None else list(heads)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) whose softmax is the mean of the members' probabilities."""
        return mean_logits(torch.stack([member(image) for member in self.members]), self.heads)


def joined_state(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The state dict of an `Ensemble` from those of its members, in their order."""
    return {f"members.{number}.{name}": value for number, state in enumerate(states) for name, value in state.items()}
