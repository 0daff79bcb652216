"""Mid-sagittal pictures as an analysis sees them, without millimetres; what is found is kept, as a look takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from localizer_evaluation.looks import load_localizer
from monai_spine.anatomy import Level, Vertebra
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine
from monai_spine.level_pictures import look_at_picture
from monai_spine.levels import LevelPoint, Levels, VertebraPoint
from monai_spine.volume import Volume, load_nifti, picture_volume
from monai_spine.whole_files import write_text

__all__ = ["looked_at"]

_Places = Mapping[str, Sequence[float]]


def looked_at(path: Path, image: Path, localizers: Path) -> tuple[Volume, Levels]:
    """A picture at the scale that was found, and its levels; none where no column is found.

    Args:
        path: JSON file that keeps the scale and the points in pixels, for as long as picture and networks are the same.
        image: The picture as a prepared study holds it, a NIfTI file of one slice.
        localizers: Folder of localizer.pt, namer.pt and refiner.pt.
    """
    picture = load_nifti(image).array[0].T
    weights = {kind: localizers / f"{kind}.pt" for kind in ("localizer", "namer", "refiner")}
    of = {"image": sha256(image.read_bytes()).hexdigest(), "networks": _digest(tuple(weights.values()))}
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("of") != of:
        try:
            kept = _kept(*look_at_picture(picture, load_localizer(weights)))
        except LevelsNotFoundError:
            kept = {"mm_per_px": 1.0, "points": {}, "canals": {}}
        kept["of"] = of
        write_text(path, json.dumps(kept))
    volume = picture_volume(picture, kept["mm_per_px"])
    places, canals = (_in_mm(kept[name], volume.affine) for name in ("points", "canals"))
    discs = tuple(LevelPoint(Level(name), place, canals.get(name), 1.0) for name, place in places.items() if "/" in name)
    bodies = tuple(VertebraPoint(Vertebra(name), place, 1.0) for name, place in places.items() if "/" not in name)
    return volume, Levels(discs, bodies)


@lru_cache
def _digest(files: tuple[Path, ...]) -> str:
    return sha256(b"".join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _kept(volume: Volume, levels: Levels) -> dict[str, Any]:
    """The scale, discs and bodies, and the canal at the discs, in pixels."""
    to_px = invert_affine(volume.affine)

    def px(point: Point) -> list[float]:
        return [float(value) for value in apply_affine(to_px, point)[1:]]

    points = {one.level.label: px(one.disc_ras_mm) for one in levels.levels}
    points |= {one.vertebra.label: px(one.point_ras_mm) for one in levels.vertebrae}
    canals = {one.level.label: px(one.canal_ras_mm) for one in levels.levels if one.canal_ras_mm is not None}
    return {"mm_per_px": volume.spacing_mm[1], "points": points, "canals": canals}


def _in_mm(places: _Places, affine: Affine) -> dict[str, Point]:
    found = {}
    for name, place in places.items():
        r, a, s = apply_affine(affine, [0.0, *place])
        found[name] = (float(r), float(a), float(s))
    return found
