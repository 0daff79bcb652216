"""A DenseNet for one target seen on two series: one trunk for each, fused at their features; either series may be missing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from monai.networks.nets import DenseNet
from torch import nn

__all__ = ["BranchDropout", "TwoBranchDenseNet"]


class BranchDropout(nn.Module):
    """In training, hide one of the branches now and then, so that a network learns to do without it. At work it hides nothing.

    A target with one branch keeps it.

    Args:
        prob: Share of the targets with all branches that keep one of them only, each as often as the other.

    Raises:
        ValueError: The share lies outside [0, 1].
    """

    def __init__(self, prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise ValueError(f"branch_dropout must be in [0, 1], got {prob}.")
        self.prob = float(prob)

    def forward(self, present: torch.Tensor) -> torch.Tensor:
        """Which branches are seen (B, branches), given which are there (B, branches); both bool."""
        if not self.training or self.prob == 0.0:
            return present
        alone = torch.rand(present.shape[0], device=present.device) < self.prob
        kept = torch.randint(present.shape[1], (present.shape[0], 1), device=present.device)
        others = torch.arange(present.shape[1], device=present.device) != kept
        return present & ~(others & (alone & present.all(dim=1)).unsqueeze(1))


class TwoBranchDenseNet(nn.Module):
    """Logits of a target from its crops on two series. Channel 0 goes through one trunk, channel 1 through another.

    A crop with a voxel that is NaN is missing, whatever else stands in it: learnt features stand in for those of its trunk. The
    features of all trunks are put side by side, and two layers (`class_layers`) grade them together.

    Channels share one shape, but not one orientation: see `branches.stacked`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: One for each branch.
        out_channels: Classes.
        hidden_features: Of the layer between the trunks and the logits.
        branch_dropout: See `BranchDropout`.
        dropout_prob: In the trunks and between the last two layers.
        trunk: More arguments of MONAI's `DenseNet`, the same for each trunk. Batch normalisation would mix missing crops into the
            statistics of those that are there: choose one that looks at each crop alone, such as `group`.

    Raises:
        ValueError: There are fewer than two branches, or `branch_dropout` lies outside [0, 1].

    Example:
        >>> import torch
        >>> network = TwoBranchDenseNet(3, 2, 3, init_features=4, growth_rate=2, block_config=[1], norm="instance").eval()
        >>> crops = torch.rand(5, 2, 16, 24, 24)
        >>> crops[0, 1] = float("nan")
        >>> network(crops).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        hidden_features: int = 64,
        branch_dropout: float = 0.25,
        dropout_prob: float = 0.0,
        **trunk: Any,
    ) -> None:
        super().__init__()
        if in_channels < 2:
            raise ValueError(f"in_channels must be one for each of at least two branches, got {in_channels}.")
        nets = [DenseNet(spatial_dims, 1, out_channels, dropout_prob=dropout_prob, **trunk) for _ in range(in_channels)]
        features = nets[0].class_layers.out.in_features
        self.trunks = nn.ModuleList(_without_head(net) for net in nets)
        self.stand_ins = nn.Parameter(torch.zeros(in_channels, features))
        self.branch_dropout = BranchDropout(branch_dropout)
        layers = OrderedDict(
            hidden=nn.Linear(in_channels * features, hidden_features),
            relu=nn.ReLU(),
            dropout=nn.Dropout(dropout_prob),
            out=nn.Linear(hidden_features, out_channels),
        )
        self.class_layers = nn.Sequential(layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of crops (B, branches, i, j[, k]); a crop with NaN is missing."""
        lacking = torch.isnan(image)
        present = self.branch_dropout(~lacking.flatten(2).any(dim=2))
        image = torch.where(lacking, torch.zeros_like(image), image)
        features = []
        for branch, trunk in enumerate(self.trunks):
            seen = trunk(image[:, branch : branch + 1])
            features.append(torch.where(present[:, branch : branch + 1], seen, self.stand_ins[branch].to(seen.dtype)))
        return self.class_layers(torch.cat(features, dim=1))


def _without_head(net: DenseNet) -> nn.Sequential:
    """The features of a DenseNet (B, F), averaged over the crop as its own head would see them."""
    return nn.Sequential(OrderedDict(features=net.features, **dict(list(net.class_layers.named_children())[:-1])))
