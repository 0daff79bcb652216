"""Which lesions lie at which levels, and where all of them together bring tissue from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

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

Name = TypeVar("Name")

_STEPS, _CLOSE_MM = 30, 1e-3


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


def carried(points_ras_mm: Mapping[Name, Point], plan: Sequence[LevelLesions]) -> dict[Name, Point]:
    """Where the slips of a plan carry points of the column, RAS+ mm.

    Other lesions leave them: the canal's point lies where the canal is and not where its tissue went.
    """
    slips = [(entry.site, lesion) for entry in plan[::-1] for lesion in entry.lesions if isinstance(lesion, Listhesis)]
    if not slips or not points_ras_mm:
        return dict(points_ras_mm)
    places = np.array([[*point, 1.0] for point in points_ras_mm.values()]).T
    for site, slip in slips:
        aside, source, up, ones = torch.from_numpy(to_local(site.frame) @ places)
        behind = source
        for _ in range(_STEPS):
            step = source - slip.move(Local(aside, behind, up), site).source.behind
            behind = behind + step
            if float(step.abs().max()) < _CLOSE_MM:
                break
        places = from_local(site.frame) @ torch.stack([aside, behind, up, ones]).numpy()
    return {name: (float(r), float(a), float(s)) for name, (r, a, s) in zip(points_ras_mm, places[:3].T, strict=True)}


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
