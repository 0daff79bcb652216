"""The slices of a series as stacks that can be scanned, with the instance number of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, Level
from monai_spine.geometry import Point
from monai_spine.phantom.replica.axial import AxialFit
from monai_spine.phantom.replica.frames import SagittalFrame
from monai_spine.phantom.replica.tables import TableSeries
from monai_spine.phantom.scanner import SliceStack
from monai_spine.phantom.spine import Spine

__all__ = ["Slices", "axial_slices", "sagittal_slices", "scale_of"]

Floats = npt.NDArray[np.float64]
Shape = tuple[int, int]

_SAGITTAL_PIXEL_MM, _AXIAL_PIXEL_MM = (0.75, 1.05), (0.62, 0.85)
_RIGHT_TO_LEFT = np.array([-1.0, 0.0, 0.0])
_RECESS_V_MM = -3.8


@dataclass(frozen=True)
class Slices:
    """Stacks with the instance number of each slice, stack by stack."""

    stacks: tuple[SliceStack, ...]
    numbers: tuple[int, ...]

    def locate(self, instance: int, x: float, y: float) -> Point:
        """Where the pixel x, y (stored matrix, 0 at the centre of the first) of an instance lies, RAS+ mm."""
        stack, index = self._slice(instance)
        down, across = stack.pixel_mm(stack.stored)
        place = np.asarray(stack.first_voxel_ras_mm(index)) + x * across * np.asarray(stack.row_ras)
        r, a, s = (place + y * down * np.asarray(stack.column_ras)).tolist()
        return r, a, s

    def _slice(self, instance: int) -> tuple[SliceStack, int]:
        index = self.numbers.index(instance)
        for stack in self.stacks:
            if index < len(stack.centers_ras_mm):
                return stack, index
            index -= len(stack.centers_ras_mm)
        raise IndexError(instance)


@dataclass(frozen=True)
class _Place:
    """One slice before it is stacked: its first voxel and directions, its stored size and the block it belongs to."""

    number: int
    corner_ras_mm: Floats
    row_ras: Floats
    column_ras: Floats
    shape: Shape
    block: int


def scale_of(series: TableSeries, max_matrix: int) -> float:
    """Stored pixels per pixel of the real matrix: 1 where it is small enough."""
    shapes = (series.shape, series.other_shape or series.shape)
    return min(1.0, max_matrix / max(max(shape) for shape in shapes))


def sagittal_slices(frame: SagittalFrame, max_matrix: int, rng: np.random.Generator) -> Slices:
    """The slices of a sagittal series in the order of their numbers."""
    shapes = _shapes(frame.series, len(frame.numbers), max_matrix)
    places = [
        _Place(number, corner, frame.row_ras, frame.column_ras, shape, 0)
        for number, corner, shape in zip(frame.numbers, frame.corners_ras_mm, shapes, strict=True)
    ]
    pixel = frame.pixel_mm / scale_of(frame.series, max_matrix)
    return _stacked(places, pixel, float(rng.uniform(*_SAGITTAL_PIXEL_MM)), float(rng.uniform(0.8, 0.95)))


def axial_slices(axial: AxialFit, spine: Spine, edges: Mapping[int, float], max_matrix: int, rng: np.random.Generator) -> Slices:
    """The slices of an axial series: a straight stack, a block along each disc that has points, or both."""
    shapes = _shapes(axial.series, len(axial.numbers), max_matrix)
    if axial.marks:
        places = _marked_places(axial, spine, edges.get(axial.series.series_id, 0.0), shapes, rng)
    else:
        places = _planned_places(axial, spine, shapes, rng)
    pixel = axial.pixel_mm / scale_of(axial.series, max_matrix)
    return _stacked(places, pixel, float(rng.uniform(*_AXIAL_PIXEL_MM)), float(rng.uniform(0.8, 0.95)))


def _shapes(series: TableSeries, count: int, max_matrix: int) -> list[Shape]:
    """Stored size of each slice; where the table has two, the first third of the slices has the larger one."""
    scale = scale_of(series, max_matrix)
    rows, columns = (max(1, round(edge * scale)) for edge in series.shape)
    if series.other_shape is None:
        return [(rows, columns)] * count
    other_rows, other_columns = (max(1, round(edge * scale)) for edge in series.other_shape)
    larger = max(1, count // 3)
    return [(other_rows, other_columns)] * larger + [(rows, columns)] * (count - larger)


def _marked_places(
    axial: AxialFit, spine: Spine, edge_r_mm: float, shapes: Sequence[Shape], rng: np.random.Generator
) -> list[_Place]:
    """Each instance belongs to the level with the nearest mark, and so to this level's block or to the straight stack."""
    levels = sorted(axial.marks, key=lambda level: axial.marks[level].instance)
    borders = [(low + high) / 2 for low, high in pairwise(axial.marks[level].instance for level in levels)]
    step = _signed_step(axial, levels, rng)
    planes = [
        _block_plane(axial, spine, level, step, rng)
        if axial.straight is None or level in axial.apart
        else _Plane(np.array([edge_r_mm, *axial.straight.origin_mm]), axial.straight.tilt_rad, axial.straight.step_mm, -1)
        for level in levels
    ]
    found = zip(axial.numbers, shapes, np.searchsorted(borders, axial.numbers).tolist(), strict=True)
    return [planes[nearest].place(number, shape) for number, shape, nearest in found]


