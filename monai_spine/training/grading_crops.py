"""The graders' training set: crops cut by the very function that inference uses, each time a little elsewhere."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch.utils.data import Dataset

from monai_spine.anatomy import Condition
from monai_spine.crops import CropSpec, coverage_of, crop_affine, neighbourhood, resample_block
from monai_spine.errors import TableError
from monai_spine.geometry import Affine, Triple
from monai_spine.training.branch_items import branch_items
from monai_spine.training.datalists import Datalist, grading_items, read_datalist
from monai_spine.training.kept_voxels import KeptVoxels
from monai_spine.training.losses import soft_targets
from monai_spine.training.stored_volumes import stored_volume
from monai_spine.volume import Volume

__all__ = ["GradingCrops", "Jitter", "items_of", "through_axis"]

_log = logging.getLogger(__name__)
_NAMED = 5

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Jitter:
    """How far a training crop may lie from its point, each drawn evenly between minus and plus the value.

    Attributes:
        shift_mm: Along the crop's R, A, S.
        rotation_deg: Within the slice plane.
        scale: Share by which edges grow or shrink.
        flip: Left and right are exchanged in half of the crops: for findings without a side only.
        prob: Share of the crops that are moved, turned and scaled at all.
    """

    shift_mm: Triple = (0.0, 0.0, 0.0)
    rotation_deg: float = 0.0
    scale: float = 0.0
    flip: bool = False
    prob: float = 1.0

    def drawn(self, generator: torch.Generator) -> tuple[npt.NDArray[np.float32], bool]:
        """Five numbers between -1 and 1 for `moved`, all 0 for a crop that stays, and whether a crop is mirrored."""
        numbers = torch.rand(5, generator=generator).numpy() * 2 - 1
        if self.prob < 1 and bool(torch.rand((), generator=generator) >= self.prob):
            numbers = np.zeros_like(numbers)
        return numbers, self.flip and bool(torch.rand((), generator=generator) < 0.5)

    def moved(
        self,
        affines: npt.NDArray[np.float64],
        numbers: npt.NDArray[np.float32],
        *,
        shape: tuple[int, int, int],
        through_axes: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Affines of blocks after a shift, a turn and a scaling of each about its centre.

        Args:
            affines: (B, 4, 4).
            numbers: (B, 5) between -1 and 1: three for the shift, one for the turn, one for the scaling.
            shape: Voxels of a block.
            through_axes: (B,), the axis of each block that runs across the slices.
        """
        edges, middle = affines[:, :3, :3], (np.asarray(shape) - 1) / 2
        axes = edges / np.linalg.norm(edges, axis=1, keepdims=True)
        about = np.take_along_axis(axes, through_axes[:, None, None], axis=2)[..., 0]
        turns = Rotation.from_rotvec(about * np.radians(self.rotation_deg * numbers[:, 3:4])).as_matrix()
        shifts = (axes @ (np.asarray(self.shift_mm) * numbers[:, :3])[..., None])[..., 0]
        result = affines.copy()
        result[:, :3, :3] = turns @ edges * (1 + self.scale * numbers[:, 4, None, None])
        result[:, :3, 3] = edges @ middle + affines[:, :3, 3] + shifts - result[:, :3, :3] @ middle
        return result


