"""One trunk, several questions: a linear head for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["TwoHeads"]


class TwoHeads(nn.Module):
    """Any network as a trunk, and on its features a linear head for each question, such as which condition and how severe.

    Args:
        trunk: Images (B, C, …), in 2D or 3D, to features (B, features), such as a MONAI `DenseNet` with so many output channels.
        features: Of the trunk.
        classes: Of each head.
        dropout_prob: Share of the features that each head does without in training.
        activated: Features go through a ReLU first, as those of a `DenseNet`'s last linear layer have to. False: as they are.

    Raises:
        ValueError: There is no head, or one has no two classes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = TwoHeads(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), features=16, classes=(5, 3))
        >>> network(torch.zeros(2, 1, 4, 4, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, trunk: nn.Module, *, features: int, classes: Sequence[int], dropout_prob: float = 0.0, activated: bool = True
    ) -> None:
        super().__init__()
        if not classes or min(classes) < 2:
            raise ValueError(f"There must be a head, and each needs at least 2 classes, got {list(classes)}.")
        self.trunk = trunk
        self.heads = nn.ModuleList(
            nn.Sequential(nn.ReLU() if activated else nn.Identity(), nn.Dropout(dropout_prob), nn.Linear(features, count))
            for count in classes
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, sum of classes): those of the first head, then of the next. `torch.split` by `classes` parts them."""
        features = self.trunk(image)
        return torch.cat([head(features) for head in self.heads], dim=1)
