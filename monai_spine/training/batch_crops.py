"""The graders' training crops a batch at a time on a GPU: stored voxels are moved there first, all that is random comes after.

Where the crops lie, which voxels are averaged and how they are blended is what `crops.py` and `GradingCrops` say for one crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, instance_norm
from torch.utils.data import Dataset

from monai_spine.crops import local_grid
from monai_spine.geometry import invert_affine
from monai_spine.training.grading_crops import GradingCrops
from monai_spine.volume import Volume

__all__ = ["BatchCutter", "NormalizeBatchd", "OnDevice"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Shape = tuple[int, int, int]


class OnDevice(Dataset[dict[str, Any]]):
    """A training set whose crops are cut and changed on the device, a batch at a time.

    On a processor examples come one by one as the set gives them; so they do of any set but `GradingCrops`.

    Args:
        examples: The training set.
        device: Where the network is trained.
        transform: Of a batch: dicts with `image` (B, 1, R, A, S) on the device.
        memory_gb: Stored voxels that the device may hold for the whole training. If there are more, those of each batch are sent
            to it when their turn comes.
        batched: Whether batches are cut on the device; None: on a GPU.
    """

    def __init__(
        self,
        examples: Dataset[dict[str, Any]],
        device: torch.device,
        transform: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        *,
        memory_gb: float = 8.0,
        batched: bool | None = None,
    ) -> None:
        self.examples: Any = examples
        self.transform = transform
        self._cut: BatchCutter | None = None
        if (device.type == "cuda" if batched is None else batched) and type(examples) is GradingCrops:
            self._cut = BatchCutter(self.examples.volumes, self.examples.spec.shape, device, memory_gb=memory_gb)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.examples[index])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples of a batch, as torch's loader asks for them."""
        if self._cut is None:
            return [self[index] for index in indices]
        affines, mirrored = self.examples.placed(indices)
        images = self._cut(indices, affines)
        turned = torch.from_numpy(mirrored).to(images.device)[:, None, None, None, None]
        images = torch.where(turned, images.flip(2), images)
        if self.transform is not None:
            images = self.transform({"image": images})["image"]
        return [{"image": image, **self.examples.facts(index)} for image, index in zip(images, indices, strict=True)]


class NormalizeBatchd:
    """Bring each image of a batch (B, 1, R, A, S) to mean 0 and deviation 1, as MONAI's `NormalizeIntensityd` does with one."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "image": instance_norm(data["image"], eps=1e-12)}


class BatchCutter:
    """Cut one crop from each of several stored blocks at once, as `crops.resample_block` does from one.

    Args:
        volumes: Stored voxels around each example.
        shape: Voxels of a crop.
        device: Where crops are cut.
        memory_gb: Largest size of all stored voxels at which they stay on the device.
    """

    def __init__(self, volumes: Sequence[Volume], shape: Shape, device: torch.device, *, memory_gb: float) -> None:
        self.shape = shape
        self.device = device
        self._arrays = [volume.array for volume in volumes]
        small = all(np.can_cast(array.dtype, np.int16) for array in self._arrays)
        self._kind = np.dtype(np.int16 if small else np.float32)
        self._sizes = np.array([volume.array.shape for volume in volumes])
        self._lengths = self._sizes.prod(axis=1)
        self._to_voxel = np.stack([invert_affine(volume.affine) for volume in volumes])
        fits = int(self._lengths.sum()) * self._kind.itemsize <= memory_gb * 1e9
        self._all = self._row(range(len(volumes))) if fits else None

    @property
    def holds_all(self) -> bool:
        """Whether the device holds the voxels of all examples."""
        return self._all is not None

    def __call__(self, indices: Sequence[int], affines: Floats) -> Tensor:
        """Crops (B, 1, R, A, S), float32 on the device, of examples by their number, at affines (B, 4, 4) to RAS+ mm."""
        at = np.asarray(indices)
        sizes = self._sizes[at]
        low, factors, counts, to_local = local_grid(self._to_voxel[at] @ affines, self.shape, array_shape=sizes)
        voxels, starts = self._voxels_of(at)
        blocks = self._averaged(voxels, starts, sizes, low=low, factors=factors, counts=counts)
        return self._sampled(blocks, counts, to_local)

    def _voxels_of(self, at: Indices) -> tuple[Tensor, Indices]:
        """Stored voxels in one row on the device, and where those of each example begin."""
        if self._all is not None:
            return self._all, (np.cumsum(self._lengths) - self._lengths)[at]
        return self._row(at), np.cumsum(self._lengths[at]) - self._lengths[at]

    def _row(self, at: Iterable[int]) -> Tensor:
        return torch.cat([self._sent(np.ascontiguousarray(self._arrays[index], self._kind)).flatten() for index in at])

    def _averaged(
        self, voxels: Tensor, starts: Indices, sizes: Indices, *, low: Indices, factors: Indices, counts: Indices
    ) -> Tensor:
        """Means (B, 1, I, J, K) of boxes of stored voxels; beyond an example's last box that box again."""
        strides = np.stack([sizes[:, 1] * sizes[:, 2], sizes[:, 2], np.ones_like(starts)], axis=1)
        largest = counts.max(axis=0)
        total = torch.zeros((len(starts), *largest), device=self.device)
        for offset in np.ndindex(*factors.max(axis=0)):
            weights = (np.asarray(offset) < factors).all(axis=1) / factors.prod(axis=1)
            first = low + np.minimum(offset, factors - 1)
            i, j, k = (
                self._sent((first[:, axis, None] + factors[:, axis, None] * _steps(counts[:, axis])) * strides[:, axis, None])
                for axis in range(3)
            )
            index = (i + self._sent(starts)[:, None])[:, :, None, None] + j[:, None, :, None] + k[:, None, None, :]
            total += voxels[index] * self._sent(weights.astype(np.float32))[:, None, None, None]
        return total[:, None]

    def _sampled(self, blocks: Tensor, counts: Indices, to_local: Floats) -> Tensor:
        """Blend voxels at the crops' own; beyond the blocks their nearest voxel is repeated."""
        i, j, k = (torch.arange(size, dtype=torch.float32, device=self.device) for size in self.shape)
        rows = self._sent(to_local[:, :3].astype(np.float32))[..., None, None, None]
        last = self._sent((counts - 1).astype(np.float32))[..., None, None, None]
        positions = []
        for axis, size in enumerate(blocks.shape[2:]):
            row = rows[:, axis]
            place = row[:, 0] * i[:, None, None] + (row[:, 1] * j[:, None] + (row[:, 2] * k + row[:, 3]))
            place = torch.minimum(place.clamp_min(0.0), last[:, axis])
            positions.append((2 * place + 1) / size - 1)
        grid = torch.stack(positions[::-1], dim=-1)
        return grid_sample(blocks, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _sent(self, numbers: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)


def _steps(counts: Indices) -> Indices:
    """(B, n): 0, 1, … up to each example's last, which is repeated."""
    return np.minimum(np.arange(counts.max()), counts[:, None] - 1)
