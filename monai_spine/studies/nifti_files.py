"""The NIfTI files of a prepared folder: each is written beside its place and then renamed, so that none is ever half there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_spine.errors import OutputError, UnreadableInputError
from monai_spine.geometry import Affine
from monai_spine.levels import BODY_VALUES
from monai_spine.studies.prepared import PreparedVolume

__all__ = ["refuse_other_grid", "save_nifti", "save_sagittal"]

_TOLERANCE_MM = 1e-2


def save_nifti(array: npt.NDArray[Any], affine: Affine, path: Path) -> None:
    """Write voxels (i, j, k) and their affine to RAS+ mm; folders are made where they are not there.

    Raises:
        OutputError: The file cannot be written.
    """
    beside = path.with_name(f".part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror}). Free space there or choose another folder.") from error


def save_sagittal(
    out_dir: Path, case: str, voxels: npt.NDArray[Any], affine: Affine, *, role: str, bodies: npt.NDArray[np.uint8] | None = None
) -> PreparedVolume:
    """Write the one volume of a case, and the label map of its bodies where there is one.

    Args:
        out_dir: The prepared folder.
        case: The case's name; slashes in it make subfolders.
        voxels: (i, j, k).
        affine: 4 × 4, voxel centre (i, j, k) to RAS+ mm.
        role: As in `PreparedVolume`.
        bodies: uint8 (i, j, k), values of `levels.BODY_VALUES`, 0 elsewhere. What occurs in it counts as labelled.

    Raises:
        OutputError: A file cannot be written.
    """
    image, mask = (Path("volumes") / case / name for name in ("sagittal_0.nii", "sagittal_0_bodies.nii.gz"))
    present = set() if bodies is None else set(np.unique(bodies).tolist())
    labelled = tuple(body for body, value in BODY_VALUES.items() if value in present)
    save_nifti(voxels, affine, out_dir / image)
    if labelled and bodies is not None:
        save_nifti(bodies, affine, out_dir / mask)
    return PreparedVolume(image.as_posix(), role, bodies=mask.as_posix() if labelled else None, bodies_labelled=labelled)


def refuse_other_grid(
    name: Path | str, shapes: tuple[tuple[int, ...], tuple[int, ...]], affines: tuple[Affine, Affine], *, remedy: str
) -> None:
    """Refuse a label map whose voxels are not those of its volume.

    Args:
        name: The volume, as the message calls it.
        shapes: Of the volume and of the label map.
        affines: Of the volume and of the label map, 4 × 4.
        remedy: What to do.

    Raises:
        UnreadableInputError: Their shapes differ, or their affines by more than 0.01.
    """
    if shapes[0] != shapes[1] or not np.allclose(*affines, atol=_TOLERANCE_MM):
        raise UnreadableInputError(
            f"{name}: the volume ({shapes[0]}) and its labels ({shapes[1]}) lie on different grids. {remedy}"
        )
