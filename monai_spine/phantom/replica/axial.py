"""How the slices of an axial series lie: one straight stack, or a block along each disc.

No table says it, but the points do: they are known to lie in the recesses of known levels, so the instances between two levels
are so many slices for so many millimetres. Where slices would be too far apart for one stack, or its plane would miss the
recesses, the series is several blocks, each with an orientation of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, Level, Side
from monai_spine.phantom.replica.frames import instance_numbers
from monai_spine.phantom.replica.tables import TablePoint, TableSeries

__all__ = ["AxialFit", "LevelMark", "StraightStack", "fit_axial"]

Floats = npt.NDArray[np.float64]

_FIELD_MM = (140.0, 260.0)
_STEP_MM = (2.2, 5.7)
_MISS_MM = 4.5
_APART = 3
_TILTS_RAD = np.deg2rad(np.arange(-16, 31, 2.0))


@dataclass(frozen=True)
class LevelMark:
    """The middle between the left and the right point of a level: instance (may lie between two), x and y in pixels."""

    instance: float
    x: float
    y: float


@dataclass(frozen=True)
class StraightStack:
    """A stack of parallel slices: instance n lies at `origin_mm` (A, S) plus n steps along its normal.

    Attributes:
        tilt_rad: How far the normal leans forward.
        step_mm: From one instance to the next along the normal; negative where instances go down.
        origin_mm: A and S of the pixel (0, 0) of an instance 0.
    """

    tilt_rad: float
    step_mm: float
    origin_mm: tuple[float, float]


@dataclass(frozen=True)
class AxialFit:
    """What is known of an axial series before the patient is built.

    Attributes:
        series: What the tables say of it.
        numbers: Instance numbers, ascending.
        pixel_mm: Edge of a pixel of the real matrix.
        marks: By level, for the levels with points.
        straight: The stack, or None where each level has a block of its own.
        apart: The levels that have one.
    """

    series: TableSeries
    numbers: tuple[int, ...]
    pixel_mm: float
    marks: Mapping[Level, LevelMark]
    straight: StraightStack | None
    apart: tuple[Level, ...]

    @property
    def straight_x_mm(self) -> dict[Level, float]:
        """How far right in the picture the middle of each level of the straight stack lies."""
        return {level: mark.x * self.pixel_mm for level, mark in self.marks.items() if level not in self.apart}


def fit_axial(
    series: TableSeries, points: Sequence[TablePoint], recesses_mm: Mapping[Level, tuple[float, float]], *, recess_out_mm: float,
    tilt_rad: float,
) -> AxialFit:  # fmt: skip
    """Find pixel size and slices of an axial series.

    Args:
        series: What the tables say of it.
        points: Its points.
        recesses_mm: A and S between the recesses of each level.
        recess_out_mm: How far the patient's recesses lie from the midline.
        tilt_rad: How a radiographer would tilt a straight stack.
    """
    edge, between = max(series.shape), _pixels_apart(points)
    pixel = 2 * recess_out_mm / between if between else 200.0 / edge
    pixel = float(np.clip(pixel, _FIELD_MM[0] / edge, _FIELD_MM[1] / edge))
    marks = _marks(points, recess_out_mm / pixel)
    straight, apart = _straight(marks, recesses_mm, pixel, tilt_rad)
    return AxialFit(series, instance_numbers(series, points), pixel, marks, straight, apart)


def _pairs(points: Sequence[TablePoint]) -> dict[Level, list[TablePoint]]:
    """The points with a side, by level."""
    found = {
        level: [point for point in points if point.target.level is level and point.target.side is not None] for level in LEVELS
    }
    return {level: here for level, here in found.items() if here}


def _pixels_apart(points: Sequence[TablePoint]) -> float:
    """How far apart left and right are in the median, 0 without a pair."""
    apart = [float(np.hypot(a.x - b.x, a.y - b.y)) for a, b in (here for here in _pairs(points).values() if len(here) == 2)]
    return float(np.median(apart)) if apart else 0.0


def _marks(points: Sequence[TablePoint], out_px: float) -> dict[Level, LevelMark]:
    """Middles by level; where one side is marked only, the middle lies so many pixels beside it (left is at the right)."""
    marks = {}
    for level, here in _pairs(_agreeing(points)).items():
        instance, x, y = np.mean([(point.instance, point.x, point.y) for point in here], axis=0).tolist()
        if len(here) == 1:
            x += -out_px if here[0].target.side is Side.LEFT else out_px
        marks[level] = LevelMark(instance, x, y)
    return marks


def _agreeing(points: Sequence[TablePoint]) -> Sequence[TablePoint]:
    """All points, or those of one side where left and right lie on different slices at several levels.

    One of them is a level off then: the side whose levels follow each other more evenly is kept.
    """
    apart = [abs(here[0].instance - here[1].instance) for here in _pairs(points).values() if len(here) == 2]
    if sum(gap > _APART for gap in apart) < 2:
        return points
    sides = [[point for point in points if point.target.side is side] for side in Side]
    return min(sides, key=lambda side: _unevenness([point.instance for point in side]))


def _unevenness(instances: Sequence[int]) -> float:
    gaps = np.diff(sorted(instances))
    return float(np.std(gaps) / max(float(np.mean(gaps)), 0.1)) if len(gaps) > 1 else np.inf


def _straight(
    marks: Mapping[Level, LevelMark], recesses_mm: Mapping[Level, tuple[float, float]], pixel_mm: float, tilt_rad: float
) -> tuple[StraightStack | None, tuple[Level, ...]]:
    """A stack with plausible slices that meets the recesses, and the levels that have a block of their own.

    If no stack meets all, the lowest or the highest level, or both, are taken for blocks, as where L5/S1 is angled. If that does
    not help, one level between may be wrong: the stack passes it. Otherwise all are blocks.
    """
    levels = tuple(marks)
    ends = (levels[-1:], levels[:1], levels[:1] + levels[-1:], levels[-2:])
    trials = [((), ()), *((end, end) for end in ends), *(((level,), ()) for level in levels[1:-1])]
    for dropped, apart in trials:
        kept = {level: marks[level] for level in levels if level not in dropped}
        if len(kept) < (3 if dropped else 2):
            continue
        best = min(
            (_fit_tilt(kept, recesses_mm, pixel_mm, tilt) for tilt in _TILTS_RAD),
            key=lambda fit: fit[1] ** 2 + (float(np.rad2deg(fit[0].tilt_rad - tilt_rad)) / 4) ** 2,
        )
        if best[1] < _MISS_MM and _STEP_MM[0] < abs(best[0].step_mm) < _STEP_MM[1]:
            return best[0], apart
    return None, levels


def _fit_tilt(
    marks: Mapping[Level, LevelMark], recesses_mm: Mapping[Level, tuple[float, float]], pixel_mm: float, tilt_rad: float
) -> tuple[StraightStack, float]:
    """The best stack of one tilt, and its largest miss in mm."""
    sine, cosine = float(np.sin(tilt_rad)), float(np.cos(tilt_rad))
    wanted = np.array([recesses_mm[level] for level in marks])
    down = np.array([mark.y * pixel_mm for mark in marks.values()])
    instances = np.array([mark.instance for mark in marks.values()])
    in_plane = np.column_stack([-cosine * down, sine * down])
    along = np.column_stack([sine * instances, cosine * instances])
    ones, zeros = np.ones(len(marks)), np.zeros(len(marks))
    matrix = np.column_stack([np.concatenate([ones, zeros]), np.concatenate([zeros, ones]), along.T.ravel()])
    (front, up, step), *_ = np.linalg.lstsq(matrix, (wanted - in_plane).T.ravel(), rcond=None)
    missed = (matrix @ [front, up, step] - (wanted - in_plane).T.ravel()).reshape(2, -1)
    return StraightStack(float(tilt_rad), float(step), (float(front), float(up))), float(np.abs(missed).max())
