"""2.5D: a 2D network looks at each slice of a crop and at its neighbours, and attention says which slices count.

The usual way of the RSNA 2024 entries, as a reference for the 3D networks: same crops, same labels, same loss.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["SlicedClassifier"]


class SlicedClassifier(nn.Module):
    """Classify a 3D crop by its slices: features of each, their weighted mean, and a linear head.

    The weights of the slices are a softmax over w · tanh(V h), h being the features of a slice. Beyond the first and the last
    slice these are repeated. Without neighbours the order of the slices has no say.

    Args:
        encoder: A 2D network from a slice (N, C (2 neighbours + 1), …) to features (N, features).
        features: Of the encoder.
        out_channels: Classes.
        axis: Axis of a crop's R, A, S (0, 1, 2) along which it is taken apart: the one across the scan's slices.
        neighbours: Slices on either side that stand beside each slice as channels, in their order.
        hidden: Rows of V.
        dropout_prob: Share of the pooled features that the head does without in training.

    Raises:
        ValueError: The axis is none of the three, or there are less than 0 neighbours.

    Source: Ilse, Tomczak, Welling, Attention-based deep multiple instance learning, ICML 2018.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
        >>> network = SlicedClassifier(encoder, features=16, out_channels=3, axis=0)
        >>> crops = torch.zeros(2, 1, 4, 8, 8)
        >>> network(crops).shape, network.attention(crops).shape
        (torch.Size([2, 3]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        out_channels: int,
        axis: int,
        neighbours: int = 1,
        hidden: int = 64,
        dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        if axis not in (0, 1, 2) or neighbours < 0:
            raise ValueError(f"axis must be 0, 1 or 2 and neighbours 0 or more, got {axis} and {neighbours}.")
        self.axis, self.neighbours = axis, neighbours
        self.encoder = encoder
        self.score = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        self.class_layers = nn.Sequential(nn.Dropout(dropout_prob), nn.Linear(features, out_channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels) of crops (B, C, R, A, S)."""
        features = self.encoded(image)
        pooled = (self.weights(features)[:, :, None] * features).sum(dim=1)
        return self.class_layers(pooled)

    @torch.jit.export
    def attention(self, image: torch.Tensor) -> torch.Tensor:
        """How much each slice of crops (B, C, R, A, S) counts, (B, slices); they sum to 1."""
        return self.weights(self.encoded(image))

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """Weights (B, slices) from features (B, slices, features)."""
        return self.score(features)[:, :, 0].softmax(dim=1)

    def encoded(self, image: torch.Tensor) -> torch.Tensor:
        """Features (B, slices, features) of crops (B, C, R, A, S), all slices of a batch in one pass."""
        slices = self.slices(image)
        features = self.encoder(slices.flatten(0, 1))
        return torch.relu(features).unflatten(0, [slices.shape[0], slices.shape[1]])

    def slices(self, image: torch.Tensor) -> torch.Tensor:
        """Crops (B, C, R, A, S) as slices (B, slices, (2 neighbours + 1) C, …), each beside its neighbours."""
        stack = image.movedim(self.axis + 2, 1)
        count = stack.shape[1]
        first = stack[:, :1].repeat_interleave(self.neighbours, dim=1)
        last = stack[:, -1:].repeat_interleave(self.neighbours, dim=1)
        longer = torch.cat((first, stack, last), dim=1)
        return torch.cat([longer[:, at : at + count] for at in range(2 * self.neighbours + 1)], dim=2)