class GradingCrops(Dataset[dict[str, Any]]):
    """Crops of graded targets, cut from the voxels around each, which are kept as they were stored.

    An example holds `image` ((1, R, A, S) float32 in the scan's own intensities, before `transform`), `label` (0, 1, 2, a
    tensor where the item has several, or its `shares` of the three), `target` (slug) and `case`. Right sides are shown as left
    ones where the crop section says so.

    Args:
        data: Items as `grading_items` gives them.
        crop: The bundle's crop section: role, size_mm, shape, mirror_right, offset_mm.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `Jitter`; None cuts at the points themselves.
        seed: Of the random crops.
        memory_gb: Kept voxels in memory at most; more of them lie in temporary files.

    Raises:
        TableError: Nothing is left: no item, or none inside its scan.
        UnreadableInputError: A scan is missing, cut off or broken.
        OutputError: A temporary file cannot be written.
    """

    def __init__(
        self,
        data: Sequence[Item],
        crop: Mapping[str, Any],
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        jitter: Mapping[str, Any] | None = None,
        seed: int = 0,
        memory_gb: float = 8.0,
    ) -> None:
        self.spec = CropSpec.from_config(crop)
        self.transform = transform
        self.jitter = None if jitter is None else Jitter(**{**jitter, "shift_mm": tuple(jitter.get("shift_mm", (0.0, 0.0, 0.0)))})
        self._generator = torch.Generator().manual_seed(seed)
        self._store = KeptVoxels(memory_gb)
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
        if self.left_out:
            _log.warning("%d of %d graded targets are left out: %s", self.left_out, len(data), self._outside(data))
        kept = self._kept
        self._affines = np.stack([self._affine(volume, item) for item, volume in kept])
        self._through = np.array([through_axis(volume, affine) for (_, volume), affine in zip(kept, self._affines, strict=True)])
        self._mirrored = np.array([self.spec.mirror_right and bool(item["mirror"]) for item, _ in kept])

    def _outside(self, data: Sequence[Item]) -> str:
        """Which items lie too far outside their scans; of many the first."""
        kept = {id(item) for item, _ in self._kept}
        lost = [item for item in data if id(item) not in kept]
        names = ", ".join(f"{item['target']} of case {item['case']}" for item in lost[:_NAMED])
        more = " …" if len(lost) > _NAMED else ""
        return f"{names}{more} (less than {self.spec.min_coverage:.0%} of the crop lies inside the scan)"

    def __len__(self) -> int:
        return len(self._kept)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random crops."""
        self._generator.manual_seed(seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = {"image": torch.from_numpy(self.crop(index)[None]), **self.facts(index)}
        return example if self.transform is None else self.transform(example)

    def facts(self, index: int) -> dict[str, Any]:
        """All of an example but its image."""
        item, _ = self._kept[index]
        label = item.get("shares", item["label"])
        label = torch.tensor(label) if isinstance(label, Sequence) else int(label)
        return {"label": label, "target": item["target"], "case": item["case"]}

    @property
    def labels(self) -> list[int]:
        """The label of every example, in order."""
        return [int(item["label"]) for item, _ in self._kept]

    @property
    def items(self) -> list[Item]:
        """What is known of every example, in order."""
        return [item for item, _ in self._kept]

    @property
    def volumes(self) -> list[Volume]:
        """The stored voxels around every example, in order."""
        return [volume for _, volume in self._kept]

    def crop(self, index: int) -> npt.NDArray[np.float32]:
        """Voxels (R, A, S) of one crop, before `transform`; at random where there is jitter."""
        affines, mirrored = self.placed([index])
        array = resample_block(self._kept[index][1], affines[0], self.spec.shape)
        return np.ascontiguousarray(array[::-1]) if mirrored[0] else array

    def placed(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Where the next crops of some examples lie, (B, 4, 4) from voxels to RAS+ mm, and which are mirrored; at random where
        there is jitter."""
        at = list(indices)
        if self.jitter is None:
            return self._affines[at], self._mirrored[at]
        numbers, flips = zip(*(self.jitter.drawn(self._generator) for _ in at), strict=True)
        affines = self.jitter.moved(self._affines[at], np.stack(numbers), shape=self.spec.shape, through_axes=self._through[at])
        return affines, self._mirrored[at] ^ np.array(flips)

    def _affine(self, volume: Volume, item: Item) -> Affine:
        """Where the crop of an item lies, 4 × 4 from its voxels to RAS+ mm, before jitter."""
        return crop_affine(volume.affine, item["point_ras_mm"], size_mm=self.spec.size_mm, shape=self.spec.shape)

    def _around(self, image: str, items: Sequence[Item]) -> list[tuple[Item, Volume]]:
        """The voxels around each point of one file; what lies too far outside is left out, as it is in inference."""
        stored = stored_volume(image)
        volume = replace(stored, slice_axis=int(np.argmax(stored.spacing_mm)))
        size_mm, radius_mm = self._reach_mm(volume)
        inside = [item for item in items if coverage_of(volume, item["point_ras_mm"], size_mm=size_mm) >= self.spec.min_coverage]
        around = [neighbourhood(volume, item["point_ras_mm"], radius_mm=radius_mm) for item in inside]
        return list(zip(inside, self._store.keep(around), strict=True))

    def _reach_mm(self, volume: Volume) -> tuple[Triple, Triple]:
        """Along a scan's axes nearest to R, A, S: edges of the block that must lie inside it, and how far voxels are kept."""
        return self.spec.size_mm, self._radius_mm()

    def _radius_mm(self) -> Triple:
        half = np.asarray(self.spec.size_mm) / 2
        if self.jitter is not None:
            turned = half + np.sin(np.radians(self.jitter.rotation_deg)) * half.max()
            half = turned * (1 + self.jitter.scale) + np.asarray(self.jitter.shift_mm)
        return float(half[0]), float(half[1]), float(half[2])


def items_of(
    dataset_dir: str | Path | Sequence[str | Path],
    split: str,
    *,
    condition: str,
    role: str | Sequence[str],
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Items of one condition from a prepared folder or several, for crops on one role or on several together; the first `limit`
    of them where one is given. Where some have `shares`, all do: a single reader's grade is all of them.

    Raises:
        TableError: A folder has no data list, or there is no item in this split.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, (str, Path)) else list(dataset_dir)
    found: list[dict[str, Any]] = []
    datalists = [read_datalist(folder) for folder in folders]
    for datalist in datalists:
        if isinstance(role, str):
            found += grading_items(datalist, split, condition, role)
        else:
            found += branch_items(datalist, split, condition, role)
    if not found:
        roles, wanted = role if isinstance(role, str) else " or ".join(role), Condition.parse(condition)
        raise TableError(
            f"The split {split!r} of {', '.join(map(str, folders))} has no graded target of {wanted.label} in a study with a "
            f"series {roles}. {_counts_elsewhere(datalists, wanted)}"
        )
    return _alike(found[:limit])


def _counts_elsewhere(datalists: Sequence[Datalist], condition: Condition) -> str:
    """Which splits have graded targets of a condition, and what to do."""
    counts: Counter[str] = Counter()
    for datalist in datalists:
        for split in datalist.splits:
            targets = [one for case in datalist.cases_of(split) for one in case.targets.items()]
            counts[split] += sum(target.condition is condition and found.severity is not None for target, found in targets)
    some = ", ".join(f"{split} ({count})" for split, count in counts.items() if count)
    if not some:
        return "No other split has one either: prepare studies with such grades, or give another dataset_dir."
    return (
        f"Graded targets of it are in: {some}. Choose one of these to evaluate (--split), or prepare data that has more studies."
    )


def _alike(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same items, of which either all have `shares` or none."""
    if not any("shares" in item for item in items):
        return items
    return [{"shares": soft_targets(torch.tensor([item["label"]]))[0].tolist(), **item} for item in items]


def through_axis(volume: Volume, affine: Affine) -> int:
    """The axis of a crop that runs across the slices."""
    across = volume.affine[:3, volume.slice_axis]
    return int(np.argmax(np.abs(across @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))))
