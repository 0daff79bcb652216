"""Look at a crop several times, each time moved, turned or mirrored a little: an `Inferer` for networks that grade crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch.nn.functional import affine_grid, grid_sample

from monai_spine.ensemble import mean_logits

__all__ = ["AugmentedInferer", "Look"]

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How a crop is shown.

    Attributes:
        shift_mm: The crop is moved over the scan so far along R, A, S.
        rotation_deg: And turned so far within the slices.
        mirrored: And left and right are exchanged.
    """

    shift_mm: Triple = (0.0, 0.0, 0.0)
    rotation_deg: float = 0.0
    mirrored: bool = False

    @property
    def is_moved(self) -> bool:
        return any(self.shift_mm) or self.rotation_deg != 0


@dataclass(frozen=True)
class _Block:
    """Edges and voxels of a crop along R, A, S."""

    size_mm: Triple
    shape: tuple[int, int, int]

    @property
    def across(self) -> int:
        """The axis of the longest voxels, across the slices."""
        return int(np.argmax(np.divide(self.size_mm, self.shape)))

    def moved(self, images: torch.Tensor, look: Look) -> torch.Tensor:
        """Crops (B, C, R, A, S), moved and turned."""
        theta = torch.as_tensor(self._theta(look), dtype=images.dtype, device=images.device)
        grid = affine_grid(theta.expand(len(images), 3, 4), list(images.shape), align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _theta(self, look: Look) -> np.ndarray:
        """From places in the shown crop to those in the given one, (3, 4), in half edges; torch counts axes from the last."""
        first, second = (axis for axis in range(3) if axis != self.across)
        angle, half = np.radians(look.rotation_deg), np.asarray(self.size_mm) / 2
        turn = np.eye(3)
        turn[[[first], [second]], [first, second]] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn = turn * half / half[:, None]
        return np.concatenate([turn[::-1, ::-1], (np.asarray(look.shift_mm) / half)[::-1, None]], axis=1)


class AugmentedInferer(Inferer):
    """Average the probabilities that a network gives to a crop as it is, moved both ways along each axis, and turned both ways.

    It names the moves as `jitter` in `train.json` does, and should stay within those that the network was trained with. What a
    moved crop would show beyond the edge of the given one is taken from the edge.

    Crops of several series are the channels of one image (`branches.stacked`): each is moved and turned in its own millimetres,
    and one that is missing (NaN) stays so.

    Args:
        crop: The bundle's crop section, of which `size_mm` and `shape` (along R, A, S) are read; of several series lists.
        shift_mm: How far along R, A, S; 0 leaves an axis out.
        rotation_deg: How far within the slices, which lie across the axis of the longest voxels; 0 leaves it out.
        flip: Whether each look is taken mirrored from left to right too: for findings without a side only.

    Raises:
        ValueError: A shift is as long as half the crop, or a number is none or negative.
    """

    def __init__(
        self, crop: dict[str, Any], *, shift_mm: Sequence[float] = (0.0, 0.0, 0.0), rotation_deg: float = 0.0, flip: bool = False
    ) -> None:
        sizes, shapes = crop["size_mm"], crop["shape"]
        self._together = isinstance(shapes[0], Sequence)
        pairs = zip(sizes, shapes, strict=True) if self._together else [(sizes, shapes)]
        self._blocks = [_Block((float(r), float(a), float(s)), (int(i), int(j), int(k))) for (r, a, s), (i, j, k) in pairs]
        reach, half = np.asarray(shift_mm, dtype=float), np.min([block.size_mm for block in self._blocks], axis=0) / 2
        if reach.shape != (3,) or not ((reach >= 0) & (reach < half)).all() or not 0 <= rotation_deg < 90:
            raise ValueError(
                f"Looks must be moved by less than half the crop along R, A, S and turned by less than 90 degrees, got shift_mm "
                f"{list(shift_mm)} of a crop of {list(sizes)} mm and rotation_deg {rotation_deg}."
            )
        self.looks = _looks(reach, float(rotation_deg), flip)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits (B, C) whose softmax is the mean over all looks.

        Args:
            inputs: Crops (B, C, R, A, S).
            network: Gives logits (B, C).
            args: Go to the network.
            kwargs: Go to the network.
        """
        answers = [network(self.shown(inputs, look), *args, **kwargs) for look in self.looks]
        return mean_logits(torch.stack([answer.float() for answer in answers]))

    def shown(self, inputs: torch.Tensor, look: Look) -> torch.Tensor:
        """The batch as a look shows it: (B, C, R, A, S), or, of several series, with a channel of its own axes for each."""
        if not self._together:
            return _shown(inputs, look, self._blocks[0])
        fewest = [int(np.argmin(block.shape)) for block in self._blocks]
        in_ras = [inputs[:, [at]].movedim(2, 2 + axis) for at, axis in enumerate(fewest)]
        shown = [_shown(image, look, block) for image, block in zip(in_ras, self._blocks, strict=True)]
        return torch.cat([image.movedim(2 + axis, 2) for image, axis in zip(shown, fewest, strict=True)], dim=1)


def _shown(images: torch.Tensor, look: Look, block: _Block) -> torch.Tensor:
    moved = block.moved(images, look) if look.is_moved else images
    return moved.flip(2) if look.mirrored else moved


def _looks(reach: np.ndarray, rotation_deg: float, flip: bool) -> tuple[Look, ...]:
    """As it is first; then both ways along each axis that has a reach, both turns, and all of these mirrored."""
    steps = [sign * reach * (np.arange(3) == axis) for axis in range(3) if reach[axis] > 0 for sign in (-1.0, 1.0)]
    turns = [-rotation_deg, rotation_deg] if rotation_deg else []
    shifts: list[Triple] = [(float(step[0]), float(step[1]), float(step[2])) for step in steps]
    looks = [Look(), *(Look(shift_mm=shift) for shift in shifts), *(Look(rotation_deg=angle) for angle in turns)]
    return tuple(
        Look(look.shift_mm, look.rotation_deg, mirrored) for mirrored in ((False, True) if flip else (False,)) for look in looks
    )
