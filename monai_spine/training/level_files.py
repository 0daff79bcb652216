"""Levels in files: `<image>_levels.json`, which the bundles' own runs write and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_spine.anatomy import Level, Side, Vertebra
from monai_spine.errors import AnatomyError, TableError
from monai_spine.geometry import Point
from monai_spine.level_doubts import Doubt
from monai_spine.level_slices import slices_from_json, slices_json
from monai_spine.levels import LevelPoint, Levels, VertebraPoint

__all__ = ["NOTHING_FOUND", "levels_path", "read_levels", "write_levels"]

NOTHING_FOUND = "no_lumbar_spine_found"
"""Flag of an image on which there are no levels."""


def levels_path(image: Path) -> Path:
    """Path of the levels that belong to an image, in the same folder."""
    return image.with_name(f"{image.name.removesuffix('.gz').removesuffix('.nii')}_levels.json")


def write_levels(image: Path, levels: Levels | None) -> Path:
    """Write the levels of an image, without the bodies' label map, beside where the image would lie.

    Args:
        image: Path of the image; it need not be there.
        levels: None: nothing was found.

    Returns:
        The file that was written.
    """
    path = levels_path(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_document(levels), indent=1), encoding="utf-8")
    return path


def read_levels(path: Path) -> Levels | None:
    """What `write_levels` wrote; None where nothing was found.

    Raises:
        TableError: The file cannot be read, or holds no levels.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        doubts = [_doubt(entry) for entry in document["doubts"]]
        levels = tuple(_level(entry, doubts) for entry in document["levels"])
        vertebrae = tuple(_vertebra(entry) for entry in document["vertebrae"])
        is_nothing = NOTHING_FOUND in document["flags"]
    except (OSError, AnatomyError, KeyError, TypeError, ValueError) as error:
        raise TableError(
            f"{path} cannot be read as levels ({type(error).__name__}: {error}). Write it again with the localiser's bundle."
        ) from error
    return None if is_nothing else Levels(levels, vertebrae, tuple(doubt for doubt in doubts if doubt.level is None))


def _document(levels: Levels | None) -> dict[str, Any]:
    if levels is None:
        return {"levels": [], "vertebrae": [], "flags": [NOTHING_FOUND], "doubts": []}
    return {
        "levels": [
            {
                "level": found.level.label,
                "point_ras_mm": list(found.disc_ras_mm),
                "canal_ras_mm": None if found.canal_ras_mm is None else list(found.canal_ras_mm),
                "foramina_ras_mm": {side.value: list(point) for side, point in found.foramina_ras_mm.items()},
                **slices_json(found),
                "confidence": found.confidence,
                "flags": list(found.flags),
            }
            for found in levels.levels
        ],
        "vertebrae": [
            {"vertebra": body.vertebra.label, "point_ras_mm": list(body.point_ras_mm), "confidence": body.confidence}
            for body in levels.vertebrae
        ],
        "flags": list(levels.flags),
        "doubts": [doubt.to_json() for doubt in levels.doubts],
    }


def _level(entry: Mapping[str, Any], doubts: Sequence[Doubt]) -> LevelPoint:
    level, canal = Level.parse(entry["level"]), entry["canal_ras_mm"]
    return LevelPoint(
        level=level,
        disc_ras_mm=_point(entry["point_ras_mm"]),
        canal_ras_mm=None if canal is None else _point(canal),
        confidence=float(entry["confidence"]),
        doubts=tuple(doubt for doubt in doubts if doubt.level is level),
        foramina_ras_mm={Side.parse(side): _point(point) for side, point in entry["foramina_ras_mm"].items()},
        slices=slices_from_json(entry),
    )


def _doubt(entry: Mapping[str, Any]) -> Doubt:
    level = entry["level"]
    return Doubt(str(entry["flag"]), str(entry["seen"]), None if level is None else Level.parse(level))


def _vertebra(entry: Mapping[str, Any]) -> VertebraPoint:
    return VertebraPoint(Vertebra.parse(entry["vertebra"]), _point(entry["point_ras_mm"]), float(entry["confidence"]))


def _point(values: Any) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s
