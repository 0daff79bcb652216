"""What only the refining network's engines need: batches, metrics, a table at the end, pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from monai_spine.anatomy import Side
from monai_spine.geometry import apply_affine
from monai_spine.level_refinement import locate
from monai_spine.training.gathering import FirstPictures, RowMetric, StudyTable

__all__ = ["BlockPictures", "RefinementAccuracy", "RefinementTable", "Shortfall", "prepare_batch"]

_CAP_MM = 10.0
_STRUCTURES = {"disc": (0,), "canal": (1,), "foramen": (2, 3)}
"""Which of an example's points belong to which structure."""

_CHANNEL_OF_POINT = (0, 1, 2, 2)
_BODY_CHANNELS = (3, 4)
_ANSWER_KEYS = ("target", "weight", "affine", "points", "study")


def prepare_batch(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Images (B, 1, R, A, S) and their answers: `target`, `weight`, and for the metrics `affine`, `points`, `study`."""
    answer = {key: batch[key] for key in _ANSWER_KEYS}
    answer |= {key: answer[key].to(device=device, non_blocking=non_blocking) for key in ("target", "weight")}
    return batch["image"].to(device=device, non_blocking=non_blocking), answer


@dataclass(frozen=True)
class _Row:
    """One block: distances in mm (None where that point was not seen and labelled) and Dice of the labelled bodies."""

    study: str
    distances_mm: tuple[float | None, ...]
    dice: tuple[float, ...]


def _row_of(output: Mapping[str, Any]) -> _Row:
    """Compare one decollated element of an evaluator's output (probabilities `pred`) with its `label`."""
    label, maps = output["label"], output["pred"].float().cpu().numpy()
    affine, points = (np.asarray(label[key].cpu(), float) for key in ("affine", "points"))
    middle = apply_affine(affine, (np.asarray(maps.shape[1:]) - 1) / 2)
    found = locate(maps, affine, (float(middle[0]), float(middle[1]), float(middle[2])))
    weight, target = np.asarray(label["weight"].cpu()), np.asarray(label["target"].cpu())
    places = [found.disc, found.canal, found.foramina.get(Side.LEFT), found.foramina.get(Side.RIGHT)]
    distances = [
        None if weight[channel] < 1 else _CAP_MM if place is None else min(_CAP_MM, float(np.linalg.norm(place - point)))
        for channel, place, point in zip(_CHANNEL_OF_POINT, places, points, strict=True)
    ]
    seen = [at for at in _BODY_CHANNELS if weight[at] > 0 and (target[at] > 0.5).any()]
    return _Row(str(label["study"]), tuple(distances), tuple(_dice(maps[at] > 0.5, target[at] > 0.5) for at in seen))


def _dice(found: Any, true: Any) -> float:
    return 2 * float((found & true).sum()) / float(found.sum() + true.sum())


class RefinementAccuracy(RowMetric):
    """Mean distance of disc, canal and foramina (each at most 10 mm) and mean Dice of the bodies, for each data set.

    Computes a mapping such as `{"phantom disc mm": 1.1, "phantom body dice": 0.95, "phantom count": 60.0}`.
    """

    def rows_of(self, element: Mapping[str, Any]) -> list[_Row]:
        return [_row_of(element)]

    def compute(self) -> Any:
        rows = self.gathered()
        result: dict[str, float] = {}
        for study in sorted({row.study for row in rows}):
            mine = [row for row in rows if row.study == study]
            for structure, positions in _STRUCTURES.items():
                distances = [distance for row in mine for at in positions if (distance := row.distances_mm[at]) is not None]
                result |= {f"{study} {structure} mm": float(np.mean(distances))} if distances else {}
            overlaps = [dice for row in mine for dice in row.dice]
            result |= {f"{study} body dice": float(np.mean(overlaps))} if overlaps else {}
            result[f"{study} count"] = float(len(mine))
        return result


class Shortfall(RefinementAccuracy):
    """One number to choose the best network by: the mean over data sets of distances in mm plus ten times what Dice lacks."""

    def compute(self) -> float:
        values = super().compute()
        lacking = [10 * (1 - value) for name, value in values.items() if name.endswith("dice")]
        return float(np.mean([value for name, value in values.items() if name.endswith("mm")]) + np.mean(lacking or [10.0]))


class RefinementTable(StudyTable):
    """Print the metrics of `RefinementAccuracy`."""

    columns: ClassVar[Mapping[str, str]] = {"disc mm": ".2f", "canal mm": ".2f", "foramen mm": ".2f", "body dice": ".3f"}

    def __init__(self, metric: str = "refined") -> None:
        super().__init__(metric)


class BlockPictures(FirstPictures):
    """Middle slices of blocks with what was seen on them."""

    tag = "blocks"

    def draw(self, output: Mapping[str, Any]) -> Any:
        return _picture(output)


def _picture(output: Mapping[str, Any]) -> Any:
    """Grey slice with the disc red, canal and foramina green, the bodies blue: (3, S, A), 0 to 1, head up, front to the left."""
    image, maps = np.asarray(output["image"].cpu())[0], output["pred"].float().cpu().numpy()
    middle = image.shape[0] // 2
    layers = [maps[0], maps[1:3].max(0), 0.5 * maps[3:].max(0)]
    colored = np.stack([np.clip(0.8 * np.clip(image, 0, 1) + layer, 0, 1)[middle] for layer in layers])
    return np.ascontiguousarray(np.flip(colored.transpose(0, 2, 1), (1, 2)))
