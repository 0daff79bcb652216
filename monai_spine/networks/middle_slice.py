"""A 3D crop for a 2D network: the slice through its middle."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["MiddleSlice"]


class MiddleSlice(nn.Module):
    """The slice through the middle of a crop, which is where its point lies; of an even number of slices the mean of two.

    Args:
        axis: Of a crop's R, A, S (0, 1, 2), the one across the slices.

    Raises:
        ValueError: The axis is none of the three.

    Example:
        >>> import torch
        >>> MiddleSlice(0)(torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 3))
        tensor([[[[1.5000, 1.5000, 1.5000],
                  [1.5000, 1.5000, 1.5000]]]])
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        if axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {axis}.")
        self.axis = axis

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Slices (B, C, …) of crops (B, C, R, A, S)."""
        count = image.shape[self.axis + 2]
        return image.narrow(self.axis + 2, (count - 1) // 2, 2 - count % 2).mean(dim=self.axis + 2)
