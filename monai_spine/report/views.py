"""Slices as a reader of films expects them: axial from below, sagittal with the front to the viewer's left, head up.

A view holds pixels with the two directions they run in. It is drawn with the front or the patient's right at the viewer's left,
and the letters at its edges come from its affine, never from a habit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from monai_spine.geometry import Affine, PlaneOrientation, Point, apply_affine, invert_affine, spacing_of, to_ras_axes

__all__ = ["SliceView", "scale_bar_mm", "slice_view"]

_LETTERS = (("R", "L"), ("A", "P"), ("H", "F"))
_ACROSS_DOWN = {PlaneOrientation.SAGITTAL: (0, 1, 2), PlaneOrientation.CORONAL: (1, 0, 2), PlaneOrientation.AXIAL: (2, 0, 1)}


@dataclass(frozen=True)
class SliceView:
    """One slice of a volume, in millimetres of its own plane.

    Attributes:
        pixels: (across, up): index 0 grows towards the right or the front of the patient, index 1 towards the head or the front.
        spacing_mm: Edges of a pixel, (across, up).
        letters: What lies at the viewer's left, right, top and bottom.
        index: Which slice of the volume it is, counted along R, A or S.
        axes: Axis of the volume through the slices, across and up: 0 R, 1 A, 2 S.
        affine: 4 × 4 of the volume in its nearest R, A, S order.
    """

    pixels: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float]
    letters: tuple[str, str, str, str]
    index: int
    axes: tuple[int, int, int]
    affine: Affine

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Width and height."""
        return self.pixels.shape[0] * self.spacing_mm[0], self.pixels.shape[1] * self.spacing_mm[1]

    def locate(self, point_ras_mm: Point) -> tuple[float, float, float]:
        """Where a point lies: across and up in mm from the slice's edge, and its distance from the slice in slices."""
        across, up, away = (float(value) for value in self._places(point_ras_mm))
        return across, up, abs(away)

    def narrowed(self, low_mm: float, high_mm: float) -> SliceView:
        """The columns of pixels from one place across to another, in mm as `locate` gives them; at least one column."""
        count = self.pixels.shape[0]
        first = int(np.clip(np.floor(low_mm / self.spacing_mm[0]), 0, count - 1))
        last = int(np.clip(np.ceil(high_mm / self.spacing_mm[0]), first + 1, count))
        shift = np.eye(4)
        shift[self.axes[1], 3] = first
        return replace(self, pixels=self.pixels[first:last], affine=self.affine @ shift)

    def pixel_places_on(self, other: SliceView) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Where this slice's pixels fall on another slice, projected onto it: across and up in mm, each (across, up)."""
        voxels = np.zeros((*self.pixels.shape, 3))
        voxels[..., self.axes[0]] = self.index
        voxels[..., self.axes[1]], voxels[..., self.axes[2]] = np.indices(self.pixels.shape)
        places = other._places(apply_affine(self.affine, voxels))
        return places[..., 0], places[..., 1]

    def _places(self, points_ras_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Across and up in mm, and slices away, for points (..., 3)."""
        through, across, up = np.moveaxis(apply_affine(invert_affine(self.affine), points_ras_mm)[..., list(self.axes)], -1, 0)
        return np.stack([(across + 0.5) * self.spacing_mm[0], (up + 0.5) * self.spacing_mm[1], through - self.index], axis=-1)


def slice_view(
    array: npt.NDArray[np.generic], affine: Affine, plane: PlaneOrientation, *, at_ras_mm: Point | None = None
) -> SliceView:
    """Take one slice out of a volume that is stored in any order.

    Args:
        array: Voxels (i, j, k).
        affine: 4 × 4, voxel to RAS+ mm.
        plane: Which of the volume's three stacks of slices.
        at_ras_mm: A point on the slice; the middle slice where none is given.
    """
    voxels, ras_affine = to_ras_axes(array, affine)
    through, across, up = _ACROSS_DOWN[plane]
    middle = (voxels.shape[through] - 1) / 2
    index = middle if at_ras_mm is None else apply_affine(invert_affine(ras_affine), at_ras_mm)[through]
    index = int(np.clip(np.round(index), 0, voxels.shape[through] - 1))
    spacing = spacing_of(ras_affine)
    return SliceView(
        pixels=np.asarray(voxels.take(index, axis=through), dtype=np.float32),
        spacing_mm=(spacing[across], spacing[up]),
        letters=_edge_letters(ras_affine, across, up),
        index=index,
        axes=(through, across, up),
        affine=ras_affine,
    )


def scale_bar_mm(width_mm: float) -> float:
    """A round length of 1, 2 or 5 times a power of ten, at most a third of the width."""
    power = 10.0 ** np.floor(np.log10(width_mm / 3))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_mm / 3))


def _edge_letters(affine: Affine, across: int, up: int) -> tuple[str, str, str, str]:
    """Letters at the viewer's left, right, top and bottom. Index 0 of the pixels is drawn growing to the viewer's left."""
    left, right = _ends(affine[:3, across])
    top, bottom = _ends(affine[:3, up])
    return left, right, top, bottom


def _ends(direction: npt.NDArray[np.float64]) -> tuple[str, str]:
    """The letter that a direction points to, and its opposite."""
    axis = int(np.argmax(np.abs(direction)))
    forward, backward = _LETTERS[axis]
    return (forward, backward) if direction[axis] > 0 else (backward, forward)
