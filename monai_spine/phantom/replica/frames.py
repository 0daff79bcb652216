"""Where the pixels of a sagittal series lie: from the table of slice positions where it has them, otherwise from the points.

A pixel x, y of instance n lies at `corners[n] + pixel_mm * (x * row + y * column)`. Before the column is fitted, `pixel_mm` and
the place of a series that the table does not place are unknown (0); `fit.py` finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Side
from monai_spine.errors import TableError
from monai_spine.phantom.replica.tables import TablePoint, TableSeries, TableStudy

__all__ = ["SagittalFrame", "instance_numbers", "sagittal_frames"]

Floats = npt.NDArray[np.float64]

_FORAMINA_APART_MM = 34.0


@dataclass(frozen=True)
class SagittalFrame:
    """Slices of a sagittal series in space.

    Attributes:
        series: What the tables say of it.
        numbers: Instance numbers, ascending.
        corners_ras_mm: Centre of each slice's first voxel, shape (n, 3); up to a shift if not `placed`.
        placed: The table of positions knows this series.
        row_ras, column_ras: Unit directions along a row and down a column.
        pixel_mm: Edge of a pixel of the real matrix; 0 while unknown.
    """

    series: TableSeries
    numbers: tuple[int, ...]
    corners_ras_mm: Floats
    placed: bool
    row_ras: Floats
    column_ras: Floats
    pixel_mm: float = 0.0

    def corner(self, instance: int) -> Floats:
        """Centre of the first voxel of one instance."""
        return np.asarray(self.corners_ras_mm[self.numbers.index(instance)])

    def direction(self, point: TablePoint) -> Floats:
        """From the first voxel to a point, in pixels along R, A, S."""
        return np.asarray(point.x * self.row_ras + point.y * self.column_ras)

    def locate(self, point: TablePoint) -> Floats:
        """The place of a point, RAS+ mm."""
        return np.asarray(self.corner(point.instance) + self.pixel_mm * self.direction(point))


def instance_numbers(series: TableSeries, points: Sequence[TablePoint]) -> tuple[int, ...]:
    """The instance numbers of a series: from 1 on, unless the tables name instances beyond its slice count.

    Then they run around those that are named; where these are too far apart, numbers far from them are left out.

    Raises:
        TableError: The tables name more instances than the series has slices.
    """
    named = sorted({*series.positions_ras_mm, *(point.instance for point in points)})
    low, high, count = min(named, default=1), max(named, default=1), series.slices
    if len(named) > count:
        raise TableError(
            f"Series {series.series_id} has {count} slices, yet its points and positions name {len(named)} instances. "
            "Correct the slice count in the table of sizes."
        )
    if high <= count:
        return tuple(range(1, count + 1))
    if high - low < count:
        first = max(round((low + high - count + 1) / 2), high - count + 1)
        return tuple(range(first, first + count))
    nearest = sorted(range(low, high + 1), key=lambda number: (min(abs(number - other) for other in named), number))
    return tuple(sorted(nearest[:count]))


def sagittal_frames(table: TableStudy, rng: np.random.Generator) -> tuple[SagittalFrame, ...]:
    """Lay out the slices of a study's sagittal series.

    Where the positions of a series do not tell its step, it has that of the study's other series with as many slices: so it is in
    294 of 294 real studies.
    """
    steps: dict[int, Floats] = {}
    frames: dict[int, SagittalFrame] = {}
    for series in sorted(table.series, key=lambda one: (len(one.positions_ras_mm) < 2, one.role)):
        if not series.is_axial:
            points = table.points_on(series)
            if len(series.positions_ras_mm) > 1:
                steps[series.slices] = _known_step(series)
            elif series.slices not in steps:
                steps[series.slices] = _guessed_step(points, series.slices, rng)
            frames[series.series_id] = _frame(series, points, steps[series.slices])
    return tuple(frames[series.series_id] for series in table.series if not series.is_axial)


def _frame(series: TableSeries, points: Sequence[TablePoint], step: Floats) -> SagittalFrame:
    numbers, known = instance_numbers(series, points), sorted(series.positions_ras_mm)
    start = known[0] if known else numbers[len(numbers) // 2]
    origin = np.array(series.positions_ras_mm.get(start, (0.0, 0.0, 0.0)))
    corners = np.array([series.positions_ras_mm.get(number, origin + (number - start) * step) for number in numbers])
    normal = step / np.linalg.norm(step)
    column = np.array([0.0, 0.0, -1.0]) + normal * normal[2]
    column /= np.linalg.norm(column)
    row = np.cross(normal, column)
    row *= -np.sign(row[1])
    return SagittalFrame(series, numbers, corners, bool(known), row, column)


def _known_step(series: TableSeries) -> Floats:
    """From one instance to the next, fitted to the positions that the table has."""
    known = sorted(series.positions_ras_mm)
    places = np.array([series.positions_ras_mm[number] for number in known])
    steps, *_ = np.linalg.lstsq(np.column_stack([known, np.ones(len(known))]), places, rcond=None)
    return np.asarray(steps[0])


def _guessed_step(points: Sequence[TablePoint], count: int, rng: np.random.Generator) -> Floats:
    """A step that sets the left and right foramina of most levels as far apart, and on the sides, as they are."""
    apart = [
        left.instance - right.instance
        for left in points
        for right in points
        if (left.target.side, right.target.side) == (Side.LEFT, Side.RIGHT) and left.target.level is right.target.level
    ]
    slices = float(np.median(apart)) if apart else 0.0
    turn, nod = np.deg2rad(rng.normal(0, 2.0, 2))
    size = float(np.clip(rng.normal(75, 8) / count, 3.3, 6.6))
    if abs(slices) >= 2:
        size = float(np.clip(_FORAMINA_APART_MM / abs(slices), 3.3, 6.6))
    sign = -np.sign(slices) if slices else rng.choice([-1.0, 1.0])
    return np.asarray(sign * size * np.array([np.cos(nod) * np.cos(turn), np.sin(turn), np.sin(nod)]))
