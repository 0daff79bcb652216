"""The graders' training set: crops cut by the very function that inference uses, each time a little elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch.utils.data import Dataset

from monai_spine.crops import CropSpec, coverage_of, crop_affine, neighbourhood, resample_block
from monai_spine.errors import TableError
from monai_spine.geometry import Affine, Triple
from monai_spine.training.branch_items import branch_items
from monai_spine.training.datalists import grading_items, read_datalist
from monai_spine.volume import Volume

__all__ = ["GradingCrops", "Jitter", "items_of"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Jitter:
    """How far a training crop may lie from its point, each drawn evenly between minus and plus the value.

    Attributes:
        shift_mm: Along the crop's R, A, S.
        rotation_deg: Within the slice plane.
        scale: Share by which edges grow or shrink.
        flip: Left and right are exchanged in half of the crops: for findings without a side only.
    """

    shift_mm: Triple = (0.0, 0.0, 0.0)
    rotation_deg: float = 0.0
    scale: float = 0.0
    flip: bool = False

    def drawn(self, affine: Affine, *, shape: tuple[int, int, int], through_axis: int, generator: torch.Generator) -> Affine:
        """A block's affine after a random shift, turn and scaling about its centre."""
        numbers = torch.rand(5, generator=generator).numpy() * 2 - 1
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        turn = Rotation.from_rotvec(axes[:, through_axis] * np.radians(self.rotation_deg * numbers[3])).as_matrix()
        middle = (np.asarray(shape) - 1) / 2
        result = affine.copy()
        result[:3, :3] = turn @ affine[:3, :3] * (1 + self.scale * numbers[4])
        center = affine[:3, :3] @ middle + affine[:3, 3] + axes @ (np.asarray(self.shift_mm) * numbers[:3])
        result[:3, 3] = center - result[:3, :3] @ middle
        return np.asarray(result)


class GradingCrops(Dataset[dict[str, Any]]):
    """Crops of graded targets, cut from voxels that are kept in memory as they were stored.

    An example holds `image` ((1, R, A, S) float32 in the scan's own intensities, before `transform`), `label` (0, 1, 2, or the
    item's `shares` of the three), `target` (slug) and `case`. Right sides are shown as left ones where the crop section says so.

    Args:
        data: Items as `grading_items` gives them.
        crop: The bundle's crop section: role, size_mm, shape, mirror_right, offset_mm.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `Jitter`; None cuts at the points themselves.
        seed: Of the random crops.

    Raises:
        TableError: Nothing is left: no item, or none inside its scan.
    """

    def __init__(
        self,
        data: Sequence[Item],
        crop: Mapping[str, Any],
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        jitter: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.spec = CropSpec.from_config(crop)
        self.transform = transform
        self.jitter = None if jitter is None else Jitter(**{**jitter, "shift_mm": tuple(jitter.get("shift_mm", (0.0, 0.0, 0.0)))})
        self._generator = torch.Generator().manual_seed(seed)
        self._kept = [
            (item, volume)
            for image, items in itertools.groupby(data, key=lambda item: str(item["image"]))
            for item, volume in self._around(image, list(items))
        ]
        self.left_out = len(data) - len(self._kept)
        if not self._kept:
            raise TableError(
                f"None of {len(data)} graded targets lies inside its scan: there is nothing to learn. Check dataset_dir."
            )

    def __len__(self) -> int:
        return len(self._kept)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random crops."""
        self._generator.manual_seed(seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item, _ = self._kept[index]
        image = torch.from_numpy(self.crop(index)[None])
        label = torch.tensor(item["shares"]) if "shares" in item else int(item["label"])
        example = {"image": image, "label": label, "target": item["target"], "case": item["case"]}
        return example if self.transform is None else self.transform(example)

    @property
    def labels(self) -> list[int]:
        """The label of every example, in order."""
        return [int(item["label"]) for item, _ in self._kept]

    @property
    def items(self) -> list[Item]:
        """What is known of every example, in order."""
        return [item for item, _ in self._kept]

    def crop(self, index: int) -> npt.NDArray[np.float32]:
        """Voxels (R, A, S) of one crop, before `transform`; at random where there is jitter."""
        item, volume = self._kept[index]
        spec, mirror = self.spec, self.spec.mirror_right and bool(item["mirror"])
        affine = crop_affine(volume.affine, item["point_ras_mm"], size_mm=spec.size_mm, shape=spec.shape)
        if self.jitter is not None:
            through_axis = _through_axis(volume, affine)
            affine = self.jitter.drawn(affine, shape=spec.shape, through_axis=through_axis, generator=self._generator)
            mirror ^= self.jitter.flip and bool(torch.rand((), generator=self._generator) < 0.5)
        array = resample_block(volume, affine, spec.shape)
        return np.ascontiguousarray(array[::-1]) if mirror else array

    def _around(self, image: str, items: Sequence[Item]) -> list[tuple[Item, Volume]]:
        """The voxels around each point of one file; what lies too far outside is left out, as it is in inference."""
        stored = nib.load(image)
        volume = Volume(array=np.asanyarray(stored.dataobj), affine=np.asarray(stored.affine, dtype=float))
        volume = Volume(array=volume.array, affine=volume.affine, slice_axis=int(np.argmax(volume.spacing_mm)))
        inside = [
            item
            for item in items
            if coverage_of(volume, item["point_ras_mm"], size_mm=self.spec.size_mm) >= self.spec.min_coverage
        ]
        return [(item, neighbourhood(volume, item["point_ras_mm"], radius_mm=self._radius_mm())) for item in inside]

    def _radius_mm(self) -> Triple:
        half = np.asarray(self.spec.size_mm) / 2
        if self.jitter is not None:
            turned = half + np.sin(np.radians(self.jitter.rotation_deg)) * half.max()
            half = turned * (1 + self.jitter.scale) + np.asarray(self.jitter.shift_mm)
        return float(half[0]), float(half[1]), float(half[2])


def items_of(
    dataset_dir: str | Path, split: str, *, condition: str, role: str | Sequence[str], limit: int | None = None
) -> list[dict[str, Any]]:
    """Items of one condition from a prepared folder, for crops on one role or on several together; the first `limit` of them
    where one is given."""
    datalist = read_datalist(dataset_dir)
    if isinstance(role, str):
        return grading_items(datalist, split, condition, role)[:limit]
    return branch_items(datalist, split, condition, role)[:limit]


def _through_axis(volume: Volume, affine: Affine) -> int:
    """The axis of a crop that runs across the slices."""
    across = volume.affine[:3, volume.slice_axis]
    return int(np.argmax(np.abs(across @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))))
