"""The loss of the level localiser: it counts only what a set labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["LocalizerLoss"]


class LocalizerLoss(nn.Module):
    """Focal cross-entropy on heatmaps, cross-entropy and Dice on masks, averaged over the labelled channels; names if wanted.

    The heatmaps' part is the quality focal loss of Li et al. (2020), |t − p|² BCE(p, t), summed over the voxels and divided by
    the volume of one Gaussian, so that a point counts the same in windows of any size. The masks' part is BCE divided by the
    volume of one body, plus soft Dice where the body is in view. The names' part, off unless asked for, is the cross-entropy
    over the channels of a group (discs, canal, bodies) where one of them is labelled: it tells neighbours apart that look alike.

    Args:
        groups: Channels of the discs, of the canal points and of the bodies, in this order.
        point_volume: Sum of one heatmap in voxels, (2π)^1.5 σ³ / voxel volume.
        body_volume: Voxels of one body.
        body_share: Weight of the masks' part beside the heatmaps'.
        name_share: Weight of the names' part.
    """

    def __init__(
        self,
        groups: Sequence[int] = (6, 6, 6),
        *,
        point_volume: float = 123.0,
        body_volume: float = 2600.0,
        body_share: float = 0.5,
        name_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.groups, self.points = list(groups), groups[0] + groups[1]
        self.point_volume, self.body_volume = point_volume, body_volume
        self.body_share, self.name_share = body_share, name_share

    def forward(self, logits: Tensor, answer: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, C, R, A, S), the groups' channels one after the other.
            answer: `target`, same shape, and `weight`, (B, C).

        Raises:
            ValueError: The shapes do not match.
        """
        target, weight = answer["target"], answer["weight"]
        if logits.shape != target.shape or weight.shape != logits.shape[:2]:
            raise ValueError(
                f"logits {tuple(logits.shape)} do not fit target {tuple(target.shape)}, weight {tuple(weight.shape)}"
            )
        split = self.points
        heat = _weighted(self._heat(logits[:, :split], target[:, :split]), weight[:, :split])
        body = _weighted(self._body(logits[:, split:], target[:, split:]), weight[:, split:])
        total = heat + self.body_share * body
        if self.name_share > 0:
            total = total + self.name_share * self._names(logits, target * weight[..., None, None, None])
        return total

    def _heat(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
        focus = (target - logits.sigmoid()).square()
        return (focus * cross_entropy).sum((2, 3, 4)) / self.point_volume

    def _body(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none").sum((2, 3, 4)) / self.body_volume
        probability = logits.sigmoid()
        overlap = 2 * (probability * target).sum((2, 3, 4))
        total = probability.sum((2, 3, 4)) + target.sum((2, 3, 4))
        in_view = target.flatten(2).amax(2)
        return cross_entropy + in_view * (1 - overlap / total.clamp_min(1.0))

    def _names(self, logits: Tensor, target: Tensor) -> Tensor:
        parts = []
        for group, truth in zip(logits.split(self.groups, 1), target.split(self.groups, 1), strict=True):
            sure = truth * (truth > 0.2)
            missed = -(sure * group.log_softmax(1)).sum((1, 2, 3, 4))
            parts.append(missed / sure.sum((1, 2, 3, 4)).clamp_min(1.0))
        return torch.stack(parts).mean()


def _weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the labelled channels of each example, then over the batch, so that batches may be split among processes."""
    return ((values * weight).sum(1) / weight.sum(1).clamp_min(1.0)).mean()
