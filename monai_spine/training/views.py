"""Learning what a spine looks like without a label: two views of one place resemble each other more than any other view.

Places are drawn anywhere in scans, whatever they show, and cut as a grader's crops are. A view is one of them after a random
shift, turn, scaling and change of intensities. The network learns to find each view's partner among all views of a batch.

Source: Chen et al., A simple framework for contrastive learning of visual representations (SimCLR), ICML 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import ContrastiveLoss
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_spine.errors import TableError
from monai_spine.geometry import Point, apply_affine
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.grading_crops import GradingCrops
from monai_spine.training.stored_volumes import stored_volume

__all__ = ["PairLoss", "PairedViews", "partners_found", "places_of"]

Item = dict[str, Any]

_MARGIN = 0.2
"""Share of each axis, at either end, in which no place is drawn: skin and air."""
_CANDIDATES = 64


def places_of(
    dataset_dir: str | Path | Sequence[str | Path],
    split: str,
    *,
    role: str,
    per_scan: int,
    limit: int | None = None,
    seed: int = 0,
) -> list[Item]:
    """Draw places in all scans that are cut in the plane of a role; no label is looked at.

    Args:
        dataset_dir: A prepared folder, or several.
        split: `training`, `validation` or `test`.
        role: Such as `sagittal_t2`: any sagittal scan is taken, also of unknown weighting.
        per_scan: Places in each.
        limit: At most so many scans of each folder (the first ones).
        seed: Of the places.

    Returns:
        Items as `GradingCrops` takes them.

    Raises:
        TableError: A folder has no data list, or none has such scans in this split.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, (str, Path)) else list(dataset_dir)
    plane = role.split("_")[0]
    scans = [scan for folder in folders for scan in _scans(folder, split, plane)[:limit]]
    if not scans:
        raise TableError(
            f"There is no {plane} scan in split {split!r} of {', '.join(map(str, folders))}. Prepare data that has this split."
        )
    draws = np.random.default_rng(seed)
    return [
        {"image": path, "point_ras_mm": point, "mirror": False, "label": 0, "target": f"place {number}", "case": case}
        for path, case in scans
        for number, point in enumerate(_drawn_places(path, per_scan, draws))
    ]


def _scans(folder: str | Path, split: str, plane: str) -> list[tuple[str, str]]:
    """Absolute path and case of the scans of one plane."""
    datalist = read_datalist(folder)
    return [
        (str((datalist.root / volume.image).resolve()), case.case)
        for case in datalist.cases_of(split)
        for volume in case.volumes
        if volume.role.split("_")[0] == plane
    ]


def _drawn_places(path: str, count: int, draws: np.random.Generator) -> list[Point]:
    """Points in RAS+ mm, each at a voxel that is brighter than the mean of some others: tissue rather than air."""
    stored = stored_volume(path)
    voxels = stored.array
    size = np.asarray(voxels.shape)
    places: list[Point] = []
    for _ in range(count):
        index = np.floor(size * draws.uniform(_MARGIN, 1 - _MARGIN, (_CANDIDATES, 3))).astype(np.int64)
        seen = voxels[tuple(index.T)]
        r, a, s = apply_affine(stored.affine, index[int(np.argmax(seen > seen.mean()))])
        places.append((float(r), float(a), float(s)))
    return places


class PairedViews(Dataset[list[Item]]):
    """Two random views of each place, as two examples that MONAI's loaders lay into a batch one after the other.

    An example holds what one of `GradingCrops` holds; `label` is the number of its place.

    Args:
        data: As `places_of` gives it.
        **options: Of `GradingCrops`. Without jitter both views are the same.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], **options: Any) -> None:
        self.crops = GradingCrops(data, **options)

    def __len__(self) -> int:
        return len(self.crops)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random views."""
        self.crops.set_random_state(seed)

    def __getitem__(self, index: int) -> list[Item]:
        return [{**self.crops[index], "label": index} for _ in range(2)]


class PairLoss(nn.Module):
    """How badly views are told by their partners: MONAI's contrastive loss of a batch as `PairedViews` fills it.

    On several processes each compares what it has itself.

    Args:
        temperature: The lower, the more the nearest strangers count.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.loss = ContrastiveLoss(temperature=temperature)

    def forward(self, pred: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean over a batch, a number.

        Args:
            pred: (2 B, F) float, partners one after the other.
            label: Not looked at.
        """
        loss: Tensor = self.loss(pred[0::2].float(), pred[1::2].float())
        return loss


def partners_found(pred: Tensor, label: Tensor) -> Tensor:
    """Share of views to which, of all in the batch, a view of the same place is the most similar.

    Args:
        pred: (N, F) float.
        label: Place of each view, (N,).
    """
    unit = nn.functional.normalize(pred.float(), dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(dim=1)
    return (label[nearest] == label).float().mean()
