"""What new tissue looks like on a series: its brightness is read from the series itself, around the level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_spine.geometry import Affine
from monai_spine.phantom.lesions.fields import Local
from monai_spine.phantom.lesions.kinds import Paint
from monai_spine.phantom.lesions.profiles import BEHIND_MM, ROWS_MM, sac_patch
from monai_spine.phantom.lesions.sites import LevelSite

__all__ = ["TissueLevels", "faded", "grain", "painted", "tissue_levels"]

_TEXTURE = 0.02
_UNEVEN = 0.05
_LEAST_FAT = 0.55
"""Fat is at least so bright on fast spin echo, from ligament to CSF; behind some sacs lies none to read it off."""
_WAVES = ((0.55, 0.93, 0.31, 0.0), (-0.83, 0.37, 0.71, 1.9), (0.29, -0.67, 1.13, 4.0))
"""Wave vectors in 1/mm along aside, behind and up, and a phase: a texture that is the same on every series."""


@dataclass(frozen=True)
class TissueLevels:
    """Intensities around a level of one series."""

    csf: float
    disc: float
    fat: float
    ligament: float

    @property
    def root(self) -> float:
        """Of crowded roots with little CSF between them."""
        return self.ligament + 0.4 * (self.csf - self.ligament)

    @property
    def shows_csf(self) -> bool:
        """Whether CSF is much brighter than the disc's back, as on T2."""
        return self.csf - self.ligament > 1.6 * (self.disc - self.ligament)

    def of(self, tissue: str) -> float:
        """The level of a tissue by name."""
        return self.ligament + 0.1 * (self.csf - self.ligament) if tissue == "dry disc" else float(getattr(self, tissue))


def tissue_levels(image: Tensor, affine: Affine, site: LevelSite) -> TissueLevels:
    """Read the levels of tissues off a series (i, j, k) by the places that the site gives them."""
    patch = sac_patch(image, affine, site.frame)[0]
    front, back = (border[:, None] for border in site.borders_at(ROWS_MM))
    behind = BEHIND_MM[None]
    in_disc = (ROWS_MM[:, None] - site.disc_height_at(behind)).abs() < 0.7 * site.disc_half_height_mm
    sac = patch[(behind > front + 1) & (behind < back - 1)]
    disc = patch[in_disc & (behind < front - 1) & (behind > front - 7)]
    rear = patch[(behind > back + 1) & (behind < back + 9)]
    ligament = float(patch.quantile(0.04))
    csf = _quantile(sac, 0.8, ligament)
    fat = max(_quantile(rear, 0.95, ligament), ligament + _LEAST_FAT * (csf - ligament))
    return TissueLevels(csf=csf, disc=_quantile(disc, 0.5, ligament), fat=fat, ligament=ligament)


def _quantile(values: Tensor, share: float, otherwise: float) -> float:
    return float(values.quantile(share)) if values.numel() else otherwise


def grain(at: Local) -> Tensor:
    """A faint texture of deviation 1 at points."""
    return 0.8 * sum((torch.cos(a * at.aside + b * at.behind + c * at.up + phase) for a, b, c, phase in _WAVES), at.up * 0)


def painted(values: Tensor, paint: Paint, tissues: TissueLevels, texture: Tensor) -> Tensor:
    """Values with new tissue, which has a faint texture and keeps some of what lay there."""
    level = tissues.ligament + paint.brightness * (tissues.of(paint.tissue) - tissues.ligament)
    if paint.darkens:
        amount = (paint.amount * (1 + _UNEVEN * texture)).clamp(0.0, 1.0)
        return values - amount * (values - level).clamp_min(0.0) if tissues.shows_csf else values
    new = level + _TEXTURE * abs(tissues.csf - tissues.ligament) * texture
    return torch.lerp(values, new, paint.amount)


def faded(image: Tensor, fades: Sequence[tuple[tuple[slice, ...], Tensor, float]]) -> Tensor:
    """The image with CSF dimmed towards the roots' brightness where they are crowded."""
    result = image.clone()
    for box, amount, level in fades:
        result[box] = result[box] - amount * (result[box] - level).clamp_min(0.0)
    return result
