"""Kolmogorov-Arnold layers: a curve for every pair of an input and an output, on B-splines whose grid follows the data.

Source: Liu et al., KAN: Kolmogorov-Arnold networks, ICLR 2025, sections 2.2 and 2.4; de Boor, A practical guide to splines, 1978.
"""

from __future__ import annotations

import math

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn import functional

from monai_spine.networks.field import Field, Trunk
from monai_spine.networks.small import mcnn_maps

__all__ = ["SplineLinear", "ckan"]

_SAMPLES = 8
"""Points of each interval at which curves are taken over to another grid."""


class SplineLinear(nn.Module):
    """Outputs are sums of curves, one of each input: y_o = Σ_i (w_oi silu(x_i) + Σ_b c_oib B_ib(x_i)) + bias_o.

    Each input has a grid of its own, on which the splines B_ib sum to 1. In training the grid follows the data: at steps 1, 2, 4,
    8, … the knots move to where the inputs of that step lie, half by their quantiles and half evenly, and the coefficients are
    fitted anew, so that the curves stay what they were. Beyond the grid only silu is left.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        intervals: Of the grid.
        order: Degree of the splines' pieces.
        updates: How many times the grid moves at most; 0: it stays.

    Raises:
        ValueError: There are less than 1 interval or an order below 1.

    Example:
        >>> import torch
        >>> layer = SplineLinear(4, 2)
        >>> layer(torch.zeros(3, 4)).shape, layer.basis(torch.zeros(3, 4)).sum(dim=2).unique()
        (torch.Size([3, 2]), tensor([1.]))
    """

    def __init__(self, in_features: int, out_features: int, *, intervals: int = 5, order: int = 3, updates: int = 10) -> None:
        super().__init__()
        if intervals < 1 or order < 1:
            raise ValueError(f"There must be at least 1 interval and order 1, got {intervals} and {order}.")
        self.intervals, self.order, self.updates = intervals, order, updates
        self.base = nn.Linear(in_features, out_features)
        self.coefficients = nn.Parameter(torch.empty(out_features, in_features, intervals + order))
        nn.init.normal_(self.coefficients, std=0.1 / math.sqrt(in_features))
        even = torch.linspace(-1, 1, intervals + 1).expand(in_features, -1)
        self.register_buffer("knots", _with_ends(even, order))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (N, out_features) of inputs (N, in_features); in training the grid may move first."""
        if self.training and not torch.jit.is_scripting():
            self._follow(x)
        return self.base(functional.silu(x)) + functional.linear(self.basis(x).flatten(1), self.coefficients.flatten(1))

    def basis(self, x: torch.Tensor) -> torch.Tensor:
        """Values (N, in_features, intervals + order) of the splines at inputs (N, in_features), by the Cox-de Boor recursion."""
        at, knots = x.float().unsqueeze(2), self.knots
        values = ((at >= knots[:, :-1]) & (at < knots[:, 1:])).to(at.dtype)
        for degree in range(1, self.order + 1):
            rising = (at - knots[:, : -degree - 1]) / (knots[:, degree:-1] - knots[:, : -degree - 1])
            falling = (knots[:, degree + 1 :] - at) / (knots[:, degree + 1 :] - knots[:, 1:-degree])
            values = rising * values[:, :, :-1] + falling * values[:, :, 1:]
        return values

    @torch.jit.unused
    def update_grid(self, x: torch.Tensor) -> None:
        """Move the knots to where inputs (N, in_features) lie, and fit the coefficients so that the curves stay.

        Curves that are one cubic (a polynomial of this order) on the old grid stay exactly; others are fitted by least squares.
        """
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            levels = torch.linspace(0, 1, self.intervals + 1, device=x.device)
            quantiles = torch.quantile(x.float(), levels, dim=0).T
            low, high = quantiles[:, :1], quantiles[:, -1:]
            margin = (0.1 * (high - low)).clamp_min(0.01)
            even = low - margin + (high - low + 2 * margin) * levels
            grid = (even + quantiles) / 2
            places = (torch.arange(_SAMPLES, device=x.device) + 0.5) / _SAMPLES
            samples = (grid[:, :-1, None] + grid.diff(dim=1)[:, :, None] * places).flatten(1).T
            curves = torch.einsum("pib,oib->ipo", self.basis(samples), self.coefficients.float())
            self.knots.copy_(_with_ends(grid, self.order))
            fitted = torch.linalg.lstsq(self.basis(samples).transpose(0, 1), curves).solution
            self.coefficients.copy_(fitted.permute(2, 0, 1))

    @torch.jit.unused
    def _follow(self, x: torch.Tensor) -> None:
        """Count a step of training, and move the grid where its number is a power of two, by the inputs of all processes."""
        self.steps += 1
        step = int(self.steps)
        if step < 2**self.updates and step & (step - 1) == 0:
            self.update_grid(idist.all_gather(x.detach()))


def ckan(field: Field, in_channels: int, dropout_prob: float) -> Trunk:
    """The convolutions of `mcnn`, a linear layer and a spline-linear layer; the head is the second of these. Document 000.

    The linear layer's outputs are normalised, which the document does not say: otherwise they leave the grid as training goes on,
    and each time that it follows them the loss leaps up.
    """
    maps = mcnn_maps(field, in_channels)
    linear = nn.Linear(128 * math.prod(field.last), 256)
    dropout = nn.Dropout(dropout_prob)
    return Trunk(nn.Sequential(maps, nn.Flatten(1), linear, nn.LayerNorm(256), dropout, SplineLinear(256, 64)), 64)


def _with_ends(grid: torch.Tensor, order: int) -> torch.Tensor:
    """Knots (inputs, intervals + 2 order + 1): a grid (inputs, intervals + 1), and beyond its ends `order` more, evenly."""
    step = (grid[:, -1:] - grid[:, :1]) / (grid.shape[1] - 1)
    further = torch.arange(1, order + 1, device=grid.device) * step
    return torch.cat((grid[:, :1] - further.flip(1), grid, grid[:, -1:] + further), dim=1)
