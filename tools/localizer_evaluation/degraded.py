"""Scans made worse on purpose: what scanners, patients and implants do to images, as strong as a radiologist still reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from monai_spine.crops import crop_affine, resample_block
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine, spacing_of, to_ras_axes
from monai_spine.volume import Volume

__all__ = ["degraded"]

Floats = npt.NDArray[np.floating[Any]]

_NOISE, _GHOST, _BIAS = 0.12, 0.35, 0.5
_FALL_OFF_MM, _VOID_MM, _NARROW_MM = 60.0, 18.0, 180.0
_TURN_DEG = 12.0


def degraded(volume: Volume, middle_ras_mm: Point, implant_ras_mm: Point) -> dict[str, tuple[Volume, Affine]]:
    """Copies of a sagittal scan, each with one fault, and how the patient moved (4 × 4, RAS+ mm).

    Args:
        volume: The scan.
        middle_ras_mm: The middle of its discs.
        implant_ras_mm: Where the signal is gone.
    """
    array, affine = to_ras_axes(volume.array, volume.affine)
    scan = replace(volume, array=np.asarray(array, np.float32) - np.float32(array.min()), affine=affine, slice_axis=0)
    changes: Mapping[str, Callable[[], Floats]] = {
        "noise": lambda: scan.array + _NOISE * _height(scan) * _draws().standard_normal(scan.array.shape),
        "surface coil": lambda: scan.array * np.exp(-_from_the_back_mm(scan) / _FALL_OFF_MM),
        "uneven field": lambda: scan.array * (1 + _BIAS * _smooth_field(scan)),
        "motion": lambda: (1 - _GHOST) * scan.array + _GHOST * np.roll(scan.array, scan.array.shape[2] // 9, axis=2),
        "low contrast": lambda: np.sqrt(scan.array),
        "void of an implant": lambda: np.where(_distance_mm(scan, implant_ras_mm) < _VOID_MM, 0, scan.array),
    }
    copies = {name: replace(scan, array=np.asarray(change(), np.float32)) for name, change in changes.items()}
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [_TURN_DEG, _TURN_DEG, -_TURN_DEG], degrees=True).as_matrix()
    copies |= {
        "slices of 7 mm": _sampled(scan, (7.0, *spacing_of(affine)[1:])),
        "isotropic, 1.5 mm": _sampled(scan, (1.5, 1.5, 1.5)),
        "field of view of 180 mm": _narrowed(scan, middle_ras_mm),
    }
    still = {name: (copy, np.eye(4)) for name, copy in copies.items()}
    return still | {"patient turned by 12°": (replace(scan, affine=turn @ affine), turn)}


def _draws() -> np.random.Generator:
    return np.random.default_rng(0)


def _height(scan: Volume) -> float:
    return float(np.percentile(scan.array, 99))


def _from_the_back_mm(scan: Volume) -> Floats:
    """Distance from the patient's back, for each row of voxels."""
    return np.asarray((np.arange(scan.array.shape[1]) * spacing_of(scan.affine)[1])[None, :, None], np.float32)


def _smooth_field(scan: Volume) -> Floats:
    """A field from -1 to 1 that changes over several centimetres."""
    field = gaussian_filter(_draws().standard_normal(scan.array.shape), 40.0 / np.asarray(spacing_of(scan.affine)), mode="wrap")
    return np.asarray(field / np.abs(field).max(), np.float32)


def _distance_mm(scan: Volume, point_ras_mm: Point) -> Floats:
    places = apply_affine(scan.affine, np.moveaxis(np.indices(scan.array.shape), 0, -1))
    return np.asarray(np.linalg.norm(places - np.asarray(point_ras_mm), axis=-1), np.float32)


def _sampled(scan: Volume, spacing_mm: tuple[float, float, float]) -> Volume:
    """The same scan with voxels of another size, averaged where they are larger."""
    size = np.asarray(scan.array.shape) * spacing_of(scan.affine)
    x, y, z = (max(1, int(edge)) for edge in size / spacing_mm)
    r, a, s = (float(value) for value in apply_affine(scan.affine, (np.asarray(scan.array.shape) - 1) / 2))
    width, depth, height = (count * edge for count, edge in zip((x, y, z), spacing_mm, strict=True))
    affine = crop_affine(scan.affine, (r, a, s), size_mm=(width, depth, height), shape=(x, y, z))
    return replace(scan, array=resample_block(scan, affine, (x, y, z)), affine=affine)


def _narrowed(scan: Volume, middle_ras_mm: Point) -> Volume:
    """What a small field of view about the middle shows."""
    spacing, middle = np.asarray(spacing_of(scan.affine)), apply_affine(invert_affine(scan.affine), middle_ras_mm)
    low = np.maximum(np.round(middle - _NARROW_MM / 2 / spacing), 0).astype(int)
    high = np.round(middle + _NARROW_MM / 2 / spacing).astype(int)
    low[0], high[0] = 0, scan.array.shape[0]
    affine = scan.affine.copy()
    affine[:3, 3] = apply_affine(scan.affine, low)
    kept = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    return replace(scan, array=np.ascontiguousarray(scan.array[kept]), affine=affine)
