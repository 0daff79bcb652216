"""Which lesions lie at which levels, and where all of them together bring tissue from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_spine.geometry import Point
from monai_spine.phantom.lesions.fields import Local
from monai_spine.phantom.lesions.kinds import Lesion, Listhesis
from monai_spine.phantom.lesions.sites import LevelSite
from monai_spine.placement import ColumnFrame

__all__ = ["LevelLesions", "along", "between", "carried", "from_local", "pull_points", "to_local", "turned"]

Floats = npt.NDArray[np.float64]

_STEPS = 40


@dataclass(frozen=True)
class LevelLesions:
    """The lesions of one level, in whatever order."""

    site: LevelSite
    lesions: tuple[Lesion, ...]

    @property
    def in_order(self) -> tuple[Lesion, ...]:
        """As they come about."""
        return tuple(sorted(self.lesions, key=lambda lesion: lesion.order))


def pull_points(points: Local, chain: Sequence[LevelLesions], *, frame: ColumnFrame) -> Local:
    """Where the tissue at points came from, all in the frame of one level."""
    for entry in chain:
        points = turned(points, between(frame, entry.site.frame))
        for lesion in entry.in_order[::-1]:
            points = lesion.move(points, entry.site).source
        points = turned(points, between(entry.site.frame, frame))
    return points


def carried(point_ras_mm: Point, plan: Sequence[LevelLesions]) -> Point:
    """Where the slips of a plan carry a point of the column, RAS+ mm.

    Other lesions leave it: the canal's point lies where the canal is and not where its tissue went.
    """
    place = np.array([*point_ras_mm, 1.0])
    for entry in plan[::-1]:
        for slip in (lesion for lesion in entry.lesions if isinstance(lesion, Listhesis)):
            aside, source, up = (torch.tensor(value, dtype=torch.float64) for value in (to_local(entry.site.frame) @ place)[:3])
            behind = source
            for _ in range(_STEPS):
                behind = behind + source - slip.move(Local(aside, behind, up), entry.site).source.behind
            place = from_local(entry.site.frame) @ np.array([aside, behind, up, 1.0])
    r, a, s = (float(value) for value in place[:3])
    return r, a, s


def from_local(frame: ColumnFrame) -> Floats:
    """4 × 4 from (aside, behind, up) to RAS+ mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([frame.right, -frame.front, frame.up], axis=1)
    matrix[:3, 3] = frame.origin_ras_mm
    return matrix


def to_local(frame: ColumnFrame) -> Floats:
    return np.asarray(np.linalg.inv(from_local(frame)))


def between(start: ColumnFrame, end: ColumnFrame) -> Floats | None:
    return None if start is end else to_local(end) @ from_local(start)


def turned(at: Local, matrix: Floats | None) -> Local:
    if matrix is None:
        return at
    return Local(*(along(row, (at.aside, at.behind, at.up)) for row in matrix[:3]))


def along(row: Floats, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    first, second, third, constant = (float(value) for value in row)
    return first * axes[0] + second * axes[1] + (third * axes[2] + constant)
