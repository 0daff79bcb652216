"""Vertebral bodies, gathered block by block into one label map on the scan's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Level, Vertebra
from monai_spine.geometry import Affine, apply_affine, invert_affine, spacing_of, to_ras_axes
from monai_spine.levels import BODY_VALUES, BodyMap, VertebraPoint
from monai_spine.sampling import sample_linear
from monai_spine.volume import Volume

__all__ = ["BodyCanvas"]

Maps = npt.NDArray[np.float32]

_SMALLEST_BODY_MM3 = 2000.0
_FINEST_MM = 1.0


@dataclass
class BodyCanvas:
    """A label map that bodies are drawn on: the surest answer names a voxel.

    Attributes:
        affine: 4 × 4, voxel centre to RAS+ mm.
        labels: (R, A, S), values of `BODY_VALUES`, 0 elsewhere.
        strength: (R, A, S), how sure each voxel's value is; at least 0.5.
    """

    affine: Affine
    labels: npt.NDArray[np.uint8]
    strength: Maps

    @classmethod
    def on(cls, volume: Volume) -> BodyCanvas:
        """An empty canvas along the scan's axes nearest to R, A, S, with its voxels, those finer than 1 mm taken together."""
        array, affine = to_ras_axes(volume.array, volume.affine)
        factors = np.maximum(1, np.round(_FINEST_MM / np.asarray(spacing_of(affine)))).astype(int)
        shape = -(-np.asarray(array.shape) // factors)
        step = np.diag([*factors.astype(float), 1.0])
        step[:3, 3] = (factors - 1) / 2
        return cls(affine @ step, np.zeros(shape, np.uint8), np.full(shape, 0.5, np.float32))

    def add(self, bodies: Mapping[Vertebra, Maps], affine: Affine) -> None:
        """Draw the bodies of one block wherever they are surer than what is there.

        Args:
            bodies: Probabilities (R, A, S) of each on the block's grid.
            affine: Of that grid.
        """
        (block,) = {seen.shape for seen in bodies.values()}
        low, high = self._box(affine, block)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        if 0 in self.labels[box].shape:
            return
        start = np.eye(4)
        start[:3, 3] = low
        to_block = invert_affine(affine) @ self.affine @ start
        inside = _inside(to_block, self.labels[box].shape, block)
        for body, probability in bodies.items():
            seen = sample_linear(probability, to_block, self.labels[box].shape) * inside
            better = seen > self.strength[box]
            self.labels[box][better] = BODY_VALUES[body]
            self.strength[box][better] = seen[better]

    def _box(self, affine: Affine, block: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First voxel that a block reaches and the one after its last."""
        ends = [[0, size - 1] for size in block]
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
        reached = apply_affine(invert_affine(self.affine) @ affine, corners)
        low = np.clip(np.floor(reached.min(0)), 0, self.labels.shape).astype(np.int64)
        return low, np.clip(np.ceil(reached.max(0)) + 1, low, self.labels.shape).astype(np.int64)

    def map(self) -> BodyMap:
        """What was drawn."""
        return BodyMap(self.labels, self.affine)

    def vertebrae(self, confidence: Mapping[Level, float]) -> tuple[VertebraPoint, ...]:
        """Centre of each body, as sure as the surer of the discs beside it and as its voxels are; specks are wiped off.

        Args:
            confidence: Of each level that was named.
        """
        found = []
        for vertebra in sorted(BODY_VALUES, key=list(Vertebra).index):
            voxels = np.argwhere(self.labels == BODY_VALUES[vertebra])
            if len(voxels) * np.prod(spacing_of(self.affine)) < _SMALLEST_BODY_MM3:
                self.labels[tuple(voxels.T)] = 0
                continue
            beside = [sure for level, sure in confidence.items() if vertebra in (level.vertebra_above, level.vertebra_below)]
            certainty = max(beside) * float(self.strength[tuple(voxels.T)].mean())
            r, a, s = (float(value) for value in apply_affine(self.affine, voxels.mean(0)))
            found.append(VertebraPoint(vertebra, (r, a, s), round(certainty, 4)))
        return tuple(found)


def _inside(to_block: Affine, shape: tuple[int, ...], block: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which points of a grid lie inside a block."""
    places = apply_affine(to_block, np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1))
    return np.asarray(((places >= -0.5) & (places <= np.asarray(block) - 0.5)).all(-1))
