"""Losses of the graders. Missing labels count for nothing; whatever the weights, a softmax of the logits gives frequencies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_spine.anatomy import Severity

__all__ = ["MISSING", "GradeLoss", "OrdinalLoss", "log_loss", "soft_targets"]

MISSING = -1
"""Label of a target that no reader graded."""


def soft_targets(labels: torch.Tensor) -> torch.Tensor:
    """Labels as shares of the three severities.

    Args:
        labels: Indices (B,) with `MISSING`, or shares (B, 3) with a row of zeros where there is no label.

    Returns:
        (B, 3) float32; a row of zeros where there is no label.

    Raises:
        ValueError: The labels have another shape.

    Example:
        >>> import torch
        >>> soft_targets(torch.tensor([2, -1])).tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    if labels.ndim == 2 and labels.shape[1] == len(Severity):
        return labels.float()
    if labels.ndim != 1:
        raise ValueError(f"Labels must be (B,) or (B, {len(Severity)}), got {tuple(labels.shape)}.")
    return (labels[:, None] == torch.arange(len(Severity), device=labels.device)).float()


class GradeLoss(nn.Module):
    """Cross-entropy over the three severities; rows without a label are left out, mixed labels count by their shares.

    With weights w, rows count by the weight of their label as in the official score, and what is held against the labels is
    q ∝ w p, the best prediction under these weights; p, the softmax of the logits, so stays the frequencies. A network that was
    trained with weights is therefore used as one that was not: its p is reported, `score.reweight(p)` is submitted.

    Smoothed labels pull p towards a third: fit a temperature afterwards (`training/scaling.py`).

    Args:
        weights: One per severity, such as (1, 2, 4); None for equal ones.
        label_smoothing: Share of each label that is spread over all severities.

    Raises:
        ValueError: There are not three weights above 0, or the share lies outside [0, 1).

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021 (logits shifted by known weights within the loss).

    Example:
        >>> import torch
        >>> loss = GradeLoss()
        >>> round(float(loss(torch.zeros(2, 3), torch.tensor([0, -1]))), 4)
        1.0986
    """

    weights: torch.Tensor

    def __init__(self, weights: Sequence[float] | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        given = [1.0] * len(Severity) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(Severity) or min(given) <= 0:
            raise ValueError(f"There must be {len(Severity)} weights above 0, got {given}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        self.register_buffer("weights", torch.tensor(given))
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Weighted mean loss; zero, with a gradient of zero, where no row has a label.

        Args:
            logits: (B, 3), of frequencies.
            labels: Indices (B,) or shares (B, 3), as `soft_targets` takes them.
        """
        shares, weights = soft_targets(labels).to(logits.device), self.weights.to(logits.device)
        spread = shares.sum(dim=1, keepdim=True) / len(Severity)
        charged = weights * (shares + self.label_smoothing * (spread - shares))
        log_scored = torch.log_softmax(logits.float() + weights.log(), dim=1)
        return (charged * self.costs(log_scored)).sum() / charged.sum().clamp_min(torch.finfo(torch.float32).tiny)

    def costs(self, log_scored: torch.Tensor) -> torch.Tensor:
        """What each of the three labels would cost, (B, 3), given the logarithms of the scored prediction q, (B, 3)."""
        return -log_scored


class OrdinalLoss(GradeLoss):
    """Cross-entropy together with the ranked probability score: to call severe mild costs more than to call it moderate.

    The ranked probability score Σ_k (Q_k - Y_k)² compares cumulative probabilities, Q_k = q_0 + … + q_k. It is proper, as the
    cross-entropy is: frequencies stay what costs least, and the rule q ∝ w p holds.

    Args:
        weights: As in `GradeLoss`.
        label_smoothing: As in `GradeLoss`.
        share: Of the ranked probability score, 0 to 1; the rest is cross-entropy.

    Raises:
        ValueError: As in `GradeLoss`, or the share lies outside [0, 1].

    Source: Epstein, A scoring system for probability forecasts of ranked categories, J. Appl. Meteorol. 8, 1969; as a loss of
    networks: Hou, Yu, Samaras, Squared earth mover's distance-based loss for training deep neural networks, arXiv:1611.05916.

    Example:
        >>> import torch
        >>> loss = OrdinalLoss(share=1.0)
        >>> sure = torch.tensor([[9.0, -9.0, -9.0]])
        >>> [round(float(loss(sure, torch.tensor([label]))), 2) for label in (0, 1, 2)]
        [0.0, 1.0, 2.0]
    """

    def __init__(self, weights: Sequence[float] | None = None, *, label_smoothing: float = 0.0, share: float = 0.5) -> None:
        super().__init__(weights, label_smoothing=label_smoothing)
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}.")
        self.share = share

    def costs(self, log_scored: torch.Tensor) -> torch.Tensor:
        """As in `GradeLoss`."""
        cumulative = log_scored.exp().cumsum(dim=1)[:, None, :-1]
        reached = torch.eye(len(Severity), device=log_scored.device).cumsum(dim=1)[:, :-1]
        ranked = ((cumulative - reached) ** 2).sum(dim=2)
        return self.share * ranked + (1 - self.share) * super().costs(log_scored)


def log_loss(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Plain mean log loss of probabilities (B, 3) against labels (B,)."""
    return nn.functional.nll_loss(probabilities.clamp_min(1e-7).log(), labels)
