"""What the thecal sac loses, measured on the image before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from monai_spine.anatomy import Level, Severity
from monai_spine.geometry import Affine, lies_inside
from monai_spine.phantom.lesions.fields import Local, canal_walls
from monai_spine.phantom.lesions.plans import LevelLesions, pull_points
from monai_spine.phantom.lesions.profiles import ASIDE_MM, BEHIND_MM, ROWS_MM, contrast_of, csf_within, first_and_last, sac_patch
from monai_spine.phantom.lesions.sites import LevelSite
from monai_spine.phantom.readers import latent_of_narrowing

__all__ = ["CanalLoss", "measure_losses", "severity_of_share"]

_NEAR_DISC_MM = 10.0
_LEAST_DEPTH_MM = 3.0
_LEAST_KEPT = 0.06


@dataclass(frozen=True)
class CanalLoss:
    """What the sac lost at one level, measured on the image before and after.

    Attributes:
        share: Of the sac's section at its narrowest, against the same place before. Where one plane alone shows the sac, what
            it shows is measured, and what is lost beside it follows from the displacement.
        midline_share: Of its depth in the midline.
        planes: Sagittal planes, 4 mm apart, in which the sac was measured.
        depth_before_mm, depth_after_mm: In the midline, where it is narrowest afterwards.
    """

    share: float
    midline_share: float
    planes: int
    depth_before_mm: float
    depth_after_mm: float

    @property
    def latent(self) -> float:
        """The phantom's latent of this share: 0 at a third, 1 at two thirds, held within a share of 0.02 and 0.98."""
        return latent_of_narrowing(min(max(self.share, 0.02), 0.98))

    @property
    def severity(self) -> Severity:
        return severity_of_share(self.share)


def severity_of_share(share: float) -> Severity:
    """The grade of a lost share of the sac: moderate from a third on, severe above two thirds.

    Raises:
        ValueError: The share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"A lost share must be in [0, 1], got {share:g}.")
    return (Severity.NORMAL_MILD, Severity.MODERATE, Severity.SEVERE)[(share >= 1 / 3) + (share > 2 / 3)]


def measure_losses(before: Tensor, after: Tensor, affine: Affine, plan: Sequence[LevelLesions]) -> dict[Level, CanalLoss]:
    """Measure what the sac lost at each level of a plan between two images on one grid."""
    return {entry.site.level: _loss(before, after, affine, entry.site, plan) for entry in plan}


def _loss(before: Tensor, after: Tensor, affine: Affine, site: LevelSite, plan: Sequence[LevelLesions]) -> CanalLoss:
    frame = site.frame
    points = np.asarray(frame.origin_ras_mm) + np.outer(ASIDE_MM, frame.right)
    planes = [aside for aside, inside in zip(ASIDE_MM, lies_inside(points, affine, before.shape), strict=True) if inside]
    aside = torch.tensor([0.0] if 1 in before.shape or not planes else planes)
    widths = []
    for image, chain in ((before, ()), (after, plan)):
        expected = _expected(site, aside, chain)
        found = csf_within(contrast_of(sac_patch(image, affine, frame, aside.tolist()), site.wall, site.csf), expected)
        widths.append(_smoothed((found[1] - found[0]).clamp_min(0.0)))
    near = (ROWS_MM - site.margin_up_mm).abs() <= _NEAR_DISC_MM
    middle = int(aside.abs().argmin())
    full = widths[0][:, near].mean(1) >= _LEAST_DEPTH_MM
    full[middle] = True
    section = [width[full][:, near].sum(0) for width in widths]
    midline = [width[middle, near] for width in widths]
    narrowest = int((midline[1] / midline[0].clamp_min(1.0)).argmin())
    if len(aside) == 1:
        section[1] = section[1] * _beside(site, plan)[near]
    return CanalLoss(
        share=_lost(*section),
        midline_share=_lost(*midline),
        planes=int(full.sum()),
        depth_before_mm=float(midline[0][narrowest]),
        depth_after_mm=float(midline[1][narrowest]),
    )


def _expected(site: LevelSite, aside: Tensor, plan: Sequence[LevelLesions]) -> tuple[Tensor, Tensor]:
    """Front and back of the sac (planes, rows) under lesions, by how tissue moved."""
    grid = torch.meshgrid(aside, ROWS_MM, BEHIND_MM, indexing="ij")
    pulled = pull_points(Local(grid[0], grid[2], grid[1]), plan, frame=site.frame)
    front, depth = canal_walls(pulled, site)
    return first_and_last((pulled.behind > front) & (pulled.behind < front + depth), BEHIND_MM)


def _beside(site: LevelSite, plan: Sequence[LevelLesions]) -> Tensor:
    """How much more of the sac's section than of its depth in the midline each row keeps, by how tissue moved."""
    aside = torch.tensor(ASIDE_MM)
    depths = [back - front for front, back in (_expected(site, aside, chain) for chain in ((), plan))]
    kept, middle = depths[1] / depths[0].clamp_min(1.0), int(aside.abs().argmin())
    return depths[1].sum(0) / depths[0].sum(0).clamp_min(1.0) / kept[middle].clamp_min(_LEAST_KEPT)


def _lost(before: Tensor, after: Tensor) -> float:
    return float((1 - (after / before.clamp_min(1.0)).min()).clamp(0.0, 1.0))


def _smoothed(lines: Tensor) -> Tensor:
    """Means of three rows (planes, rows)."""
    return avg_pool1d(lines[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
