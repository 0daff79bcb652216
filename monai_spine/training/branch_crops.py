"""The training set of a grader that looks at several series: for each target a crop on each, put together as in inference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from monai_spine.branches import crop_specs, stacked
from monai_spine.errors import TableError
from monai_spine.training.grading_crops import GradingCrops

__all__ = ["BranchCrops"]

_log = logging.getLogger(__name__)

Item = Mapping[str, Any]


class BranchCrops(Dataset[dict[str, Any]]):
    """Crops of graded targets on several series, each cut by `GradingCrops` from the block in which the point lies deepest.

    An example is one of `GradingCrops`, but for `image`: a channel for each role as `branches.stacked` puts them together, NaN
    where the target is not shown. Crops of one target are shifted, turned and scaled each on its own, and mirrored together.

    Args:
        data: Items as `branch_items` gives them.
        crop: The bundle's crop section with several roles; see `branches.crop_specs`.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `Jitter`; None cuts at the points themselves.
        seed: Of the random crops.

    Raises:
        TableError: Nothing is left: no item, or none inside any scan.
        WeightsError: The crop section cannot be used.
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
        self.specs = crop_specs(crop)
        self.transform = transform
        self._flip = jitter is not None and bool(jitter.get("flip", False))
        alone = None if jitter is None else {**jitter, "flip": False}
        self._branches = [
            _cut(data, {**crop, "role": spec.role, "size_mm": spec.size_mm, "shape": spec.shape}, alone) for spec in self.specs
        ]
        self._places = [{} if one is None else {_key(item): at for at, item in enumerate(one.items)} for one in self._branches]
        self._items = [item for item in data if any(_key(item) in places for places in self._places)]
        self.left_out = len(data) - len(self._items)
        if not self._items:
            raise TableError(
                f"None of {len(data)} graded targets lies inside a {' or '.join(spec.role for spec in self.specs)} scan: "
                "there is nothing to learn. Check dataset_dir."
            )
        self._generator = torch.Generator()
        self.set_random_state(seed)

    def __len__(self) -> int:
        return len(self._items)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random crops."""
        self._generator.manual_seed(seed)
        for number, branch in enumerate(self._branches, start=1):
            if branch is not None:
                branch.set_random_state(seed + number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self._items[index]
        image = torch.from_numpy(self.crop(index))
        label = torch.tensor(item["shares"]) if "shares" in item else int(item["label"])
        example = {"image": image, "label": label, "target": item["target"], "case": item["case"]}
        return example if self.transform is None else self.transform(example)

    @property
    def labels(self) -> list[int]:
        """The label of every example, in order."""
        return [int(item["label"]) for item in self._items]

    @property
    def items(self) -> list[Item]:
        """What is known of every example, in order."""
        return self._items

    def crop(self, index: int) -> npt.NDArray[np.float32]:
        """The stacked crops of one target, before `transform`; at random where there is jitter."""
        key = _key(self._items[index])
        flip = self._flip and bool(torch.rand((), generator=self._generator) < 0.5)
        arrays = [
            branch.crop(places[key]) if branch is not None and key in places else None
            for branch, places in zip(self._branches, self._places, strict=True)
        ]
        mirrored = [array[::-1] if flip and array is not None else array for array in arrays]
        return stacked(mirrored, [spec.shape for spec in self.specs])


def _cut(data: Sequence[Item], crop: Mapping[str, Any], jitter: Mapping[str, Any] | None) -> GradingCrops | None:
    """The crops of one role; None where no scan of it shows a target."""
    items = [{**item, "image": item["files"][crop["role"]]} for item in data if crop["role"] in item["files"]]
    try:
        return GradingCrops(items, crop, jitter=jitter)
    except TableError:
        _log.warning("no %s scan shows any of %d targets: there is nothing to learn of it", crop["role"], len(data))
        return None


def _key(item: Item) -> tuple[str, str]:
    return str(item["case"]), str(item["target"])
