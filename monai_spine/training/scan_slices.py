"""Pictures as a reader sees them: each is cut within the slices of its own scan, sagittal or axial, around a point or whole.

Index 0 runs across the slices; 1 and 2 lie within a slice: A and S of a sagittal scan, R and A of an axial one. So scans of all
roles give pictures of one shape, as two-dimensional classifiers of conditions expect them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import Target
from monai_spine.crops import crop_affine, resample_block
from monai_spine.geometry import Affine, Triple, apply_affine, invert_affine
from monai_spine.training.condition_crops import ConditionCrops
from monai_spine.training.grading_crops import through_axis
from monai_spine.volume import Volume

__all__ = ["ScanSlices"]

Item = Mapping[str, Any]
_AXIAL = 2
_WHOLE_MM = 2000.0


class ScanSlices(ConditionCrops):
    """Slices of scans around targets of all conditions, or whole slices in which a marker says which place is meant.

    Examples are those of `ConditionCrops` but for `image`: (1, slices, n, n).

    Args:
        data: Items of `condition_items`.
        crop: The bundle's crop section: roles, min_coverage, `size_mm` and `shape` (across the slices, then twice within them).
            With `whole`, each picture shows the whole slice as a square and `size_mm` counts across the slices alone; with
            `marker_mm`, a disc of this radius in the picture's brightest intensity lies on the point.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `Jitter`, in the order of the crop's axes. With `flip`, half of the pictures are mirrored within the
            slice: an axial one then shows the other side of the patient, a sagittal one has front and back exchanged.
        seed: Of the random pictures.

    Raises:
        TableError: Nothing is left: no item, or none inside its scan.
    """

    @property
    def whole(self) -> bool:
        """Whether each picture shows the whole slice."""
        return bool(self.section.get("whole", False))

    @property
    def marker_mm(self) -> float:
        """Radius of the marker; 0: there is none."""
        return float(self.section.get("marker_mm") or 0.0)

    def crop(self, index: int) -> npt.NDArray[np.float32]:
        """Voxels (slices, n, n) of one picture with its marker, before `transform`; at random where there is jitter."""
        affines, _ = self.placed([index])
        item, volume = self._kept[index]
        array = resample_block(volume, affines[0], self.spec.shape)
        if self.marker_mm > 0:
            _mark(array, affines[0], item["point_ras_mm"], self.marker_mm)
        return array

    def _affine(self, volume: Volume, item: Item) -> Affine:
        through = _across(volume)
        size_mm, center = self.spec.size_mm, item["point_ras_mm"]
        if self.whole:
            size_mm, center = _whole_slice(volume, item["point_ras_mm"], size_mm[0])
        shape = _ordered(self.spec.shape, through)
        affine = crop_affine(volume.affine, center, size_mm=_ordered(size_mm, through), shape=shape)
        return affine[:, [through, *(axis for axis in range(3) if axis != through), 3]]

    def _reach_mm(self, volume: Volume) -> tuple[Triple, Triple]:
        through, radius = _across(volume), self._radius_mm()
        if self.whole:
            radius = radius[0], _WHOLE_MM, _WHOLE_MM
            return _ordered((self.spec.size_mm[0], 1.0, 1.0), through), _ordered(radius, through)
        return _ordered(self.spec.size_mm, through), _ordered(radius, through)

    def _mirror_image(self, target: Target, image: torch.Tensor, index: int) -> tuple[Target, torch.Tensor]:
        _, volume = self._kept[index]
        return target.mirrored if _across(volume) == _AXIAL else target, image.flip(2)


def _across(volume: Volume) -> int:
    """Which of R, A, S lies nearest to the normal of a scan's slices."""
    return through_axis(volume, crop_affine(volume.affine, (0.0, 0.0, 0.0), size_mm=(1.0, 1.0, 1.0), shape=(1, 1, 1)))


def _ordered(values: Sequence[Any], through: int) -> tuple[Any, Any, Any]:
    """Values across the slices and twice within them, in the order R, A, S."""
    first, second, third = values
    inside = [second, third]
    inside.insert(through, first)
    return inside[0], inside[1], inside[2]


def _whole_slice(volume: Volume, point_ras_mm: Sequence[float], through_mm: float) -> tuple[Triple, tuple[float, float, float]]:
    """Edges and centre (RAS+ mm) of the square that holds the whole slice of a point."""
    middle = (np.asarray(volume.array.shape) - 1) / 2
    middle[volume.slice_axis] = apply_affine(invert_affine(volume.affine), point_ras_mm)[volume.slice_axis]
    within = [axis for axis in range(3) if axis != volume.slice_axis]
    edge = max(float(volume.array.shape[axis] * volume.spacing_mm[axis]) for axis in within)
    r, a, s = (float(value) for value in apply_affine(volume.affine, middle))
    return (through_mm, edge, edge), (r, a, s)


def _mark(array: npt.NDArray[np.float32], affine: Affine, point_ras_mm: Sequence[float], radius_mm: float) -> None:
    """Draw a disc of the brightest intensity on a point, in every slice."""
    place = apply_affine(invert_affine(affine), point_ras_mm)[1:]
    edges = np.linalg.norm(affine[:3, 1:3], axis=0)
    rows, columns = np.ogrid[: array.shape[1], : array.shape[2]]
    away = ((rows - place[0]) * edges[0]) ** 2 + ((columns - place[1]) * edges[1]) ** 2
    array[:, away <= radius_mm**2] = array.max()
