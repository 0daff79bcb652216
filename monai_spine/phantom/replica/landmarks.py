"""Where real points lie relative to the canal's centre at the height of their disc: medians of the RSNA 2024 points.

Measured on the 240 studies whose sagittal T1 and T2 share their place (`sagittal_slice_positions.csv`), as the share of the
canal's length from L1/L2 to L5/S1, times 128 mm.
"""

from __future__ import annotations

from monai_spine.anatomy import LEVELS, Level

__all__ = ["FORAMEN_FRONT_MM", "FORAMEN_OUT_MM", "FORAMEN_UP_MM", "GAP_MM"]

FORAMEN_FRONT_MM: dict[Level, float] = dict(zip(LEVELS, (0.4, 1.8, 4.7, 9.6, 14.2), strict=True))
"""How far the foramen's point lies in front of the canal's."""

FORAMEN_UP_MM: dict[Level, float] = dict(zip(LEVELS, (8.1, 8.9, 8.5, 7.4, 2.6), strict=True))
"""How far it lies above it."""

FORAMEN_OUT_MM: dict[Level, float] = dict(zip(LEVELS, (15.0, 15.2, 16.8, 17.6, 19.2), strict=True))
"""How far it lies to its side."""

GAP_MM: dict[Level, float] = dict(zip(LEVELS, (34.0, 33.5, 32.0, 26.5, 0.0), strict=True))
"""How far the next lower canal point lies below."""
