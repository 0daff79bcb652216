"""Space: affines, planes, and the change between RAS and LPS.

Points are arrays of shape (..., 3) in millimetres. RAS+ grows to the patient's right, front (anterior) and head (superior);
LPS+, DICOM's frame, to the left, back and head. An affine is 4 × 4 and maps voxel indices (i, j, k), counted from 0 at the
centre of the first voxel, to millimetres. This is the only module that flips or permutes axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from monai_spine.errors import VolumeGeometryError

__all__ = [
    "Affine",
    "Plane",
    "PlaneOrientation",
    "Point",
    "Triple",
    "affine_from_spacing",
    "apply_affine",
    "check_affine",
    "flip_axis",
    "invert_affine",
    "lies_inside",
    "lps_from_ras",
    "mirror_point",
    "normal_of",
    "plane_orientation",
    "ras_from_lps",
    "slice_affine",
    "spacing_of",
    "to_ras_axes",
]

Point = tuple[float, float, float]
Triple = tuple[float, float, float]
Affine = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]

_LPS_SIGNS = np.array([-1.0, -1.0, 1.0])


class PlaneOrientation(str, Enum):
    """The anatomical plane that a slice lies nearest to."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


def ras_from_lps(points_lps_mm: npt.ArrayLike) -> Floats:
    """Turn DICOM patient coordinates into RAS+ mm: the first two axes change sign. Shape (..., 3)."""
    return np.asarray(np.asarray(points_lps_mm, dtype=float) * _LPS_SIGNS)


def lps_from_ras(points_ras_mm: npt.ArrayLike) -> Floats:
    """Turn RAS+ mm into DICOM patient coordinates. Shape (..., 3)."""
    return np.asarray(np.asarray(points_ras_mm, dtype=float) * _LPS_SIGNS)


def apply_affine(affine: Affine, points: npt.ArrayLike) -> Floats:
    """Map points of shape (..., 3) through a 4 × 4 affine."""
    return np.asarray(np.asarray(points, dtype=float) @ affine[:3, :3].T + affine[:3, 3])


def check_affine(affine: npt.ArrayLike) -> Affine:
    """Return the affine as float64, or say why it describes no volume.

    Raises:
        VolumeGeometryError: Not 4 × 4, not finite, last row not (0, 0, 0, 1), or singular.
    """
    matrix = np.array(affine, dtype=float)
    if matrix.shape != (4, 4):
        raise VolumeGeometryError(f"The affine has shape {matrix.shape}; a volume needs 4 × 4. Rewrite the file's header.")
    if not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise VolumeGeometryError(
            f"The affine holds values that place nothing in space: {matrix.tolist()}. Rewrite the file's header."
        )
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths < 1e-6).any() or abs(np.linalg.det(matrix[:3, :3] / np.maximum(lengths, 1e-12))) < 1e-3:
        raise VolumeGeometryError(
            f"The affine is singular (voxel edges {np.round(lengths, 6).tolist()} mm): voxels have no place in space. "
            "Rewrite the file's header with its true spacing and orientation."
        )
    return matrix


def invert_affine(affine: Affine) -> Affine:
    """The affine from millimetres back to voxel indices.

    Raises:
        VolumeGeometryError: The affine is singular.
    """
    return np.asarray(np.linalg.inv(check_affine(affine)))


