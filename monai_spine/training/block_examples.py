"""What the training sets of naming and refining have in common: one block of a scan per example, each time a little elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch.utils.data import Dataset

from monai_spine.geometry import Affine, apply_affine
from monai_spine.training.stored_volumes import stored_volume
from monai_spine.volume import Volume

__all__ = ["BlockExamples", "BlockJitter"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class BlockJitter:
    """How far a training block may lie from its disc, each drawn evenly between minus and plus the value.

    Attributes:
        shift_mm: Along right, front, up.
        rotation_deg: About right, front, up.
        scale: Share by which all edges grow or shrink; those along right get as much again of their own.
        flip: Left and right are exchanged in half of the blocks.
    """

    shift_mm: Sequence[float] = (0.0, 0.0, 0.0)
    rotation_deg: Sequence[float] = (0.0, 0.0, 0.0)
    scale: float = 0.0
    flip: bool = False

    def drawn(self, affine: Affine, shape: Sequence[int], numbers: npt.NDArray[np.floating[Any]]) -> Affine:
        """A block's affine after a random shift, turn and scaling about its centre.

        Args:
            affine: Of the block.
            shape: Its voxels.
            numbers: Nine numbers, drawn evenly from -1 to 1.
        """
        middle = (np.asarray(shape) - 1) / 2
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        axes = affine[:3, :3] / spacing
        turn = Rotation.from_euler("xyz", np.asarray(self.rotation_deg) * numbers[3:6], degrees=True).as_matrix()
        growth = np.exp(self.scale * (numbers[6] + np.array([numbers[7], 0.0, 0.0])))
        result = np.eye(4)
        result[:3, :3] = axes @ turn * (spacing * growth)
        if self.flip and numbers[8] > 0:
            result[:3, 0] *= -1
        center = apply_affine(affine, middle) + axes @ (np.asarray(self.shift_mm) * numbers[:3])
        result[:3, 3] = center - result[:3, :3] @ middle
        return result


class BlockExamples(Dataset[dict[str, Any]]):
    """Examples cut from the files that items name. A subclass gives `example`.

    Args:
        data: Items with `image`, the path of a NIfTI file.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `BlockJitter`; None for blocks that lie where they should.
        seed: Of the random blocks.
    """

    def __init__(
        self,
        data: Sequence[Item],
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        jitter: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.items, self.transform = list(data), transform
        self.jitter = None if jitter is None else BlockJitter(**jitter)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.items)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random blocks."""
        self._generator.manual_seed(seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        example = self.example(item, stored_volume(item["image"]))
        return example if self.transform is None else self.transform(example)

    def example(self, item: Item, volume: Volume) -> dict[str, Any]:
        """The example of one item, before `transform`; its volume's voxels are as stored."""
        raise NotImplementedError

    def drawn(self, affine: Affine, shape: Sequence[int]) -> Affine:
        """A block's affine, at random where there is jitter."""
        return affine if self.jitter is None else self.jitter.drawn(affine, shape, self.numbers(9))

    def numbers(self, count: int) -> npt.NDArray[np.float64]:
        """So many numbers, drawn evenly from -1 to 1."""
        return np.asarray(torch.rand(count, generator=self._generator, dtype=torch.float64).numpy() * 2 - 1)
