"""How far the localiser's levels lie from the labelled ones, and how well its bodies overlap: Ignite metrics.

A level counts under its own name only: one that is found under another name, or not at all, is missed. Points that were derived
and not seen (`estimated`) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from monai_spine.anatomy import DISCS
from monai_spine.errors import LevelsNotFoundError
from monai_spine.level_decoding import decode_levels
from monai_spine.level_inference import maps_of, scan_of
from monai_spine.levels import BODY_VALUES, Levels
from monai_spine.training.datalists import POINT_NAMES

__all__ = ["CAP_MM", "BodyDice", "CappedDistance", "LevelAccuracy", "LevelRow", "found_levels", "rows_of"]

CAP_MM = 20.0
"""Distance that a missed level counts as, and the largest that counts, in `CappedDistance`."""


@dataclass(frozen=True)
class LevelRow:
    """One labelled point and how far the found one lies from it.

    Attributes:
        study: Name of the data set.
        case: Name of the case.
        volume: Path of the volume in its data set: a case may have several.
        role: Kind of series of the volume, as in `series.Role`.
        name: `disc L4/L5` or `canal L4/L5`.
        distance_mm: Infinite where it was not found under this name.
        confidence: Of the level, 0 where it was not found.
    """

    study: str
    case: str
    volume: str
    role: str
    name: str
    distance_mm: float
    confidence: float


def found_levels(output: Mapping[str, Any]) -> Levels | None:
    """Decode one element of an evaluator's output (probabilities `pred`, `image` with its affine); None if nothing was found."""
    image = output["image"]
    maps = maps_of(output["pred"].float().cpu().numpy(), image.affine.cpu(), scan=scan_of(image))
    try:
        return decode_levels(maps)
    except LevelsNotFoundError:
        return None


def rows_of(output: Mapping[str, Any]) -> list[LevelRow]:
    """Compare one element of an evaluator's output with its `label` (points, estimated, and where it comes from)."""
    label, levels = output["label"], output["levels"]
    where = {key: label[key] for key in ("study", "case", "volume", "role")}
    points, estimated = np.asarray(label["points"].cpu(), float), np.asarray(label["estimated"].cpu(), bool)
    rows = []
    for index, name in enumerate(POINT_NAMES):
        if estimated[index] or not np.isfinite(points[index]).all():
            continue
        found = None if levels is None else levels.point_of(DISCS[index % len(DISCS)])
        place = None if found is None else found.disc_ras_mm if name.startswith("disc") else found.canal_ras_mm
        distance = np.inf if place is None else float(np.linalg.norm(np.asarray(place) - points[index]))
        rows.append(LevelRow(**where, name=name, distance_mm=distance, confidence=0.0 if found is None else found.confidence))
    return rows