def lies_inside(points_ras_mm: npt.ArrayLike, affine: Affine, shape: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Whether a voxel of a grid holds each of the points (..., 3). Voxels end half an edge from their centre; NaN is nowhere."""
    places = apply_affine(invert_affine(affine), points_ras_mm)
    return np.asarray(((places >= -0.5) & (places <= np.asarray(shape) - 0.5)).all(-1))


def spacing_of(affine: Affine) -> Triple:
    """Length of a voxel's edges along i, j, k in mm."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return float(i), float(j), float(k)


def affine_from_spacing(spacing_mm: Triple, *, center_ras_mm: Point, shape: tuple[int, int, int]) -> Affine:
    """Affine of a grid whose axes are R, A, S and whose middle lies at a point.

    Args:
        spacing_mm: Edges of a voxel along R, A, S.
        center_ras_mm: Where the middle of the grid lies, RAS+ mm.
        shape: Voxels along R, A, S.
    """
    affine = np.diag([*spacing_mm, 1.0])
    half = (np.asarray(shape, dtype=float) - 1) / 2
    affine[:3, 3] = np.asarray(center_ras_mm) - affine[:3, :3] @ half
    return affine


def normal_of(image_orientation_patient: npt.ArrayLike) -> Floats:
    """Unit normal of a DICOM slice in LPS: row direction × column direction (PS3.3 C.7.6.2.1.1).

    Raises:
        VolumeGeometryError: The two directions are not perpendicular unit vectors.
    """
    cosines = np.asarray(image_orientation_patient, dtype=float).reshape(2, 3)
    if not np.allclose(np.linalg.norm(cosines, axis=1), 1, atol=1e-2) or abs(cosines[0] @ cosines[1]) > 1e-2:
        raise VolumeGeometryError(
            f"ImageOrientationPatient {cosines.ravel().round(4).tolist()} is no pair of perpendicular unit vectors: "
            "the slice has no place in space. Export the series again."
        )
    normal = np.cross(cosines[0], cosines[1])
    return np.asarray(normal / np.linalg.norm(normal))


def plane_orientation(normal: npt.ArrayLike) -> PlaneOrientation:
    """The anatomical plane nearest to a slice with this normal (LPS or RAS, sign does not matter)."""
    axis = int(np.argmax(np.abs(np.asarray(normal, dtype=float))))
    return (PlaneOrientation.SAGITTAL, PlaneOrientation.CORONAL, PlaneOrientation.AXIAL)[axis]


def slice_affine(
    image_position_patient: npt.ArrayLike,
    image_orientation_patient: npt.ArrayLike,
    *,
    pixel_spacing_mm: tuple[float, float],
    step_lps_mm: npt.ArrayLike,
) -> Affine:
    """Affine of DICOM slices stacked along k, to RAS+ mm (PS3.3 C.7.6.2.1.1).

    Args:
        image_position_patient: Centre of the first slice's first voxel, LPS mm.
        image_orientation_patient: Six direction cosines: along a row, then down a column.
        pixel_spacing_mm: DICOM PixelSpacing: distance between rows, then between columns.
        step_lps_mm: From one slice to the next, LPS mm.

    Returns:
        4 × 4, where i counts columns (along a row), j counts rows, and k counts slices.
    """
    row, column = np.asarray(image_orientation_patient, dtype=float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = ras_from_lps(row * pixel_spacing_mm[1])
    affine[:3, 1] = ras_from_lps(column * pixel_spacing_mm[0])
    affine[:3, 2] = ras_from_lps(step_lps_mm)
    affine[:3, 3] = ras_from_lps(image_position_patient)
    return check_affine(affine)


def flip_axis(array: npt.NDArray[np.generic], affine: Affine, axis: int) -> tuple[npt.NDArray[np.generic], Affine]:
    """Reverse the storage order along one axis; every voxel keeps its place in space."""
    step = np.eye(4)
    step[axis, axis] = -1
    step[axis, 3] = array.shape[axis] - 1
    return np.flip(array, axis), affine @ step


def to_ras_axes(array: npt.NDArray[np.generic], affine: Affine) -> tuple[npt.NDArray[np.generic], Affine]:
    """Permute and flip a stored volume so that its axes run nearest to R, A, S. No voxel is resampled.

    Args:
        array: Voxels (i, j, k) as stored.
        affine: 4 × 4, (i, j, k) to RAS+ mm.

    Returns:
        The same voxels as (R, A, S), and the affine that goes with them.
    """
    order, signs = _nearest_axes(affine)
    permutation = np.zeros((4, 4))
    permutation[[*order, 3], [0, 1, 2, 3]] = 1
    array, affine = np.transpose(array, order), affine @ permutation
    for axis in range(3):
        if signs[axis] < 0:
            array, affine = flip_axis(array, affine, axis)
    return array, affine


def _nearest_axes(affine: Affine) -> tuple[tuple[int, int, int], Floats]:
    """For each of R, A, S: the stored axis that runs nearest to it, and in which direction."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    permutations = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = max(permutations, key=lambda order: sum(abs(directions[world, axis]) for world, axis in enumerate(order)))
    return best, np.array([directions[world, axis] for world, axis in enumerate(best)])


def mirror_point(point_ras_mm: Point, *, plane_r_mm: float = 0.0) -> Point:
    """A point after a left-right flip about the plane R = `plane_r_mm`."""
    return 2 * plane_r_mm - point_ras_mm[0], point_ras_mm[1], point_ras_mm[2]


@dataclass(frozen=True)
class Plane:
    """A plane in RAS+ mm, given by one point on it and its unit normal."""

    point_ras_mm: Point
    normal_ras: Triple

    def distance_mm(self, points_ras_mm: npt.ArrayLike) -> Floats:
        """Signed distance of points (..., 3): positive on the side that the normal points to."""
        return np.asarray((np.asarray(points_ras_mm, dtype=float) - self.point_ras_mm) @ np.asarray(self.normal_ras))

    def project(self, points_ras_mm: npt.ArrayLike) -> Floats:
        """The nearest points of the plane, shape (..., 3)."""
        points = np.asarray(points_ras_mm, dtype=float)
        return np.asarray(points - self.distance_mm(points)[..., None] * np.asarray(self.normal_ras))
