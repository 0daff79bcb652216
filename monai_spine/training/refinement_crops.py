"""The refining network's examples: blocks around labelled discs, cut by the very functions that inference uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import DISCS
from monai_spine.crops import resample_block
from monai_spine.errors import TableError
from monai_spine.geometry import Affine, apply_affine, invert_affine, lies_inside
from monai_spine.level_refinement import DiscBlock, block_affine, column_direction
from monai_spine.training.block_examples import BlockExamples
from monai_spine.training.datalists import BODIES, mixed_items
from monai_spine.training.localizer_transforms import heatmaps
from monai_spine.training.stored_volumes import stored_grid, stored_volume
from monai_spine.volume import Volume

__all__ = ["RefinementCrops", "refinement_items"]

Item = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


def refinement_items(
    datalists: Path | str | Sequence[Path | str], split: str, *, limit: int | None = None
) -> list[dict[str, Any]]:
    """One item per disc that was seen and labelled inside a sagittal volume: the volume's, with `disc`, its place in `DISCS`.

    Args:
        datalists: A prepared folder, or several.
        split: `training`, `validation` or `test`.
        limit: At most so many volumes of each folder.

    Raises:
        TableError: A folder has no data list, none of them has anything in this split, or no disc of it was seen and labelled.
    """
    volumes = mixed_items(datalists, split, limit=limit)
    items = [{**volume, "disc": disc} for volume in volumes for disc in _discs_on(volume)]
    if not items:
        raise TableError(f"No disc is labelled in split {split!r} of {datalists}. Prepare data whose discs were seen.")
    return items


def _discs_on(volume: Item) -> list[int]:
    """Places in `DISCS` of the discs that were seen and labelled inside a volume."""
    count = len(DISCS)
    inside = lies_inside(volume["points"][:count], *stored_grid(volume["image"]))
    return [int(disc) for disc in np.flatnonzero(inside & ~volume["estimated"][:count])]


class RefinementCrops(BlockExamples):
    """Blocks around discs with their answers.

    An example holds `image` ((1, R, A, S) float32 in the scan's own intensities, before `transform`), `target` (5, R, A, S),
    three heatmaps and two masks in the order of `level_refinement.CHANNELS`, `weight` (5,), how much each channel counts,
    `affine` of the block, `points` ((4, 3) RAS+ mm: disc, canal, left and right foramen) and `study`.

    Args:
        data: Items of `refinement_items`.
        crop: The bundle's crop section: shape, spacing_mm, center_mm.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `BlockJitter`. None: each block lies 4 mm to the right, to the front and above its disc, so that a
            network that answers with the block's middle is found out.
        sigma_mm: Width of the heatmaps' Gaussians.
        estimated_weight: Weight of canal points that were derived and not seen.
        seed: Of the random blocks.
    """

    def __init__(
        self,
        data: Sequence[Item],
        crop: Mapping[str, Any],
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        jitter: Mapping[str, Any] | None = None,
        sigma_mm: float = 4.0,
        estimated_weight: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(data, transform, jitter=jitter, seed=seed)
        self.block = DiscBlock.from_config(crop)
        self.sigma = [sigma_mm / edge for edge in self.block.spacing_mm]
        self.estimated_weight = estimated_weight

    def example(self, item: Item, volume: Volume) -> dict[str, Any]:
        affine = self._affine(item, volume.affine)
        return {"image": torch.from_numpy(resample_block(volume, affine, self.block.shape))[None], **self._answer(item, affine)}

    def _affine(self, item: Item, scan_affine: Affine) -> Affine:
        points = np.asarray(item["points"], float)[: len(DISCS)]
        affine = block_affine(scan_affine, points[item["disc"]], column_direction(points, item["disc"]), self.block)
        if self.jitter is None:
            affine[:3, 3] += 4.0
        return self.drawn(affine, self.block.shape)

    def _answer(self, item: Item, affine: Affine) -> dict[str, Any]:
        disc, level = item["disc"], DISCS[item["disc"]]
        points = np.concatenate([np.asarray(item["points"], float)[[disc, disc + len(DISCS)]], item["foramina"][disc]])
        maps = heatmaps(apply_affine(invert_affine(affine), points), self.block.shape, sigma=self.sigma)
        values = [BODIES.index(body) + 1 for body in (level.vertebra_above, level.vertebra_below)]
        masks = torch.from_numpy(self._masks(item["bodies"], affine, values))
        known = np.isfinite(points).all(1)
        canal = known[1] * (self.estimated_weight if item["estimated"][disc + len(DISCS)] else 1.0)
        marked = [float(item["marked"][value - 1]) for value in values]
        return {
            "target": torch.cat([maps[:2], maps[2:].amax(0, keepdim=True), masks]),
            "weight": torch.tensor([1.0, float(canal), float(known[2:].all()), *marked]),
            "affine": torch.from_numpy(affine),
            "points": torch.from_numpy(points),
            "study": item["study"],
        }

    def _masks(self, path: str, affine: Affine, values: Sequence[int]) -> npt.NDArray[np.float32]:
        """Share of each voxel that is a body, (bodies, R, A, S); zero where there is no label map."""
        if not path:
            return np.zeros((len(values), *self.block.shape), np.float32)
        labels = stored_volume(path)
        masks = (Volume(array=labels.array == value, affine=labels.affine) for value in values)
        return np.stack([resample_block(mask, affine, self.block.shape) for mask in masks])
