"""Which structure of a simulated patient a point lies in: the canal behind a disc, a side's foramen, a side's recess."""

from __future__ import annotations

import numpy as np

from monai_spine.anatomy import Condition, Side, Target
from monai_spine.geometry import Point
from monai_spine.phantom.render import Patient

__all__ = ["lies_in"]

_CANAL_HALF_HEIGHT_MM = 12.0
_RECESS_HALF_HEIGHT_MM = 10.0
_FORAMEN_HALF_LENGTH_MM = 7.5


def lies_in(patient: Patient, target: Target, point_ras_mm: Point) -> bool:
    """Whether a point lies in the structure that a target names.

    The structures are the spaces as they are before anything narrows them: the canal within its walls and less than 12 mm above
    or below the disc's middle; the recess within its walls, less than 10 mm from the disc's middle; the bony foramen, keyhole
    and all, outside these walls.

    Args:
        patient: What is drawn.
        target: Condition, side and level; the side is the patient's own.
        point_ras_mm: RAS+ mm.
    """
    spine = patient.spine
    u, v, s = (float(value[0]) for value in patient.unevenness.displace(*spine.curve.from_ras(np.array([point_ras_mm]))))
    up = s - spine.disc_s_mm(target.level)
    half_width, half_depth = spine.canal_width_mm / 2 + 0.8, spine.canal_depth_mm / 2 + 1.2
    in_canal = _within(u, v + spine.canal_depth_mm / 2, half_width, half_depth)
    if target.side is None:
        return in_canal and abs(up) < _CANAL_HALF_HEIGHT_MM
    outward = u if target.side is Side.RIGHT else -u
    recess = Target(Condition.SUBARTICULAR_STENOSIS, target.side, target.level)
    aside, ahead, _ = spine.shift_mm(recess)
    trim = spine.recess_trim_mm / 2
    in_recess = _within(outward - spine.recess_u_mm - aside + trim, v + 3.8 - ahead, 5.6 - trim, 5.2)
    if target == recess:
        return in_recess and abs(up) < _RECESS_HALF_HEIGHT_MM
    out, front, raised = spine.shift_mm(target)
    along = abs(outward - spine.foramen_u_mm(target.level) - out) < _FORAMEN_HALF_LENGTH_MM
    return along and _within(up - 5.0 - raised, v + 4.0 - front, 9.8, 4.6) and not (in_canal or in_recess)


def _within(x: float, y: float, half_x: float, half_y: float) -> bool:
    return (x / half_x) ** 2 + (y / half_y) ** 2 < 1
