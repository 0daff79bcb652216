"""A scan block as one array and one affine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from monai_spine.geometry import Affine, Triple, spacing_of, to_ras_axes

__all__ = ["Volume"]


@dataclass(frozen=True)
class Volume:
    """Slices of one orientation at even distances.

    Attributes:
        array: Voxels (i, j, k) as stored, float32.
        affine: 4 × 4, voxel centre (i, j, k) to RAS+ mm.
        series_instance_uid: The series it came from, if that was DICOM.
        sop_instance_uids: One per slice along `slice_axis`; empty where the source was not DICOM.
        slice_axis: The axis of `array` that counts slices.
        flags: What was noticed while it was put together, in words.
    """

    array: npt.NDArray[np.float32]
    affine: Affine
    series_instance_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    slice_axis: int = 2
    flags: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> Triple:
        """Distance of voxel centres along i, j, k in mm."""
        return spacing_of(self.affine)

    def to_ras(self) -> Volume:
        """The same voxels, stored along the axes nearest to R, A, S."""
        array, affine = to_ras_axes(self.array, self.affine)
        slice_direction = self.affine[:3, self.slice_axis] / np.linalg.norm(self.affine[:3, self.slice_axis])
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        alignment = slice_direction @ directions
        axis = int(np.argmax(np.abs(alignment)))
        uids = self.sop_instance_uids if alignment[axis] > 0 else self.sop_instance_uids[::-1]
        return replace(self, array=np.asarray(array, np.float32), affine=affine, slice_axis=axis, sop_instance_uids=uids)
