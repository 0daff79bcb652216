"""The two heads' answers: which of the five conditions a crop shows, and how severe. Loss, probabilities, what metrics are fed.

A network gives eight logits (B, 8): five in the order of `anatomy.KINDS`, then three in the order of `Severity`. Labels are
(B, 2): the place in `KINDS`, and the severity's index or `losses.MISSING`, which then counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from monai_spine.anatomy import KINDS, Severity
from monai_spine.training.losses import MISSING, GradeLoss

__all__ = [
    "CLASSES",
    "HEADS",
    "ConditionLoss",
    "answers",
    "labelled",
    "macro_f1",
    "mean_log_loss",
    "probabilities_of",
    "split_heads",
]

HEADS: tuple[str, ...] = ("condition", "severity")
"""The two questions, in the order of logits and labels."""

CLASSES: tuple[int, ...] = (len(KINDS), len(Severity))
"""How many answers each has."""


def split_heads(both: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits or probabilities (…, 8) by head: (…, 5) and (…, 3).

    Raises:
        ValueError: The last axis is not 8 long.
    """
    if both.shape[-1] != sum(CLASSES):
        raise ValueError(f"Both heads together give {sum(CLASSES)} values, got shape {tuple(both.shape)}.")
    return dict(zip(HEADS, both.split(CLASSES, dim=-1), strict=True))


def probabilities_of(logits: torch.Tensor) -> torch.Tensor:
    """A softmax of each head: (…, 8) in which the first five sum to 1, and the last three."""
    return torch.cat([head.softmax(dim=-1) for head in split_heads(logits).values()], dim=-1)


class ConditionLoss(nn.Module):
    """Cross-entropy of the condition, and `GradeLoss` of the severity over those rows that have one.

    Args:
        weights: Of the severities, as in `GradeLoss`.
        label_smoothing: Of both heads.
        severity_share: Of the severity's loss, 0 to 1; the rest is the condition's.

    Raises:
        ValueError: As in `GradeLoss`, or the share lies outside [0, 1].

    Example:
        >>> import torch
        >>> loss = ConditionLoss(severity_share=0.5)
        >>> round(float(loss(torch.zeros(2, 8), torch.tensor([[0, 1], [4, -1]]))), 4)  # (log 5 + log 3) / 2
        1.354
    """

    def __init__(
        self, weights: Sequence[float] | None = None, *, label_smoothing: float = 0.0, severity_share: float = 0.7
    ) -> None:
        super().__init__()
        if not 0 <= severity_share <= 1:
            raise ValueError(f"severity_share must be in [0, 1], got {severity_share}.")
        self.condition = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.severity = GradeLoss(weights, label_smoothing=label_smoothing)
        self.severity_share = severity_share

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (B, 8) against labels (B, 2)."""
        heads, labels = split_heads(logits.float()), labels.to(logits.device)
        condition = self.condition(heads["condition"], labels[:, 0])
        severity = self.severity(heads["severity"], labels[:, 1])
        return torch.lerp(condition, severity, self.severity_share)


def answers(output: Sequence[Mapping[str, Any]], head: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (B, classes) and labels (B,) of one head, of a decollated batch. Ignite's confusion matrix leaves out -1."""
    both = torch.stack([torch.as_tensor(row["pred"]).float() for row in output])
    labels = torch.stack([torch.as_tensor(row["label"]).long() for row in output])
    return split_heads(both)[head], labels[:, HEADS.index(head)]


def labelled(labels: torch.Tensor) -> int:
    """How many of labels (B,) are there."""
    return int((labels != MISSING).sum())


def mean_log_loss(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean log loss of one head's probabilities (B, classes) over the rows that have a label; 0 where none has."""
    logarithms = probabilities.clamp_min(1e-7).log()
    total = nn.functional.nll_loss(logarithms, labels, ignore_index=MISSING, reduction="sum")
    return total / max(1, labelled(labels))


def macro_f1(confusion: torch.Tensor) -> torch.Tensor:
    """Mean F1 over the classes that occur or are called, from counts (true, predicted), as scikit-learn's macro average.

    Example:
        >>> import torch
        >>> float(macro_f1(torch.tensor([[3.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))) == (6 / 7 + 2 / 3) / 2
        True
    """
    counts = confusion.double()
    either = counts.sum(dim=0) + counts.sum(dim=1)
    return (2 * counts.diagonal()[either > 0] / either[either > 0]).mean()
