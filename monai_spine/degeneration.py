"""Degeneration on one mid-sagittal T2 slice: a grade of each disc and vertebra, wherever its levels were found.

The crop's size is a share of the column's own disc spacing, so that a picture without millimetres is looked at as a scan is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_spine.anatomy import DISC_GRADES, VERTEBRA_GRADES, Level, Vertebra
from monai_spine.crops import CropSpec, crop_block, project_to_slice
from monai_spine.errors import OutsideFieldOfViewError, WeightsError
from monai_spine.geometry import Point
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.levels import Levels
from monai_spine.suggestions import did_you_mean
from monai_spine.volume import Volume
from monai_spine.weights import Bundle, bundle_folder, find_bundle

__all__ = [
    "DEGENERATION",
    "HEADS",
    "Degeneration",
    "DegenerationGrader",
    "load_degeneration",
    "probabilities_of",
    "refuse_unknown_heads",
    "split_heads",
]

DEGENERATION = "lumbar_disc_degeneration_grading"
"""Name of the bundle, which need not be there."""

HEADS: Mapping[str, tuple[str, ...]] = {
    "grade": DISC_GRADES,
    "schmorl_node": ("absent", "present"),
    "vertebra": VERTEBRA_GRADES,
}
"""The questions and their answers, in the order of logits and labels: of a disc its grade and whether it bears a Schmorl node."""

_GRADED = frozenset({*Level, *(Vertebra(f"L{number}") for number in range(1, 6))})


@dataclass(frozen=True)
class Degeneration:
    """One graded structure.

    Attributes:
        structure: A disc or a vertebra.
        probabilities: Of each grade; they sum to 1.
        grade: See `DegenerationGrader`.
        point_ras_mm: Centre of the crop.
        schmorl_node: Probability that a disc bears one; None for a vertebra.
    """

    structure: Level | Vertebra
    probabilities: Mapping[str, float]
    grade: str
    point_ras_mm: Point
    schmorl_node: float | None = None


def split_heads(together: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits or probabilities (…, 8) by head: (…, 4), (…, 2) and (…, 2)."""
    return dict(zip(HEADS, together.split([len(names) for names in HEADS.values()], dim=-1), strict=True))


def refuse_unknown_heads(names: Iterable[str]) -> None:
    """Refuse a config that says something of a head that is not there.

    Raises:
        WeightsError: It does; the message offers the nearest.
    """
    for name in names:
        if name not in HEADS:
            raise WeightsError(f"There is no head {name!r}. {did_you_mean(name, HEADS)}Choose from: {', '.join(HEADS)}.")


def probabilities_of(
    logits: torch.Tensor, temperatures: Mapping[str, float] | None = None, offsets: Mapping[str, Sequence[float]] | None = None
) -> torch.Tensor:
    """A softmax of each head (…, 8), at its temperature and with the offsets of its answers (`training.decisions`).

    Raises:
        WeightsError: A head is unknown.
    """
    refuse_unknown_heads([*(temperatures or {}), *(offsets or {})])
    parts = []
    for name, head in split_heads(logits).items():
        offset = torch.tensor((offsets or {}).get(name, [0.0] * head.shape[-1]), dtype=head.dtype, device=head.device)
        parts.append((head / (temperatures or {}).get(name, 1.0) + offset).softmax(dim=-1))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class DegenerationGrader:
    """The bundle, ready to run.

    Its `inference.json` says under `crop` how large a crop is where neighbouring discs lie `DISC_SPACING_MM` apart, and under
    `decision`, by head, what probabilities are multiplied with before the largest is taken, so that rare grades are called too.
    """

    bundle: Bundle
    spec: CropSpec
    network: Any
    device: str = "cpu"

    def __call__(self, volume: Volume, levels: Levels) -> tuple[Degeneration, ...]:
        """Grade what lies inside the scan, from the head down, discs first; arguments as of `logits`."""
        found = self.logits(volume, levels)
        return tuple(self._graded(one, *answer) for one, answer in found.items())

    def logits(self, volume: Volume, levels: Levels) -> dict[Level | Vertebra, tuple[Point, torch.Tensor]]:
        """The centre of each crop and the network's answer (8,).

        Args:
            volume: A sagittal T2 scan, or a picture as one slice.
            levels: What was found on it.
        """
        a_mm, s_mm = (edge * _stretch(levels) for edge in self.spec.size_mm[1:])
        places: dict[Level | Vertebra, Point] = {level.level: level.disc_ras_mm for level in levels.levels}
        places |= {body.vertebra: body.point_ras_mm for body in levels.vertebrae if body.vertebra in _GRADED}
        points, images = {}, []
        for structure, place in places.items():
            point = project_to_slice(place, volume)
            with suppress(OutsideFieldOfViewError):
                crop = crop_block(volume, point, size_mm=(self.spec.size_mm[0], a_mm, s_mm), **self._cut)
                images.append(self.bundle.preprocessing({"image": torch.from_numpy(crop.image)})["image"])
                points[structure] = point
        if not images:
            return {}
        batch = torch.stack([torch.as_tensor(image) for image in images]).to(self.device)
        with torch.inference_mode():
            rows = self.bundle.inferer(batch, self.network).float().cpu()
        return {structure: (point, row) for (structure, point), row in zip(points.items(), rows, strict=True)}

    @property
    def _cut(self) -> dict[str, Any]:
        return {"shape": self.spec.shape, "min_coverage": self.spec.min_coverage}

    def _graded(self, structure: Level | Vertebra, point: Point, row: torch.Tensor) -> Degeneration:
        heads = split_heads(torch.as_tensor(self.bundle.postprocessing({"pred": row})["pred"]))
        head = "grade" if isinstance(structure, Level) else "vertebra"
        weights = torch.tensor((self.bundle.option("decision") or {}).get(head, [1.0] * len(HEADS[head])))
        return Degeneration(
            structure=structure,
            probabilities=dict(zip(HEADS[head], heads[head].tolist(), strict=True)),
            grade=HEADS[head][int((heads[head] * weights).argmax())],
            point_ras_mm=point,
            schmorl_node=float(heads["schmorl_node"][1]) if head == "grade" else None,
        )


def load_degeneration(folder: Path | str | None = None, device: str = "cpu") -> DegenerationGrader | None:
    """The bundle of a folder of bundles, ready to run; None where there is none.

    Raises:
        WeightsError: It cannot be run.
    """
    if not (bundle_folder(folder) / DEGENERATION).is_dir():
        return None
    bundle = find_bundle(DEGENERATION, folder)
    return DegenerationGrader(bundle, CropSpec.from_config(bundle.config("crop")), bundle.network(device), device)


def _stretch(levels: Levels) -> float:
    """How many times as far apart the discs of this column lie as an adult's."""
    places = np.array([level.disc_ras_mm for level in levels.levels]).reshape(-1, 3)
    steps = np.diff([list(Level).index(level.level) for level in levels.levels])
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1) / steps
    return float(np.mean(gaps)) / DISC_SPACING_MM if len(gaps) else 1.0
