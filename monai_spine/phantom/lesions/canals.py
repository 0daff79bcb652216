"""Where the canal lies behind discs that are marked, on a T2 scan that shows both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_spine.anatomy import Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point
from monai_spine.phantom.lesions.profiles import BEHIND_MM, band_score, contrast_of, sac_patch, sample_points, wall_and_csf
from monai_spine.phantom.lesions.sites import check_column, frames_of

__all__ = ["find_canals"]

Floats = npt.NDArray[np.float64]

_CANAL_BEHIND_DISC_MM = 24.0
_TILTS = np.radians(np.arange(-30.0, 30.5, 1.5))
_USUAL_TILT = np.radians(20.0)
_ALONG_DISC_MM = torch.arange(-14.0, 14.5, 1.0)
_ACROSS_DISC_MM = torch.arange(-9.0, 9.25, 0.5)


def find_canals(image: Tensor, affine: Affine, discs: Mapping[Level, Point]) -> dict[Level, Point]:
    """Look for the canal behind discs on a T2 scan: the bright band in their planes, 10–40 mm behind them, that is smooth along
    the column.

    Args:
        image: (i, j, k).
        affine: 4 × 4 to RAS+ mm.
        discs: Centres of two discs at least.

    Raises:
        LevelsNotFoundError: There are fewer than two discs, or they are no column.
    """
    levels = [level for level in Level if level in discs]
    if len(levels) < 2:
        raise LevelsNotFoundError(
            f"{len(levels)} disc is marked: the column has no direction, and the canal cannot be looked for. Mark two at least."
        )
    check_column(discs)
    centers = np.array([discs[level] for level in levels], dtype=float)
    fronts = np.array([_tilted(image, affine, *disc) for disc in zip(centers, _across_column(centers), strict=True)])
    guesses = centers - _CANAL_BEHIND_DISC_MM * fronts
    frames = frames_of(discs, {level: _point(guess) for level, guess in zip(levels, guesses, strict=True)})
    patches = [sac_patch(image, affine, frames[level])[0] for level in levels]
    scores = torch.stack([band_score(contrast_of(patch, *wall_and_csf(patch))) for patch in patches])
    behind = np.array([float(BEHIND_MM[index]) for index in _smooth_path(scores)])
    return {level: _point(point) for level, point in zip(levels, guesses - behind[:, None] * fronts, strict=True)}


def _point(values: Floats) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s


def _across_column(centers: Floats) -> Floats:
    """Towards the patient's front, perpendicular to the column, at each disc; the column bends on at its ends."""
    ups = -np.gradient(centers, axis=0, edge_order=2 if len(centers) > 2 else 1)
    ups /= np.linalg.norm(ups, axis=1, keepdims=True)
    fronts = np.array([0.0, 1.0, 0.0]) - ups[:, 1:2] * ups
    return np.asarray(fronts / np.linalg.norm(fronts, axis=1, keepdims=True))


def _tilted(image: Tensor, affine: Affine, center: Floats, front: Floats) -> Floats:
    """The direction of a disc to its front: that in which the endplates show sharpest when lines along the disc are averaged.

    Args:
        image: (i, j, k).
        affine: 4 × 4 to RAS+ mm.
        center: Of the disc, RAS+ mm.
        front: Where it points by the column; the disc may be tilted against this by 30°, though seldom by as much.
    """
    up = np.array([0.0, -front[2], front[1]])
    up /= max(float(np.linalg.norm(up)), 1e-9)
    fronts = torch.from_numpy(np.cos(_TILTS)[:, None] * front - np.sin(_TILTS)[:, None] * up)
    ups = torch.from_numpy(np.cos(_TILTS)[:, None] * up + np.sin(_TILTS)[:, None] * front)
    lines = _ACROSS_DISC_MM[:, None, None] * ups[:, None, None] + _ALONG_DISC_MM[:, None] * fronts[:, None, None]
    profiles = sample_points(image, affine, torch.from_numpy(center) + lines).mean(-1).cpu()
    sharpness = (profiles[:, 2:] - profiles[:, :-2]).square().sum(1).clamp_min(1e-12)
    likely = sharpness.log() - 0.5 * torch.from_numpy(_TILTS / _USUAL_TILT).square()
    return np.asarray(fronts[int(likely.argmax())])


def _smooth_path(scores: Tensor) -> list[int]:
    """Viterbi: one place per level, each 2 mm of change between neighbours costs as much as a tenth of the contrast."""
    jump = 0.05 * (BEHIND_MM[:, None] - BEHIND_MM[None]).abs()
    total, back = scores[0], []
    for row in scores[1:]:
        best = (total[None] - jump).max(1)
        back.append(best.indices)
        total = best.values + row
    path = [int(total.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1]
