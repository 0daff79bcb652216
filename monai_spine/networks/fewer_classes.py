"""A network that knows some of the severities only, in the place of one that knows all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_spine.anatomy import Severity
from monai_spine.errors import ArchitectureError

__all__ = ["FewerClasses"]


class FewerClasses(nn.Module):
    """Spread the logits of a network over all severities; those that it does not know get a probability of 0.

    Their logit is -10⁴, so that the loss of rows that bear other labels stays finite. So losses, metrics and tables of three
    severities serve a task with two, such as normal/mild against severe.

    Args:
        network: Images to logits (B, severities known).
        severities: Which it knows, in the order of its logits.

    Raises:
        ArchitectureError: There are fewer than two, or one is named twice.
        AnatomyError: One is unknown.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = FewerClasses(nn.Flatten(), ["normal_mild", "severe"])
        >>> network(torch.tensor([[1.0, 2.0]])).softmax(dim=1).round(decimals=2)
        tensor([[0.2700, 0.0000, 0.7300]])
    """

    def __init__(self, network: nn.Module, severities: Sequence[str]) -> None:
        super().__init__()
        places = [Severity.parse(name).index for name in severities]
        if len(places) < 2 or len(set(places)) < len(places):
            raise ArchitectureError(f"There must be two severities or more, each once, got {list(severities)}.")
        self.network = network
        self.places = places

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, 3) of images (B, C, …)."""
        known = self.network(image)
        logits = torch.full((known.shape[0], 3), -1e4, dtype=known.dtype, device=known.device)
        logits[:, self.places] = known
        return logits
