"""Smooth displacements of the column's tissues, as maps from where a voxel lies to where its tissue came from.

Each map moves points along one fixed direction of the column's frame, the canal's normal or the canal itself, to a place that
grows strictly along this direction. Its Jacobian is the slope of this growth and positive everywhere, and so is that of any chain
of maps: no tissue is folded, torn or lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_spine.phantom.lesions.sites import LevelSite

__all__ = [
    "Local",
    "behind_disc",
    "bump",
    "canal_walls",
    "jacobian",
    "lowered",
    "migrated",
    "pushed_back",
    "pushed_forward",
    "slipped",
    "soft_step",
]

_MOVED_DISC_MM = 11.0
_MOVED_LIGAMENT_MM = 1.6
_MOVED_FLAVUM_MM = 4.0
_LEAST_KEPT = 0.06
_FACETS_ASIDE_MM = 8.5
_DISC_EDGE_MM = 22.0
_STEEPEST_AMID, _STEEPEST_STEP = 3.08, 1.5
"""The largest slopes of (4 x (1 − x))² and of `soft_step`."""


@dataclass(frozen=True)
class Local:
    """Points in the frame of a level: tensors of one shape, mm aside (to the patient's right), behind and up.

    `walls` is what `canal_walls` answers, where it was asked already: it holds as long as points move along the normal only.
    """

    aside: Tensor
    behind: Tensor
    up: Tensor
    walls: tuple[Tensor, Tensor] | None = None

    def moved_behind(self, behind: Tensor, walls: tuple[Tensor, Tensor] | None = None) -> Local:
        """The points moved along the canal's normal."""
        return Local(self.aside, behind, self.up, walls or self.walls)


def canal_walls(at: Local, site: LevelSite) -> tuple[Tensor, Tensor]:
    """Where the canal's front wall lies behind the origin, and its depth: the discs' margin bends to the front at the sides, the
    arch narrows the canal there, most of all where the facets stand beside the sac, behind the recesses."""
    if at.walls is not None:
        return at.walls
    front, back = site.borders_at(at.up)
    beyond = (at.aside.abs() - 10.0).clamp_min(0.0)
    square = at.aside**2
    facets = 0.3 * bump(at.aside.abs() - _FACETS_ASIDE_MM, 4.0)
    depth = (back - front).clamp_min(4.0) * (1 - 0.35 * square / (square + 100.0) - facets)
    return front - 0.08 * beyond**2, depth


def bump(offset: Tensor, half_width: float | Tensor, power: int = 2) -> Tensor:
    """1 in the middle, 1/e at the half width; Gaussian for the power 2, with a flatter top for 3 or 4."""
    share = offset / half_width
    square = share * share
    return torch.exp(-(square, square * share.abs(), square * square)[power - 2] if power != 2 else -square)


def soft_step(value: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, smooth between."""
    x = value.clamp(0.0, 1.0)
    return x * x * (3 - 2 * x)


def behind_disc(at: Local) -> Tensor:
    """1 behind the disc, 0 from 30 mm aside on, where there is none."""
    return 1 - soft_step((at.aside.abs() - _DISC_EDGE_MM) / 8.0)


def held_below(amount: Tensor, limit: Tensor) -> Tensor:
    """An amount that never reaches a limit: nearly itself while small."""
    square = (amount / limit).square()
    return amount / (1 + square.square()).sqrt().sqrt()


def pushed_back(at: Local, site: LevelSite, amount_mm: Tensor) -> tuple[Local, Tensor, Tensor]:
    """Push the canal's front wall to the back; the back wall stays.

    Args:
        at: Where voxels lie.
        site: The level.
        amount_mm: By how much, at each point; it may differ aside and up, not along the normal.

    Returns:
        Where their tissue came from; how far behind the old front wall voxels lie; and the push, held below the canal's depth.
    """
    front, depth = canal_walls(at, site)
    amount = held_below(amount_mm, (1 - _LEAST_KEPT) * depth)
    in_disc = bump(at.up - site.margin_up_mm, site.disc_half_height_mm, 4)
    moved = _MOVED_LIGAMENT_MM + (_MOVED_DISC_MM - _MOVED_LIGAMENT_MM) * in_disc
    distance = at.behind - front
    source = at.moved_behind(front + _pulled(distance, amount, moved, depth), (front, depth))
    return source, distance, amount


def pushed_forward(at: Local, site: LevelSite, amount_mm: Tensor) -> tuple[Local, Tensor, Tensor]:
    """Push the canal's back wall to the front; the front wall stays. As `pushed_back`, seen from behind."""
    front, depth = canal_walls(at, site)
    amount = held_below(amount_mm, (1 - _LEAST_KEPT) * depth)
    distance = front + depth - at.behind
    moved = torch.full_like(distance, _MOVED_FLAVUM_MM)
    source = at.moved_behind(front + depth - _pulled(distance, amount, moved, depth), (front, depth))
    return source, distance, amount


def _pulled(distance: Tensor, amount: Tensor, before: Tensor, depth: Tensor) -> Tensor:
    """Where what lies at a distance behind a wall came from, when the wall at 0 moved to `amount`.

    What lies more than `before` in front of the wall, or deeper than `depth` behind it, stays; the wall itself is neither
    stretched nor pressed, so that its lines keep their thickness.
    """
    ahead, wall = distance < amount, torch.zeros_like(amount)
    ends = torch.where(ahead, -before, amount), torch.where(ahead, amount, depth)
    sources = torch.where(ahead, -before, wall), torch.where(ahead, wall, depth)
    return torch.where((distance <= -before) | (distance >= depth), distance, _spline(distance, ends, sources))


def _spline(x: Tensor, x_ends: tuple[Tensor, Tensor], y_ends: tuple[Tensor, Tensor]) -> Tensor:
    """Rational quadratic between two points, with slope 1 at both and growing strictly between (Gregory & Delbourgo 1982)."""
    width = x_ends[1] - x_ends[0]
    height = y_ends[1] - y_ends[0]
    share = ((x - x_ends[0]) / width).clamp(0.0, 1.0)
    slope = height / width
    across = share * (1 - share)
    return y_ends[0] + height * (slope * share * share + across) / (slope + 2 * (1 - slope) * across)


def migrated(at: Local, site: LevelSite, *, by_mm: float, center_up_mm: float) -> Local:
    """Drag what lies amid the canal along it; its walls stay. Less far where they lie aslant, so that nothing is folded."""
    front, depth = canal_walls(at, site)
    limit = 0.35 * _least_depth(at, site) / (_STEEPEST_AMID * max(site.steepest, 1e-3))
    by = math.copysign(1.0, by_mm) * limit.clamp_max(abs(by_mm))
    share = ((at.behind - front) / depth).clamp(0.0, 1.0)
    amid = (4 * share * (1 - share)) ** 2
    near = bump(at.up - center_up_mm, max(7.0, 1.4 * abs(by_mm))) * behind_disc(at)
    return Local(at.aside, at.behind, at.up - by * amid * near)


def _least_depth(at: Local, site: LevelSite) -> Tensor:
    """The canal's depth at each point's place aside, at the height where the sac is shallowest."""
    return canal_walls(Local(at.aside, at.behind, torch.full_like(at.up, site.narrowest_up_mm)), site)[1]


def slipped(at: Local, site: LevelSite, slip_mm: float) -> Local:
    """Move the vertebra above the disc to the front (or back, if negative), with its arch, which hangs lower than its body.

    What lies above follows less and less over 70 mm, and so does what is far in front, behind or to the side.
    """
    front, _ = site.borders_at(torch.full_like(at.up, site.disc_up_mm))
    hanging = 14.0 * soft_step((at.behind - front) / 40.0)
    over = max(2 * site.disc_half_height_mm, abs(slip_mm))
    above = soft_step((at.up - site.disc_up_mm + hanging) / over + 0.5)
    fading = 1 - soft_step((at.up - site.disc_up_mm - 12.0) / 70.0)
    reach = soft_step((at.behind + 80.0) / 40.0) * (1 - soft_step((at.behind - 20.0) / 40.0))
    reach = reach * (1 - soft_step((at.aside.abs() - 40.0) / 30.0))
    return at.moved_behind(at.behind + slip_mm * above * fading * reach)


def lowered(at: Local, site: LevelSite, share: float) -> Local:
    """Take a share of the disc's height: the bodies close in, each stretched a little over 20 mm; what lies behind the canal
    stays, and so does what is far in front or to the side."""
    half, reach = site.disc_half_height_mm, 20.0
    offset = at.up - site.disc_height_at(at.behind)
    limit = 0.3 * _least_depth(at, site) / (_STEEPEST_STEP * half * max(site.steepest, 1e-3))
    kept = half * (1 - limit.clamp_max(share))
    full, far = torch.full_like(offset, half), torch.full_like(offset, reach)
    size = offset.abs()
    inner = _spline(size, (-kept, kept), (-full, full))
    outer = _spline(size, (kept, far), (full, far))
    pulled = torch.where(size < kept, inner, torch.where(size < far, outer, size)) * offset.sign()
    front, depth = canal_walls(at, site)
    square = at.aside**2
    window = 1 - soft_step((at.behind - front) / (depth * (1 + square / (square + 144.0))))
    window = window * soft_step((at.behind + 50.0) / 12.0) * (1 - soft_step((at.aside.abs() - 30.0) / 16.0))
    return Local(at.aside, at.behind, at.up + window * (pulled - offset))


def jacobian(mapping: Callable[[Local], Local], at: Local, *, step_mm: float = 0.02) -> Tensor:
    """Determinant of a map's Jacobian at points, by central differences in double precision.

    Args:
        mapping: From where voxels lie to where their tissue came from.
        at: Points, of any shape.
        step_mm: Distance of the differences.
    """
    place = torch.stack([axis.double() for axis in (at.aside, at.behind, at.up)])
    columns = []
    for axis in range(3):
        shift = torch.zeros((3,) + (1,) * (place.dim() - 1), dtype=torch.float64)
        shift[axis] = step_mm
        ends = [mapping(Local(*(place + sign * shift))) for sign in (1, -1)]
        high, low = (torch.stack([end.aside, end.behind, end.up]) for end in ends)
        columns.append((high - low) / (2 * step_mm))
    return torch.linalg.det(torch.stack(columns).movedim((0, 1), (-1, -2)))
