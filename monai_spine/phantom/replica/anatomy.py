"""A patient whose canal, foramina and recesses lie where a study's points say; the rest is random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_smoothing_spline

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Side, Target
from monai_spine.geometry import Point, Triple
from monai_spine.phantom.column import ColumnCurve
from monai_spine.phantom.replica.frames import SagittalFrame
from monai_spine.phantom.replica.tables import TableStudy
from monai_spine.phantom.spine import BODIES, Spine, usual_shift_mm

__all__ = ["bend_spine", "curve_through", "fit_width", "shift_findings"]

Floats = npt.NDArray[np.float64]

_STEP_MM = 0.5
_WIDTHS_MM = (17.5, 28.0)
_RECESS_TRIM_MM = 1.6
_RECESS_REACH_MM = 4.7  # from its middle to beyond its outer wall, which would cover a foramen
_STIFFNESS = 150.0
_BELOW_DEG, _BELOW_MM = (26.0, 34.0, 30.0, 22.0), 30.0
_ABOVE_MM, _ABOVE_KNOTS = 35.0, 5

_KEPT = 0.75  # of what a point deviates from the usual place; the rest is taken for the reader's hand
_LIMITS_MM = {Condition.NEURAL_FORAMINAL_NARROWING: (3.0, 5.5, 5.0), Condition.SUBARTICULAR_STENOSIS: (2.5, 3.0, 0.0)}
_WRONG_MM = 14.0


def fit_width(spine: Spine, table: TableStudy, frames: Sequence[SagittalFrame]) -> Spine:
    """Make the canal as wide as the distance between left and right foramina speaks for; they lie just outside of it."""
    places = {
        point.target: frame.locate(point)[0]
        for frame in frames
        for point in table.points_on(frame.series)
        if point.target.condition is Condition.NEURAL_FORAMINAL_NARROWING
    }
    widths = []
    for level in LEVELS:
        left, right = (places.get(Target(Condition.NEURAL_FORAMINAL_NARROWING, side, level)) for side in (Side.LEFT, Side.RIGHT))
        if left is not None and right is not None and right > left:
            beyond = spine.foramen_u_mm(level) - spine.canal_width_mm / 2
            widths.append(float(right - left) - 2 * beyond)
    width = float(np.clip(np.percentile(widths, 25), *_WIDTHS_MM)) if widths else spine.canal_width_mm
    return replace(spine, canal_width_mm=width, recess_trim_mm=_RECESS_TRIM_MM)


def bend_spine(spine: Spine, canal_ras_mm: Mapping[Level, Point], rng: np.random.Generator) -> Spine:
    """Give a random spine the canal of a study: its curve, and bodies between discs at the heights of the points."""
    curve = curve_through([canal_ras_mm[level] for level in LEVELS], spine.canal_depth_mm / 2, rng)
    discs = {level: float(curve.from_ras(np.array([canal_ras_mm[level]]))[2][0]) for level in LEVELS}
    middle = (discs[Level.L2_L3] + discs[Level.L3_L4]) / 2
    curve = replace(curve, s_mm=curve.s_mm - middle)
    return replace(spine, curve=curve, body_s_mm=_bodies_between(spine, {level: s - middle for level, s in discs.items()}))


def _bodies_between(spine: Spine, disc_s_mm: Mapping[Level, float]) -> dict[str, tuple[float, float]]:
    """Ends of the bodies: discs keep the random spine's heights, bodies fill what is between; the outer ones keep theirs."""
    sampled = spine.body_s_mm
    heights = {name: sampled[name][1] - sampled[name][0] for name in BODIES}
    gaps = {upper: sampled[upper][0] - sampled[lower][1] for upper, lower in pairwise(BODIES)}
    ends: dict[str, list[float]] = {name: [0.0, 0.0] for name in BODIES}
    for level in LEVELS:
        upper, lower = level.vertebra_above.value, level.vertebra_below.value
        ends[upper][0] = disc_s_mm[level] + gaps[upper] / 2
        ends[lower][1] = disc_s_mm[level] - gaps[upper] / 2
    for index in range(BODIES.index("L1"), -1, -1):
        name, below = BODIES[index], BODIES[index + 1]
        ends[name][0] = ends[name][0] if name == "L1" else ends[below][1] + gaps[name]
        ends[name][1] = ends[name][0] + heights[name]
    for index in range(BODIES.index("S1"), len(BODIES)):
        name, above = BODIES[index], BODIES[index - 1]
        ends[name][1] = ends[name][1] if name == "S1" else ends[above][0] - gaps[above]
        ends[name][0] = ends[name][1] - heights[name]
    return {name: (low, high) for name, (low, high) in ends.items()}


