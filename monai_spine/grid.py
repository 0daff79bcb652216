"""Bring a scan onto a network's grid: average first, interpolate after, so that fine voxels are not lost between coarse ones."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

__all__ = ["AreaDownsampled", "area_downsample"]


def area_downsample(image: MetaTensor, spacing_mm: Sequence[float]) -> MetaTensor:
    """Average whole voxels together as long as the result stays finer than, or within 5 % of, a wanted spacing.

    Args:
        image: (C, i, j, k) with its affine.
        spacing_mm: Wanted distance of voxel centres along i, j, k in mm.

    Returns:
        The averaged image and its affine; voxels left over at the far ends (less than one block) are dropped.
    """
    edges = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    factors = np.maximum(1, np.floor(1.05 * np.asarray(spacing_mm) / edges)).astype(int)
    factors = np.minimum(factors, image.shape[1:])
    if (factors == 1).all():
        return image
    size = tuple(int(factor) for factor in factors)
    pooled = torch.nn.functional.avg_pool3d(image.as_tensor().float()[None], kernel_size=size, stride=size)[0]
    step = np.diag([*factors.astype(float), 1.0])
    step[:3, 3] = (factors - 1) / 2
    affine = np.asarray(image.affine, dtype=float) @ step
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(pooled, affine=torch.as_tensor(affine), meta=meta)


class AreaDownsampled(MapTransform):
    """Dictionary form of `area_downsample`, to stand before `Spacingd`.

    Args:
        keys: Images as MetaTensor, (C, i, j, k).
        spacing_mm: Wanted distance of voxel centres along i, j, k in mm.
        allow_missing_keys: Leave out keys that are not there.
    """

    def __init__(self, keys: KeysCollection, spacing_mm: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_mm = tuple(float(edge) for edge in spacing_mm)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = area_downsample(result[key], self.spacing_mm)
        return result