@dataclass(frozen=True)
class _Plane:
    """Parallel slices: instance n has its first voxel at `origin_ras_mm` plus n steps along the normal."""

    origin_ras_mm: Floats
    tilt_rad: float
    step_mm: float
    block: int

    def place(self, number: int, shape: Shape) -> _Place:
        corner = self.origin_ras_mm + number * self.step_mm * _normal(self.tilt_rad)
        return _Place(number, corner, _RIGHT_TO_LEFT, _column(self.tilt_rad), shape, self.block)


def _signed_step(axial: AxialFit, levels: Sequence[Level], rng: np.random.Generator) -> float:
    """From one instance to the next in a block, along its normal: downwards in most series."""
    drawn, downwards = float(rng.uniform(3.6, 5.0)), rng.random() < 0.87
    if axial.straight is not None:
        return axial.straight.step_mm
    if len(levels) > 1:
        downwards = LEVELS.index(levels[0]) < LEVELS.index(levels[-1])
    return -drawn if downwards else drawn


def _block_plane(axial: AxialFit, spine: Spine, level: Level, step_mm: float, rng: np.random.Generator) -> _Plane:
    """A block that turns with the disc, and whose marked instance meets the recesses at the marked pixel."""
    mark, tilt = axial.marks[level], _disc_tilt(spine, level) + float(np.deg2rad(rng.normal(0, 3)))
    between = np.array(spine.curve.to_ras(0.0, _RECESS_V_MM, spine.disc_s_mm(level)))
    corner = between - axial.pixel_mm * (mark.x * _RIGHT_TO_LEFT + mark.y * _column(tilt))
    return _Plane(corner - mark.instance * step_mm * _normal(tilt), tilt, step_mm, LEVELS.index(level))


def _planned_places(axial: AxialFit, spine: Spine, shapes: Sequence[Shape], rng: np.random.Generator) -> list[_Place]:
    """A series without points: a straight stack over all levels, as a radiographer would plan it."""
    tilt, count = float(np.deg2rad(rng.normal(6, 4))), len(axial.numbers)
    top, bottom = np.array(spine.canal_point(LEVELS[0])), np.array(spine.canal_point(LEVELS[-1]))
    step = float(np.clip((top[2] - bottom[2] + 20) / count, 1.0, 5.0))
    rows, columns = axial.series.shape
    middle = np.array(spine.canal_point(Level.L3_L4)) + np.array([0, 12.0, 0])
    corner = middle - axial.pixel_mm * ((columns - 1) / 2 * _RIGHT_TO_LEFT + (rows - 1) / 2 * _column(tilt))
    return [
        _Place(number, corner - (index - (count - 1) / 2) * step * _normal(tilt), _RIGHT_TO_LEFT, _column(tilt), shape, 0)
        for index, (number, shape) in enumerate(zip(axial.numbers, shapes, strict=True))
    ]


def _disc_tilt(spine: Spine, level: Level) -> float:
    _, axes = spine.curve.frame_at(spine.disc_s_mm(level))
    return float(np.arctan2(axes[2, 1], axes[2, 2]))


def _normal(tilt_rad: float) -> Floats:
    return np.array([0.0, np.sin(tilt_rad), np.cos(tilt_rad)])


def _column(tilt_rad: float) -> Floats:
    return np.array([0.0, -np.cos(tilt_rad), np.sin(tilt_rad)])


def _stacked(places: Sequence[_Place], pixel_mm: float, acquired_mm: float, filled: float) -> Slices:
    """Neighbours of one block and size become one stack; `filled` is the slice's share of the distance between slices."""
    stacks = []
    for (_, shape), group in groupby(places, key=lambda place: (place.block, place.shape)):
        stacks.append(_stack(list(group), shape, pixel_mm, acquired_mm, filled * _distance(places)))
    return Slices(tuple(stacks), tuple(place.number for place in places))


def _distance(places: Sequence[_Place]) -> float:
    """Median distance of neighbouring slices."""
    together = [(low.corner_ras_mm, high.corner_ras_mm) for low, high in pairwise(places) if low.block == high.block]
    apart = [float(np.linalg.norm(low - high)) for low, high in together]
    return float(np.median(apart)) if apart else 4.0


def _stack(places: Sequence[_Place], shape: Shape, pixel_mm: float, acquired_mm: float, thickness_mm: float) -> SliceStack:
    field = (shape[0] * pixel_mm, shape[1] * pixel_mm)
    first = places[0]
    to_middle = pixel_mm * ((shape[1] - 1) / 2 * first.row_ras + (shape[0] - 1) / 2 * first.column_ras)
    acquired = tuple(min(size, max(48, int(edge / acquired_mm) // 8 * 8)) for size, edge in zip(shape, field, strict=True))
    return SliceStack(
        np.array([place.corner_ras_mm for place in places]) + to_middle,
        _triple(first.row_ras), _triple(first.column_ras), field, (acquired[0], acquired[1]), shape, thickness_mm,
    )  # fmt: skip


def _triple(vector: Floats) -> Point:
    r, a, s = vector.tolist()
    return r, a, s
