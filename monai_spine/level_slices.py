"""Which sagittal slice shows a level's canal, and which its foramina: what a reader of the scan turns to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from monai_spine.geometry import Point, apply_affine, invert_affine
from monai_spine.levels import LevelPoint, Levels, SagittalSlice
from monai_spine.volume import Volume

__all__ = ["on_slices", "slices_from_json", "slices_json"]

_NUMBERS, _UIDS = "sagittal_slices", "sagittal_sop_instance_uids"


def on_slices(levels: Levels, volume: Volume) -> Levels:
    """The same levels with the nearest sagittal slice of each canal and foramen.

    Slices are those across the axis nearest to right and left, whatever the order of files or voxels; 0 is the outermost on the
    patient's right. Their SOPInstanceUIDs are given where the scan was acquired in such slices.

    Args:
        levels: As they were found.
        volume: The scan that they were found on.
    """
    scan = volume.to_ras()
    return replace(levels, levels=tuple(_with_slices(found, scan) for found in levels.levels))


def slices_json(found: LevelPoint) -> dict[str, Any]:
    """A level's slices as `result.json` and the files of levels hold them; empty where none is known."""
    numbers = {name: one.number for name, one in found.slices.items()}
    uids = {name: one.sop_instance_uid for name, one in found.slices.items() if one.sop_instance_uid is not None}
    return {key: values for key, values in ((_NUMBERS, numbers), (_UIDS, uids)) if values}


def slices_from_json(entry: Mapping[str, Any]) -> dict[str, SagittalSlice]:
    """What `slices_json` gave."""
    uids = entry.get(_UIDS, {})
    return {name: SagittalSlice(int(number), uids.get(name)) for name, number in entry.get(_NUMBERS, {}).items()}


def _with_slices(found: LevelPoint, scan: Volume) -> LevelPoint:
    return replace(found, slices={name: _nearest(point, scan) for name, point in found.slice_points.items()})


def _nearest(point_ras_mm: Point, scan: Volume) -> SagittalSlice:
    """The slice of a scan along R, A, S whose middle lies nearest to a point."""
    last = scan.array.shape[0] - 1
    from_left = int(np.clip(np.round(apply_affine(invert_affine(scan.affine), point_ras_mm)[0]), 0, last))
    uids = scan.sop_instance_uids if scan.slice_axis == 0 else ()
    return SagittalSlice(last - from_left, uids[from_left] if uids else None)
