"""The volumes of a prepared folder as training reads them: voxels as they were stored, and an error that names the file."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils.enums import MetaKeys

from monai_spine.dicom_elements import first_line
from monai_spine.errors import UnreadableInputError
from monai_spine.geometry import Affine
from monai_spine.volume import Volume

__all__ = ["LoadScand", "stored_grid", "stored_volume"]

_REMEDY = "Training stops, as its case would be missing. Write it again with `monai-spine prepare … --resume`."


def stored_grid(path: Path | str) -> tuple[Affine, tuple[int, ...]]:
    """Affine to RAS+ mm and shape of a NIfTI file with one 3D volume; no voxel is read.

    Raises:
        UnreadableInputError: The file is missing, empty or no NIfTI, or does not hold one 3D volume.
    """
    with _named(path):
        image = nib.load(path)
        affine, shape = np.asarray(image.affine, float), tuple(image.shape)
    _refuse_other_shape(path, shape)
    return affine, shape


def stored_volume(path: Path | str) -> Volume:
    """One volume with its voxels as they are stored, whole numbers where they are that.

    Raises:
        UnreadableInputError: As `stored_grid`, or the file is cut off, or holds voxels that are NaN or infinite.
    """
    with _named(path):
        image = nib.load(path)
        array, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, float)
    _refuse_other_shape(path, array.shape)
    broken = int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
    if broken:
        raise UnreadableInputError(f"{path} holds {broken} of {array.size} voxels that are NaN or infinite. {_REMEDY}")
    return Volume(array=array, affine=affine)


class LoadScand(MapTransform):
    """Load scans by `stored_volume`: images (1, i, j, k) float32 that know their affine and grid as those of `LoadImaged` do.

    Args:
        keys: Path of a NIfTI file.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            scan = stored_volume(result[key])
            known = {
                MetaKeys.ORIGINAL_AFFINE: scan.affine,
                MetaKeys.SPATIAL_SHAPE: np.asarray(scan.array.shape),
                "filename_or_obj": str(result[key]),
            }
            image = torch.as_tensor(np.asarray(scan.array, np.float32))[None]
            result[key] = MetaTensor(image, affine=torch.as_tensor(scan.affine), meta=known)
        return result


def _refuse_other_shape(path: Path | str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or 0 in shape:
        raise UnreadableInputError(f"{path} has the shape {shape}, where one 3D volume is needed. {_REMEDY}")


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except MemoryError:
        raise
    except FileNotFoundError as error:
        raise UnreadableInputError(f"{path} does not exist. {_REMEDY}") from error
    except Exception as error:  # nibabel raises errors of many kinds for one cause
        said = f"{type(error).__name__}: {first_line(error)}"
        raise UnreadableInputError(f"{path} cannot be read ({said}). {_REMEDY}") from error
