"""Where each target lies, seen from its level: outwards, to the front and to the head along the column's own axes.

The column's axes at a level: *up* runs along the canal's centres, *front* from the canal to the disc (averaged with the
neighbours, made perpendicular to up), *right* is perpendicular to both. They follow lordosis, scoliosis and a turned patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, Level, Side, Target
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Point, Triple

if TYPE_CHECKING:
    from monai_spine.levels import Levels

__all__ = ["CANAL_OFFSET_MM", "FORAMINAL_OFFSET_MM", "SUBARTICULAR_OFFSET_MM", "ColumnFrame", "column_frames", "target_point"]

Floats = npt.NDArray[np.float64]

CANAL_OFFSET_MM: Mapping[Level, Triple] = dict.fromkeys(LEVELS, (0.0, 0.0, 0.0))
"""The canal is graded at its own centre."""

SUBARTICULAR_OFFSET_MM: Mapping[Level, Triple] = dict.fromkeys(LEVELS, (9.0, 0.0, 0.0))
"""Subarticular points lie 8–12 mm to the side of the canal's centre, at the height of the disc."""

FORAMINAL_OFFSET_MM: Mapping[Level, Triple] = {
    Level.L1_L2: (15.0, 1.3, 7.0),
    Level.L2_L3: (15.4, 2.8, 8.4),
    Level.L3_L4: (16.8, 4.5, 8.4),
    Level.L4_L5: (17.9, 7.5, 9.3),
    Level.L5_S1: (18.4, 11.7, 8.2),
}
"""Medians in the tables of RSNA 2024. Outwards: half of the distance between the slices of the left and the right foraminal
point (311 studies with slice positions; tenth to ninetieth percentile of the whole distance 25–35 mm at L1/L2, 32–43 mm at
L5/S1). Front and head: foraminal against canal points in 368 studies whose two sagittal series have the same scale, taking
34.5 mm for the mean distance of neighbouring levels; half of them lie within ± 2.4 mm."""


@dataclass(frozen=True)
class ColumnFrame:
    """The column's axes at one level: the canal's centre in RAS+ mm, and three perpendicular unit vectors in RAS+."""

    level: Level
    origin_ras_mm: Point
    right: Floats
    front: Floats
    up: Floats

    def point(self, offset_mm: Triple, side: Side | None) -> Point:
        """The point that lies so far outwards (to the right where there is no side), to the front and to the head."""
        outwards = -self.right if side is Side.LEFT else self.right
        shifted = np.asarray(self.origin_ras_mm) + outwards * offset_mm[0] + self.front * offset_mm[1] + self.up * offset_mm[2]
        return float(shifted[0]), float(shifted[1]), float(shifted[2])

    def offset_mm(self, point_ras_mm: Point, side: Side | None) -> Triple:
        """The offset that `point` would turn into this point."""
        away = np.asarray(point_ras_mm) - self.origin_ras_mm
        outwards = -self.right if side is Side.LEFT else self.right
        return float(away @ outwards), float(away @ self.front), float(away @ self.up)


def column_frames(levels: Levels) -> dict[Level, ColumnFrame]:
    """The column's axes at each level whose canal was seen. With one level alone, up is the scanner's own."""
    seen = {point.level: point.canal_ras_mm for point in levels.levels if point.canal_ras_mm is not None}
    found = sorted((point for point in levels.levels if point.level in seen), key=lambda point: list(Level).index(point.level))
    canals = np.array([seen[point.level] for point in found], dtype=float).reshape(-1, 3)
    discs = np.array([point.disc_ras_mm for point in found], dtype=float).reshape(-1, 3)
    ups = -np.gradient(canals, axis=0) if len(found) > 1 else np.tile([0.0, 0.0, 1.0], (len(found), 1))
    fronts = _smoothed(discs - canals)
    names = [point.level for point in found]
    return {name: _frame(name, seen[name], up, front) for name, up, front in zip(names, ups, fronts, strict=True)}


def target_point(target: Target, levels: Levels, *, offsets_mm: Mapping[Level, Triple]) -> Point:
    """Where a target's crop is centred.

    Args:
        target: The finding.
        levels: Levels that were found.
        offsets_mm: Per level: outwards, to the front, to the head of the canal's centre; such as a bundle's `CropSpec.offset_mm`.

    Raises:
        LevelsNotFoundError: The level, or its canal, was not found.
    """
    frames = column_frames(levels)
    if target.level not in frames:
        found = ", ".join(level.label for level in frames) or "none"
        raise LevelsNotFoundError(f"{target.level.label} was not found (found: {found}). Give a series that shows it.")
    return frames[target.level].point(offsets_mm[target.level], target.side)


def _smoothed(vectors: Floats) -> Floats:
    """Each vector averaged with its neighbours, as unit vectors."""
    padded = np.concatenate([vectors[:1], vectors, vectors[-1:]]) if len(vectors) else vectors
    means = np.array([padded[at : at + 3].mean(axis=0) for at in range(len(vectors))]).reshape(-1, 3)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9))


def _frame(level: Level, canal_ras_mm: Point, up: Floats, front: Floats) -> ColumnFrame:
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    front = front - (front @ up) * up
    if np.linalg.norm(front) < 0.1:
        front = np.array([0.0, 1.0, 0.0]) - up[1] * up
    front = front / np.linalg.norm(front)
    return ColumnFrame(level=level, origin_ras_mm=canal_ras_mm, right=np.cross(front, up), front=front, up=up)
