"""Find the canal's centres that a study's points speak for, with pixel sizes and places of the series that no table gives.

The sagittal series are tied together by linear equations: canal points lie at the canal's centres, foraminal points in front of
and above them. Gross errors (a level off by one, a side on a wrong slice, a canal that does not descend) are outvoted: the point
stays where the table says, the anatomy where the others say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from monai_spine.anatomy import LEVELS, Condition, Level, Side
from monai_spine.phantom.replica.axial import AxialFit
from monai_spine.phantom.replica.equations import Equations
from monai_spine.phantom.replica.frames import SagittalFrame
from monai_spine.phantom.replica.landmarks import FORAMEN_FRONT_MM, FORAMEN_OUT_MM, FORAMEN_UP_MM, GAP_MM
from monai_spine.phantom.replica.tables import TablePoint, TableStudy

__all__ = ["Canal", "fit_canal", "fit_midline"]

_FIELD_MM = 290.0
_CLOSEST_MM, _FARTHEST_MM = 20.0, 46.0


@dataclass(frozen=True)
class Canal:
    """Centres of the canal at the height of the discs: A and S in mm by level (R is found by `fit_midline`)."""

    front_mm: Mapping[Level, float]
    up_mm: Mapping[Level, float]

    def tilt_rad(self, level: Level) -> float:
        """How far the canal leans forward as it goes up, from the neighbours of a level."""
        index = LEVELS.index(level)
        upper, lower = LEVELS[max(0, index - 1)], LEVELS[min(len(LEVELS) - 1, index + 1)]
        return float(np.arctan2(self.front_mm[upper] - self.front_mm[lower], self.up_mm[upper] - self.up_mm[lower]))


def fit_canal(
    study: TableStudy, frames: Sequence[SagittalFrame], rng: np.random.Generator
) -> tuple[Canal, tuple[SagittalFrame, ...]]:
    """Solve for the canal in the sagittal plane, and for pixel size and place of each series with points."""
    size, equations = float(rng.normal(1.0, 0.05)), Equations()
    for frame in frames:
        points = study.points_on(frame.series)
        _expect_field(equations, frame)
        for point in points:
            _expect_point(equations, frame, point)
        if not frame.placed:
            _expect_place(equations, frame, bool(points))
    for one, other in pairwise(frames):
        edges = {f"mm {frame.series.series_id}": float(max(frame.series.shape)) for frame in (one, other)}
        first, second = edges
        equations.add({first: edges[first], second: -edges[second]}, 0.0, sigma=12.0)
    _expect_shape(equations, size)
    if not any(frame.placed for frame in frames):
        equations.add({"s L3/L4": 1.0}, float(rng.normal(0, 15)), sigma=1.0, group=None)
        equations.add({"a L3/L4": 1.0}, float(rng.normal(-28, 12)), sigma=1.0, group=None)
    found = equations.solve()
    canal = Canal({level: found[f"a {level}"] for level in LEVELS}, _descending({level: found[f"s {level}"] for level in LEVELS}))
    return canal, tuple(_with_plane(frame, found) for frame in frames)


def _expect_field(equations: Equations, frame: SagittalFrame) -> None:
    edge = max(frame.series.shape)
    equations.add({f"mm {frame.series.series_id}": edge}, _FIELD_MM, sigma=45.0, group=None)


def _expect_point(equations: Equations, frame: SagittalFrame, point: TablePoint) -> None:
    name, level = frame.series.series_id, point.target.level
    if point.target.condition is Condition.SUBARTICULAR_STENOSIS:
        return
    canal = point.target.condition is Condition.SPINAL_CANAL_STENOSIS
    ahead, above, sigma = (0.0, 0.0, 1.5) if canal else (FORAMEN_FRONT_MM[level], FORAMEN_UP_MM[level], 4.0)
    corner, toward = frame.corner(point.instance), frame.direction(point)
    for axis, letter, offset in ((1, "a", ahead), (2, "s", above)):
        terms = {f"mm {name}": float(toward[axis]), f"{letter} {level}": -1.0}
        if not frame.placed:
            terms[f"{letter}0 {name}"] = 1.0
        equations.add(terms, offset - float(corner[axis]), sigma=sigma, group=point.target.kind.slug)


def _expect_place(equations: Equations, frame: SagittalFrame, has_points: bool) -> None:
    """A series that no table places and no point ties down is centred a little in front of the canal at L3/L4."""
    name, (rows, columns) = frame.series.series_id, frame.series.shape
    middle = frame.corners_ras_mm[len(frame.numbers) // 2]
    toward = (columns - 1) / 2 * frame.row_ras + (rows - 1) / 2 * frame.column_ras
    sigma = 60.0 if has_points else 3.0
    for axis, letter, offset in ((1, "a", 15.0), (2, "s", 0.0)):
        terms = {f"{letter}0 {name}": 1.0, f"mm {name}": float(toward[axis]), f"{letter} L3/L4": -1.0}
        equations.add(terms, offset - float(middle[axis]), sigma=sigma, group=None)


def _expect_shape(equations: Equations, size: float) -> None:
    """Discs stand as far apart as a patient of this size has them; the canal bends slowly."""
    for upper, lower in pairwise(LEVELS):
        equations.add({f"s {upper}": 1.0, f"s {lower}": -1.0}, GAP_MM[upper] * size, sigma=3.5, group=None)
        equations.add({f"a {upper}": 1.0, f"a {lower}": -1.0}, 0.0, sigma=25.0, group=None)
    for above, level, below in zip(LEVELS[:-2], LEVELS[1:-1], LEVELS[2:], strict=True):
        equations.add({f"a {above}": 1.0, f"a {level}": -2.0, f"a {below}": 1.0}, -7.0, sigma=6.0, group=None)


def _descending(up_mm: Mapping[Level, float]) -> dict[Level, float]:
    """Levels at least and at most as far apart as discs can be, moved as little as that takes about their common middle."""
    heights = np.array([up_mm[level] for level in LEVELS])
    gaps = np.clip(heights[:-1] - heights[1:], _CLOSEST_MM, _FARTHEST_MM)
    kept = np.concatenate([[0.0], -np.cumsum(gaps)])
    return dict(zip(LEVELS, (kept + np.median(heights - kept)).tolist(), strict=True))


def _with_plane(frame: SagittalFrame, found: Mapping[str, float]) -> SagittalFrame:
    name = frame.series.series_id
    shift = np.array([0.0, found.get(f"a0 {name}", 0.0), found.get(f"s0 {name}", 0.0)])
    return replace(frame, pixel_mm=found[f"mm {name}"], corners_ras_mm=frame.corners_ras_mm + shift)


def fit_midline(
    study: TableStudy, frames: Sequence[SagittalFrame], axials: Sequence[AxialFit], rng: np.random.Generator
) -> tuple[Mapping[Level, float], tuple[SagittalFrame, ...], Mapping[int, float]]:
    """Solve for the midline from side to side.

    Returns:
        R in mm of the canal's centre by level; the sagittal series in their place; R of the left edge of straight axial series.
    """
    equations = Equations()
    for frame in frames:
        for point in study.points_on(frame.series):
            _expect_side(equations, frame, point)
        if not frame.placed:
            middle = float(frame.corners_ras_mm[:, 0].mean())
            equations.add({f"r0 {frame.series.series_id}": 1.0, "r L3/L4": -1.0}, -middle, sigma=6.0, group=None)
    for axial in axials:
        for level, x in axial.straight_x_mm.items():
            equations.add({f"x0 {axial.series.series_id}": 1.0, f"r {level}": -1.0}, x, sigma=1.0)
    if not any(frame.placed for frame in frames):
        equations.add({"r L3/L4": 1.0}, float(rng.normal(0, 6)), sigma=1.0, group=None)
    for upper, lower in pairwise(LEVELS):
        equations.add({f"r {upper}": 1.0, f"r {lower}": -1.0}, 0.0, sigma=4.0, group=None)
    for above, level, below in zip(LEVELS[:-2], LEVELS[1:-1], LEVELS[2:], strict=True):
        equations.add({f"r {above}": 1.0, f"r {level}": -2.0, f"r {below}": 1.0}, 0.0, sigma=2.5, group=None)
    found = equations.solve()
    placed = []
    for frame in frames:
        shift = np.array([found.get(f"r0 {frame.series.series_id}", 0.0), 0.0, 0.0])
        placed.append(replace(frame, corners_ras_mm=frame.corners_ras_mm + shift))
    edges = {axial.series.series_id: found.get(f"x0 {axial.series.series_id}", 0.0) for axial in axials}
    return {level: found[f"r {level}"] for level in LEVELS}, tuple(placed), edges


def _expect_side(equations: Equations, frame: SagittalFrame, point: TablePoint) -> None:
    level, side = point.target.level, point.target.side
    if point.target.condition is Condition.SUBARTICULAR_STENOSIS:
        return
    out = 0.0 if side is None else FORAMEN_OUT_MM[level] * (1 if side is Side.RIGHT else -1)
    terms = {f"r {level}": -1.0}
    if not frame.placed:
        terms[f"r0 {frame.series.series_id}"] = 1.0
    equations.add(terms, out - float(frame.locate(point)[0]), sigma=3.0, group=point.target.kind.slug if side else None)