class _RowMetric(Metric):
    """Collects rows over an epoch, on all processes. A volume that comes twice (a distributed sampler's padding) counts once."""

    def __init__(
        self, output_transform: Callable[[Any], Any] = lambda output: output, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        self._rows: list[Any] = []

    @reinit__is_reduced
    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        for element in output:
            self._rows += self._rows_of(element)

    def _rows_of(self, element: Mapping[str, Any]) -> list[Any]:
        return list(rows_of(element))

    def _gathered(self) -> list[Any]:
        if idist.get_world_size() == 1:
            return self._rows
        shares: list[Any] = [None] * idist.get_world_size()
        torch.distributed.all_gather_object(shares, self._rows)
        return list(dict.fromkeys(row for share in shares for row in share))


class CappedDistance(_RowMetric):
    """Mean distance of discs and canal points in mm, each at most `CAP_MM`; data sets count alike. Lower is better."""

    def compute(self) -> float:
        rows = self._gathered()
        studies = sorted({row.study for row in rows})
        means = [np.mean([min(row.distance_mm, CAP_MM) for row in rows if row.study == study]) for study in studies]
        return float(np.mean(means)) if means else CAP_MM


class LevelAccuracy(_RowMetric):
    """Share of points within 5 and 10 mm under their own name and median distance, for all data sets and for each.

    Computes a mapping such as `{"phantom disc within 5 mm": 0.99, …}`, which Ignite spreads over the engine's metrics. Of each
    data set it also says how many `cases` and `volumes` were looked at, and on what share of the volumes `all discs` are near.

    Args:
        detailed: Also for each point and each role of a data set (`phantom disc L4/L5 …`, `phantom sagittal_t1 disc …`).
        output_transform: As in Ignite.
        device: As in Ignite.
    """

    def __init__(
        self,
        *,
        detailed: bool = False,
        output_transform: Callable[[Any], Any] = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(output_transform=output_transform, device=device)
        self.detailed = detailed

    def compute(self) -> dict[str, float]:
        rows = self._gathered()
        result = _by_structure("all", rows)
        for study in sorted({row.study for row in rows}):
            of_study = [row for row in rows if row.study == study]
            result |= _volumes(study, of_study) | _by_structure(study, of_study)
            if self.detailed:
                for name in POINT_NAMES:
                    result |= _distances(f"{study} {name}", [row for row in of_study if row.name == name])
                for role in sorted({row.role for row in of_study}):
                    result |= _by_structure(f"{study} {role}", [row for row in of_study if row.role == role])
        return result


def _by_structure(prefix: str, rows: Sequence[LevelRow]) -> dict[str, float]:
    result: dict[str, float] = {}
    for structure in ("disc", "canal"):
        result |= _distances(f"{prefix} {structure}", [row for row in rows if row.name.startswith(structure)])
    return result


def _distances(prefix: str, rows: Sequence[LevelRow]) -> dict[str, float]:
    """Nothing where there are no rows: a set that does not label a structure says nothing of it."""
    if not rows:
        return {}
    distances = np.array([row.distance_mm for row in rows])
    return {
        f"{prefix} within 5 mm": float(np.mean(distances <= 5)),
        f"{prefix} within 10 mm": float(np.mean(distances <= 10)),
        f"{prefix} median mm": float(np.median(np.minimum(distances, 999.0))),
        f"{prefix} count": float(len(distances)),
    }


def _volumes(study: str, rows: Sequence[LevelRow]) -> dict[str, float]:
    """How many cases and volumes, and on what share of the volumes all labelled discs are near."""
    farthest: dict[str, float] = {}
    for row in rows:
        if row.name.startswith("disc"):
            farthest[row.volume] = max(farthest.get(row.volume, 0.0), row.distance_mm)
    worst = np.array(list(farthest.values()))
    shares = {f"{study} all discs within {limit} mm": float(np.mean(worst <= limit)) for limit in (5, 10) if len(worst)}
    cases, volumes = ({getattr(row, name) for row in rows} for name in ("case", "volume"))
    return {f"{study} cases": float(len(cases)), f"{study} volumes": float(len(volumes)), **shares}


class BodyDice(_RowMetric):
    """Mean Dice of the labelled vertebral bodies that are in view, under their own names; data sets count alike."""

    def _rows_of(self, element: Mapping[str, Any]) -> list[Any]:
        label, levels = element["label"], element["levels"]
        truth, marked = np.asarray(label["bodies"].cpu())[0], np.asarray(label["marked"].cpu())
        rows = []
        for position, (vertebra, value) in enumerate(BODY_VALUES.items()):
            mask = truth == value
            if marked[position] and mask.any():
                found = np.zeros_like(mask) if levels is None or levels.bodies is None else levels.bodies.array == value
                dice = 2 * float((mask & found).sum()) / float(mask.sum() + found.sum())
                rows.append((label["study"], label["volume"], vertebra.label, dice))
        return rows

    def compute(self) -> float:
        rows = self._gathered()
        studies = sorted({row[0] for row in rows})
        return float(np.mean([np.mean([row[3] for row in rows if row[0] == study]) for study in studies])) if studies else 0.0
