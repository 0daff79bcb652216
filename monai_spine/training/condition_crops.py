"""Crops of all conditions, cut alike: which of the five conditions each is of, and how severe it is.

The five (`anatomy.KINDS`) count the canal once and the foramina and recesses by side. Left and right differ by where the rest of
the body lies in the crop, so nothing is mirrored here; a crop that is mirrored in training becomes one of the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_spine.anatomy import KINDS, Condition, Target
from monai_spine.training.datalists import grading_items, read_datalist
from monai_spine.training.grading_crops import GradingCrops

__all__ = ["ConditionCrops", "condition_items"]

Item = Mapping[str, Any]


def condition_items(
    dataset_dir: str | Path, split: str, *, roles: Mapping[str, str], limit: int | None = None
) -> list[dict[str, Any]]:
    """One item per target that has a point, case by case, graded or not; see `datalists.grading_items`.

    Args:
        dataset_dir: A prepared folder.
        split: `training`, `validation` or `test`.
        roles: The kind of series that each condition is cut from, such as `axial_t2`; conditions that are not named are left out.
        limit: At most so many items, the first ones.

    Raises:
        AnatomyError: A condition is unknown.
        TableError: The folder has no data list, or this split is not in it.
    """
    datalist = read_datalist(dataset_dir)
    order = {case.case: at for at, case in enumerate(datalist.cases_of(split))}
    items = [
        item
        for condition, role in roles.items()
        for item in grading_items(datalist, split, Condition.parse(condition), role, graded_only=False)
    ]
    return sorted(items, key=lambda item: (order[item["case"]], item["image"]))[:limit]


class ConditionCrops(GradingCrops):
    """Crops of targets of all conditions, cut from voxels that are kept in memory as they were stored.

    An example holds `image` ((1, R, A, S) float32 in the scan's own intensities, before `transform`), `label` ((2,) int64: place
    in `KINDS`; 0, 1, 2, or `losses.MISSING` where nobody graded it), `target` (slug, of what the crop shows) and `case`.

    Args:
        data: Items of `condition_items`.
        crop: The bundle's crop section: roles, size_mm, shape, min_coverage.
        transform: Intensity transforms, on dicts.
        jitter: Arguments of `Jitter`; with `flip`, half of the crops are mirrored, and their sides with them.
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
        self.section = dict(crop)
        self.flip = bool((jitter or {}).get("flip", False))
        unmirrored = {**crop, "role": ", ".join(dict.fromkeys(crop["roles"].values())), "mirror_right": False, "offset_mm": {}}
        still = None if jitter is None else {**jitter, "flip": False}
        super().__init__(data, unmirrored, transform, jitter=still, seed=seed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item, _ = self._kept[index]
        target, image = Target.parse(item["target"]), torch.from_numpy(self.crop(index)[None])
        if self.flip and bool(torch.rand((), generator=self._generator) < 0.5):
            target, image = self._mirror_image(target, image, index)
        label = torch.tensor([KINDS.index(target.kind), int(item["label"])])
        example = {"image": image, "label": label, "target": target.slug, "case": item["case"]}
        return example if self.transform is None else self.transform(example)

    def _mirror_image(self, target: Target, image: torch.Tensor, index: int) -> tuple[Target, torch.Tensor]:
        """What is seen and where, (1, R, A, S), in a mirror that exchanges left and right."""
        return target.mirrored, image.flip(1)