def curve_through(canal_ras_mm: list[Point], half_depth_mm: float, rng: np.random.Generator) -> ColumnCurve:
    """The back wall of bodies whose canal runs smoothly through given centres, from the head down, and on at both ends.

    Args:
        canal_ras_mm: Centres of the canal, RAS+ mm.
        half_depth_mm: How far the wall lies in front of them.
        rng: Draws how the spine goes on above and below.
    """
    knots = np.array(_knots_above(canal_ras_mm, rng) + canal_ras_mm + _knots_below(canal_ras_mm, rng))[::-1]
    heights = np.arange(knots[0, 2], knots[-1, 2], _STEP_MM / 2)
    right, front = (make_smoothing_spline(knots[:, 2], knots[:, axis], lam=_STIFFNESS) for axis in (0, 1))
    points = np.column_stack([right(heights), front(heights), heights])
    toward = np.gradient(points, axis=0)
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    tilt = np.arctan2(toward[:, 1], toward[:, 2])
    wall = points + half_depth_mm * np.column_stack([np.zeros_like(tilt), np.cos(tilt), -np.sin(tilt)])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(wall, axis=0), axis=1))])
    s = np.arange(0.0, along[-1], _STEP_MM)
    places = np.column_stack([np.interp(s, along, wall[:, axis]) for axis in range(3)])
    lean = np.interp(s, along, np.arcsin(toward[:, 0]))
    return ColumnCurve(s, places, np.interp(s, along, tilt), lean)


def _knots_above(canal: list[Point], rng: np.random.Generator) -> list[Point]:
    """Upwards the spine keeps its direction and begins to lean forward, from the head down."""
    direction = np.subtract(canal[0], canal[1])
    tilt, lean = np.arctan2(direction[1], direction[2]), np.arctan2(direction[0], direction[2])
    knots = [np.array(canal[0])]
    for _ in range(_ABOVE_KNOTS):
        tilt, lean = tilt + np.deg2rad(rng.uniform(1, 4)), 0.6 * lean
        knots.append(knots[-1] + _ABOVE_MM * np.array([np.sin(lean), np.sin(tilt), np.cos(tilt)]))
    return [_point(knot) for knot in knots[:0:-1]]


def _knots_below(canal: list[Point], rng: np.random.Generator) -> list[Point]:
    """Downwards the sacrum leans back, and its lower end less so, from the head down."""
    direction = np.subtract(canal[-2], canal[-1])
    base, scale = float(np.rad2deg(np.arctan2(direction[1], direction[2]))), rng.uniform(0.7, 1.3)
    knots = [np.array(canal[-1])]
    for more in _BELOW_DEG:
        tilt = np.deg2rad(np.clip(base + scale * more, 5, 68))
        knots.append(knots[-1] - _BELOW_MM * np.array([0.0, np.sin(tilt), np.cos(tilt)]))
    return [_point(knot) for knot in knots[1:]]


def _point(place: Floats) -> Point:
    r, a, s = place.tolist()
    return r, a, s


def shift_findings(spine: Spine, points_ras_mm: Mapping[Target, Point], rng: np.random.Generator) -> Spine:
    """Move foramina and recesses towards their points, as far as anatomy goes; a point that is far off is not followed.

    A recess gives way to a foramen that is marked close beside it.

    Args:
        spine: With the study's curve.
        points_ras_mm: Where the tables' points lie in this patient.
        rng: Draws the places of those without a point.
    """
    shifts = {target: _shift_of(spine, target, points_ras_mm.get(target), rng) for target in TARGETS if target.side is not None}
    for target, (out, front, up) in shifts.items():
        foramen = points_ras_mm.get(Target(Condition.NEURAL_FORAMINAL_NARROWING, target.side, target.level))
        if target.condition is Condition.SUBARTICULAR_STENOSIS and foramen is not None:
            room = abs(float(spine.curve.from_ras(np.array([foramen]))[0][0])) - _RECESS_REACH_MM - spine.recess_u_mm
            shifts[target] = min(out, max(room, -_LIMITS_MM[target.condition][0])), front, up
    return replace(spine, shifts_mm=shifts)


def _shift_of(spine: Spine, target: Target, point: Point | None, rng: np.random.Generator) -> Triple:
    foramen = target.condition is Condition.NEURAL_FORAMINAL_NARROWING
    usual, limits = np.array(usual_shift_mm(target)), _LIMITS_MM[target.condition]
    if point is None:
        return _triple(usual + rng.normal(0, 1.0, 3) * np.minimum(limits, 1.0))
    u, v, s = (float(value[0]) for value in spine.curve.from_ras(np.array([point])))
    out = u if target.side is Side.RIGHT else -u
    textbook = (spine.foramen_u_mm(target.level), -4.0, 5.0) if foramen else (spine.recess_u_mm, -3.8, 0.0)
    off = np.array([out, v, s - spine.disc_s_mm(target.level)]) - textbook - usual
    if np.linalg.norm(off) > _WRONG_MM:
        return _triple(usual)
    return _triple(usual + np.clip(_KEPT * off, np.negative(limits), limits))


def _triple(values: Floats) -> Triple:
    out, front, up = values.tolist()
    return out, front, up
