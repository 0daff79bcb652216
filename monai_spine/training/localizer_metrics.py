"""How far the localiser's levels lie from the labelled ones, and how well its bodies overlap: Ignite metrics.

A level counts under its own name only: one that is found under another name, or not at all, is missed. Points that were derived
and not seen (`estimated`) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import DISCS, Vertebra
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, apply_affine, invert_affine, lies_inside
from monai_spine.level_decoding import decode_levels
from monai_spine.level_inference import maps_of, named_levels, scan_of
from monai_spine.level_names import LevelNamer
from monai_spine.levels import BODY_VALUES, BodyMap, Levels
from monai_spine.training.datalists import POINT_NAMES
from monai_spine.training.gathering import RowMetric
from monai_spine.volume import Volume

__all__ = ["CAP_MM", "BodyDice", "CappedDistance", "LevelAccuracy", "LevelRow", "body_overlaps", "found_levels", "rows_of"]

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


def found_levels(output: Mapping[str, Any], *, volume: Volume | None = None, namer: LevelNamer | None = None) -> Levels | None:
    """Decode one element of an evaluator's output (probabilities `pred`, `image` with its affine); None if nothing was found.

    Args:
        output: The element.
        volume: The scan that it was made from; needed with a namer only.
        namer: Says which disc is which; None: the output's own maps say it.
    """
    image = output["image"]
    maps = maps_of(output["pred"].float().cpu().numpy(), image.affine.cpu(), scan=scan_of(image))
    try:
        return decode_levels(maps) if volume is None else named_levels(maps, volume, namer)
    except LevelsNotFoundError:
        return None


def rows_of(output: Mapping[str, Any]) -> list[LevelRow]:
    """Compare one element of an evaluator's output with its `label` (points, estimated, and where it comes from).

    Points that lie outside the scan are left out.
    """
    label, levels, scan = output["label"], output["levels"], scan_of(output["image"])
    where = {key: label[key] for key in ("study", "case", "volume", "role")}
    points, estimated = np.asarray(label["points"].cpu(), float), np.asarray(label["estimated"].cpu(), bool)
    inside = np.isfinite(points).all(1) if scan is None else lies_inside(points, np.asarray(scan[0], float), scan[1])
    rows = []
    for index, name in enumerate(POINT_NAMES):
        if estimated[index] or not inside[index]:
            continue
        found = None if levels is None else levels.point_of(DISCS[index % len(DISCS)])
        place = None if found is None else found.disc_ras_mm if name.startswith("disc") else found.canal_ras_mm
        distance = np.inf if place is None else float(np.linalg.norm(np.asarray(place) - points[index]))
        rows.append(LevelRow(**where, name=name, distance_mm=distance, confidence=0.0 if found is None else found.confidence))
    return rows


class _LevelMetric(RowMetric):
    """Collects a row per labelled point."""

    distinct = True

    def rows_of(self, element: Mapping[str, Any]) -> list[LevelRow]:
        return rows_of(element)


class CappedDistance(_LevelMetric):
    """Mean distance of discs and canal points in mm, each at most `CAP_MM`; data sets count alike. Lower is better."""

    def compute(self) -> float:
        rows = self.gathered()
        studies = sorted({row.study for row in rows})
        means = [np.mean([min(row.distance_mm, CAP_MM) for row in rows if row.study == study]) for study in studies]
        return float(np.mean(means)) if means else CAP_MM


class LevelAccuracy(_LevelMetric):
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
        rows = self.gathered()
        result = _by_structure("all", rows)
        for study in sorted({row.study for row in rows}):
            of_study = [row for row in rows if row.study == study]
            result |= _volumes(study, of_study) | _by_structure(study, of_study)
            result |= _distances(f"{study} disc, surest volume of a case", _surest(of_study))
            if self.detailed:
                for name in POINT_NAMES:
                    result |= _distances(f"{study} {name}", [row for row in of_study if row.name == name])
                for role in sorted({row.role for row in of_study}):
                    result |= _by_structure(f"{study} {role}", [row for row in of_study if row.role == role])
        return result


def _surest(rows: Sequence[LevelRow]) -> list[LevelRow]:
    """The discs of each case on the volume that an analysis would take: the one with the greatest sum of confidences."""
    trust: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.name.startswith("disc"):
            of_case = trust.setdefault(row.case, {})
            of_case[row.volume] = of_case.get(row.volume, 0.0) + row.confidence
    best = {max(volumes, key=lambda volume: volumes[volume]) for volumes in trust.values()}
    return [row for row in rows if row.volume in best and row.name.startswith("disc")]


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


def body_overlaps(bodies: BodyMap | None, path: Path | str, marked: Collection[Vertebra]) -> list[tuple[Vertebra, float]]:
    """Dice of each body that a label map marks and shows, on the label map's own grid.

    Args:
        bodies: What was found; None overlaps with nothing.
        path: NIfTI label map with the values of `BODY_VALUES`.
        marked: The bodies that it marks wherever they are visible.
    """
    stored = nib.load(path)
    truth = np.asarray(stored.dataobj)
    found = np.zeros_like(truth) if bodies is None else _on_grid(bodies, np.asarray(stored.affine, float), truth.shape)
    masks = {body: (truth == value, found == value) for body, value in BODY_VALUES.items() if body in marked}
    return [(body, _dice(true, mine)) for body, (true, mine) in masks.items() if true.any()]


def _dice(true: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> float:
    return 2 * float((true & found).sum()) / float(true.sum() + found.sum())


def _on_grid(bodies: BodyMap, affine: Affine, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A label map at the voxels of another grid, by the nearest; 0 outside."""
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    places = np.rint(apply_affine(invert_affine(bodies.affine) @ affine, voxels)).astype(int)
    inside = np.asarray(((places >= 0) & (places < bodies.array.shape)).all(-1))
    i, j, k = np.moveaxis(np.where(inside[..., None], places, 0), -1, 0)
    return np.asarray(np.where(inside, bodies.array[i, j, k], 0))


class BodyDice(RowMetric):
    """Mean Dice of the labelled vertebral bodies, under their own names, on the label maps' own grids; data sets count alike."""

    distinct = True

    def rows_of(self, element: Mapping[str, Any]) -> list[Any]:
        label, levels = element["label"], element["levels"]
        if not label["bodies"]:
            return []
        marked = [body for body, flag in zip(BODY_VALUES, label["marked"].tolist(), strict=True) if flag]
        overlaps = body_overlaps(None if levels is None else levels.bodies, label["bodies"], marked)
        return [(label["study"], label["volume"], body.label, dice) for body, dice in overlaps]

    def compute(self) -> float:
        rows = self.gathered()
        studies = sorted({row[0] for row in rows})
        return float(np.mean([np.mean([row[3] for row in rows if row[0] == study]) for study in studies])) if studies else 0.0
