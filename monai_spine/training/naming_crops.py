"""The naming network's examples: blocks around discs, and around the places of the discs above and below the named ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import DISCS
from monai_spine.crops import resample_block
from monai_spine.geometry import lies_inside
from monai_spine.level_names import NameBlock
from monai_spine.training.block_examples import BlockExamples
from monai_spine.training.datalists import mixed_items
from monai_spine.training.stored_volumes import stored_grid
from monai_spine.volume import Volume

__all__ = ["NamingCrops", "naming_items", "whole_column"]

Item = Mapping[str, Any]
Floats = npt.NDArray[np.float64]

_SPACING_MM = 35.0
_STEP_BELOW = np.array([0.0, -14.0, -24.0])
"""From L5/S1 to S1/S2 in a patient whose column stands upright, RAS mm: down and, along the sacrum, backwards."""


def naming_items(datalists: Path | str | Sequence[Path | str], split: str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """One item per sagittal volume and class: those of `mixed_items` with `label` (0 … 7) and `place` (RAS+ mm).

    Places outside of the scan are left out, as no disc is looked for there.

    Args:
        datalists: A prepared folder, or several.
        split: `training`, `validation` or `test`.
        limit: At most so many volumes of each folder.

    Raises:
        TableError: A folder has no data list, or none of them has anything in this split.
    """
    return [
        {**item, "label": label, "place": place}
        for item in mixed_items(datalists, split, limit=limit)
        for label, place in _places(item)
    ]


def _places(item: Item) -> list[tuple[int, Floats]]:
    """Class and place of what can be known of a scan's column and lies inside it."""
    column = whole_column(np.asarray(item["points"], float)[: len(DISCS)])
    inside = lies_inside(column, *stored_grid(item["image"]))
    return [(label, column[label]) for label in np.flatnonzero(inside).tolist()]


def whole_column(discs: Floats) -> Floats:
    """Where the disc above T12/L1, the six named ones and the one below L5/S1 lie, (8, 3) RAS+ mm.

    What is not labelled is laid on from the discs beside it, to within several millimetres: near enough to say which disc a block
    shows, and for nothing else. Rows that cannot be known have NaN.

    Args:
        discs: (6, 3) T12/L1 … L5/S1; NaN where not labelled.
    """
    column = np.full((len(DISCS) + 2, 3), np.nan)
    column[1:-1] = discs
    for at in (1, 0):
        if np.isnan(column[at]).any():
            column[at] = 1.95 * column[at + 1] - 0.95 * column[at + 2]
    if np.isfinite(column[-2]).all() and np.isfinite(column[-3]).all():
        size = np.linalg.norm(column[-2] - column[-3]) / _SPACING_MM
        column[-1] = column[-2] + size * _STEP_BELOW
    return column


class NamingCrops(BlockExamples):
    """Blocks around discs with their names.

    An example holds `image` ((1, R, A, S) float32 in the scan's own intensities, before `transform`), `label` (0 … 7) and
    `study`.

    Args:
        data: Items of `naming_items`.
        crop: The bundle's crop section: shape, spacing_mm, center_mm.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `BlockJitter`; None cuts at the places themselves.
        cut_prob: Chance that the block ends early at its top, and likewise at its bottom: its last row is repeated beyond, as
            where a scan ends.
        flat_prob: Chance that one sagittal slice near the middle stands for all, as in a picture.
        seed: Of the random blocks.
    """

    def __init__(
        self,
        data: Sequence[Item],
        crop: Mapping[str, Any],
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        jitter: Mapping[str, Any] | None = None,
        cut_prob: float = 0.0,
        flat_prob: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, transform, jitter=jitter, seed=seed)
        self.block, self.cut_prob, self.flat_prob = NameBlock.from_config(crop), cut_prob, flat_prob

    def example(self, item: Item, volume: Volume) -> dict[str, Any]:
        affine = self.drawn(self.block.affine(volume.affine, item["place"]), self.block.shape)
        image = torch.from_numpy(resample_block(volume, affine, self.block.shape))[None]
        return {"image": self._flat(self._cut(image)), "label": int(item["label"]), "study": item["study"]}

    def _cut(self, image: torch.Tensor) -> torch.Tensor:
        chance_low, chance_high, low, high = (self.numbers(4) + 1) / 2
        half = image.shape[-1] // 2 - 4
        if chance_low < self.cut_prob:
            end = int(low * half)
            image[..., :end] = image[..., end : end + 1]
        if chance_high < self.cut_prob:
            end = image.shape[-1] - 1 - int(high * half)
            image[..., end + 1 :] = image[..., end : end + 1]
        return image

    def _flat(self, image: torch.Tensor) -> torch.Tensor:
        chance, which = (self.numbers(2) + 1) / 2
        if chance >= self.flat_prob:
            return image
        slices = image.shape[1]
        middle = (slices - 1) // 2 + int(which * (2 - slices % 2))
        return image[:, middle : middle + 1].expand_as(image).clone()
