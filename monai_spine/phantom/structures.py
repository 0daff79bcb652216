"""Which structure of a simulated patient a point lies in: the canal behind a disc, a side's foramen, a side's recess."""

from __future__ import annotations

import numpy as np

from monai_spine.anatomy import Condition, Side, Target
from monai_spine.geometry import Point
from monai_spine.phantom.render import Patient

__all__ = ["lies_in"]

_CANAL_HALF_HEIGHT_MM = 12.0
_RECESS_HALF_HEIGHT_MM = 10.0


def lies_in(patient: Patient, target: Target, point_ras_mm: Point) -> bool:
    """Whether a point lies in the structure that a target names.

    The structures are the spaces as they are before anything narrows them: the canal within its walls and less than 12 mm above or
    below the disc's middle; the bony foramen, keyhole and all; the recess within its walls, less than 10 mm from the disc's middle.

    Args:
        patient: What is drawn.
        target: Condition, side and level; the side is the patient's own.
        point_ras_mm: RAS+ mm.
    """
    spine = patient.spine
    u, v, s = (float(value[0]) for value in patient.unevenness.displace(*spine.curve.from_ras(np.array([point_ras_mm]))))
    up = s - spine.disc_s_mm(target.level)
    out, front, raised = spine.shift_mm(target)
    if target.condition is Condition.SPINAL_CANAL_STENOSIS:
        half_width, half_depth = spine.canal_width_mm / 2 + 0.8, spine.canal_depth_mm / 2 + 1.2
        return abs(up) < _CANAL_HALF_HEIGHT_MM and _within(u, v + spine.canal_depth_mm / 2, half_width, half_depth)
    u = u if target.side is Side.RIGHT else -u
    if target.condition is Condition.SUBARTICULAR_STENOSIS:
        aside = u - spine.recess_u_mm - out
        return abs(up) < _RECESS_HALF_HEIGHT_MM and _within(aside, v + 3.8 - front, 5.6, 5.2)
    along = abs(u - spine.foramen_u_mm(target.level) - out) < 7.5
    return along and _within(up - 5.0 - raised, v + 4.0 - front, 9.8, 4.6)


def _within(x: float, y: float, half_x: float, half_y: float) -> bool:
    return (x / half_x) ** 2 + (y / half_y) ** 2 < 1
