"""Losses of the graders. Missing labels count for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["MISSING", "GradeLoss", "log_loss"]

MISSING = -1
"""Label of a target that no reader graded."""


class GradeLoss(nn.Module):
    """Cross-entropy over the three severities; rows labelled `MISSING` are left out.

    Without weights the network learns frequencies p, and predicts q ∝ w p for a score that weights rows by w = 1, 2, 4. A network
    that is trained with the weights must not be re-weighted again.

    Args:
        weights: One per severity, such as (1, 2, 4); None for equal ones.
        label_smoothing: Share of each label that is spread over all severities.

    Example:
        >>> loss = GradeLoss()
        >>> round(float(loss(torch.zeros(2, 3), torch.tensor([0, -1]))), 4)
        1.0986
    """

    def __init__(self, weights: Sequence[float] | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor([float(weight) for weight in weights]))
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (B, 3) against labels (B,); zero, with a gradient of zero, where no row has a label."""
        known = labels != MISSING
        if not bool(known.any()):
            return logits.sum() * 0.0
        weights = None if self.weights is None else self.weights.to(logits)
        return nn.functional.cross_entropy(logits[known], labels[known], weight=weights, label_smoothing=self.label_smoothing)


def log_loss(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Plain mean log loss of probabilities (B, 3) against labels (B,)."""
    return nn.functional.nll_loss(probabilities.clamp_min(1e-7).log(), labels)
