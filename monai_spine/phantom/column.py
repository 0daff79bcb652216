"""The course of the spine: a curve through the patient, and coordinates along it.

Column coordinates of a point are (u, v, s) in mm: u to the patient's right of the midline, v in front of the back wall of the
vertebral bodies (negative inside the canal), s upwards along that wall, 0 at the middle of L3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.geometry import Point

__all__ = ["ColumnCurve", "bend_column"]

Floats = npt.NDArray[np.floating[Any]]

_STEP_MM = 0.5


@dataclass(frozen=True)
class ColumnCurve:
    """The back wall of the vertebral bodies in the midline.

    Attributes:
        s_mm: Arc length, ascending (upwards), shape (n,).
        points_ras_mm: Where the curve runs, shape (n, 3).
        tilt_rad: How far the curve leans forward as it goes up, shape (n,).
        lean_rad: How far it leans to the right, shape (n,).
    """

    s_mm: npt.NDArray[np.float64]
    points_ras_mm: npt.NDArray[np.float64]
    tilt_rad: npt.NDArray[np.float64]
    lean_rad: npt.NDArray[np.float64]

    def frame_at(self, s_mm: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Origin (..., 3) and axes (..., 3, 3) at arc lengths; the rows of the axes are right, front and up."""
        s = np.asarray(s_mm, dtype=float)
        origin = np.stack([np.interp(s, self.s_mm, self.points_ras_mm[:, axis]) for axis in range(3)], axis=-1)
        tilt, lean = np.interp(s, self.s_mm, self.tilt_rad), np.interp(s, self.s_mm, self.lean_rad)
        zero = np.zeros_like(tilt)
        up = np.stack([np.sin(lean), np.cos(lean) * np.sin(tilt), np.cos(lean) * np.cos(tilt)], axis=-1)
        front = np.stack([zero, np.cos(tilt), -np.sin(tilt)], axis=-1)
        right = np.cross(front, up)
        return origin, np.stack([right, front, up], axis=-2)

    def to_ras(self, u_mm: float, v_mm: float, s_mm: float) -> Point:
        """The place in space of one point given in column coordinates."""
        origin, axes = self.frame_at(s_mm)
        r, a, s = origin + u_mm * axes[0] + v_mm * axes[1]
        return float(r), float(a), float(s)

    def from_ras(self, points_ras_mm: npt.NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
        """Column coordinates u, v, s, each (...,), of points (..., 3): the foot of the perpendicular on the curve."""
        s = np.interp(points_ras_mm[..., 2], self.points_ras_mm[:, 2], self.s_mm)
        _, along = self.frame_at(self.s_mm)
        up, reach = along[:, 2], (along[:, 2] * self.points_ras_mm).sum(-1)
        for _ in range(4):
            row = ((s - self.s_mm[0]) / _STEP_MM + 0.5).astype(np.intp)
            ahead = points_ras_mm[..., 0] * up[row, 0] + points_ras_mm[..., 1] * up[row, 1] + points_ras_mm[..., 2] * up[row, 2]
            s = np.clip(s + 0.8 * (ahead - reach[row]), self.s_mm[0], self.s_mm[-1])
        origin, axes = self.frame_at(s)
        offset = points_ras_mm - origin
        u, v = (offset * axes[..., 0, :]).sum(-1), (offset * axes[..., 1, :]).sum(-1)
        beyond = (offset * axes[..., 2, :]).sum(-1)
        return u.astype(np.float32), v.astype(np.float32), (s + beyond).astype(np.float32)


def bend_column(
    anchors_s_mm: npt.ArrayLike, tilts_deg: npt.ArrayLike, leans_deg: npt.ArrayLike, *, origin_ras_mm: Point
) -> ColumnCurve:
    """Draw the curve whose tilt and lean pass smoothly through given values.

    Args:
        anchors_s_mm: Arc lengths at which the angles are given, ascending.
        tilts_deg: Forward tilt there.
        leans_deg: Lean to the right there.
        origin_ras_mm: Where s = 0 lies.
    """
    anchors = np.asarray(anchors_s_mm, dtype=float)
    s = np.arange(anchors[0] - 60, anchors[-1] + 60, _STEP_MM)
    tilt = _smooth(np.interp(s, anchors, np.deg2rad(tilts_deg)), 12 / _STEP_MM)
    lean = _smooth(np.interp(s, anchors, np.deg2rad(leans_deg)), 12 / _STEP_MM)
    up = np.stack([np.sin(lean), np.cos(lean) * np.sin(tilt), np.cos(lean) * np.cos(tilt)], axis=-1)
    points = np.cumsum(up * _STEP_MM, axis=0)
    middle = np.array([np.interp(0.0, s, points[:, axis]) for axis in range(3)])
    return ColumnCurve(s, points - middle + np.asarray(origin_ras_mm), tilt, lean)


def _smooth(values: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Gaussian smoothing with mirrored ends."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(values, sigma, mode="nearest"))
