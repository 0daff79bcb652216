"""A patient's own distance of the foramina is found by their fat."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_prepared import SHAPES, affine_of, canal_points

from monai_spine.anatomy import LEVELS, Level
from monai_spine.foramina import foraminal_offset_mm, foraminal_shift_mm
from monai_spine.geometry import apply_affine
from monai_spine.levels import LevelPoint, Levels
from monai_spine.placement import ColumnFrame, column_frames
from monai_spine.volume import Volume

OFFSETS = dict.fromkeys(LEVELS, (16.0, 4.0, 5.0))


def frames() -> dict[Level, ColumnFrame]:
    points = [LevelPoint(level, (r, a + 24, s), (r, a, s), 0.9) for level, (r, a, s) in canal_points().items()]
    return column_frames(Levels(tuple(points), vertebrae=()))


def scan(fat_at_mm: float | None) -> Volume:
    """A T1 scan: dark canal, grey tissue, and bright fat at a distance to both sides."""
    affine = affine_of("sagittal_t1")
    affine[:3, 2], affine[:3, 3] = (-3, 0, 0), (33, 60, 92)
    shape = (*SHAPES["sagittal_t1"][:2], 23)
    across = np.abs(affine[0, 2] * np.arange(shape[2]) + affine[0, 3])
    values = np.where(across < 9, 100.0, 300.0)
    if fat_at_mm is not None:
        values = values + 400 * np.exp(-0.5 * ((across - fat_at_mm) / 3.5) ** 2)
    return Volume(np.broadcast_to(values, shape).astype(np.float32), affine)


def test_the_scan_reaches_both_sides() -> None:
    assert abs(apply_affine(scan(None).affine, (0, 0, 22))[0]) == 33


@pytest.mark.parametrize("further_mm", [-2.0, 0.0, 3.0])
def test_the_shift_follows_the_fat(further_mm: float) -> None:
    shift = foraminal_shift_mm([scan(19.0 + further_mm)], frames(), OFFSETS)
    assert shift == pytest.approx(0.6 * further_mm, abs=0.6)


def test_without_fat_nothing_is_shifted() -> None:
    flat = Volume(np.full(SHAPES["sagittal_t1"], 300.0, np.float32), affine_of("sagittal_t1"))
    assert foraminal_shift_mm([flat], frames(), OFFSETS) == 0.0


def test_a_scan_that_does_not_reach_the_foramina_shifts_nothing() -> None:
    narrow = scan(22.0)
    narrow = Volume(narrow.array[:, :, 8:15], np.array(narrow.affine))
    assert foraminal_shift_mm([narrow], frames(), OFFSETS) == 0.0
    assert foraminal_shift_mm([], frames(), OFFSETS) == 0.0


def test_only_the_distance_to_the_side_changes() -> None:
    assert foraminal_offset_mm((16.0, 4.0, 5.0), -1.5) == (14.5, 4.0, 5.0)
