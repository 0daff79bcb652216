"""Data lists for MONAI datasets: plain dicts, one per training example.

No key begins with another key's name and `_` (monai 1.6 takes `image_*` for meta data of `image`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_spine.anatomy import DISCS, Condition, Level, Side, Vertebra
from monai_spine.errors import TableError
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine, spacing_of
from monai_spine.studies.prepared import Datalist, PreparedCase, PreparedTarget, PreparedVolume, read_datalist
from monai_spine.training.losses import MISSING
from monai_spine.training.stored_volumes import stored_grid

__all__ = [
    "BODIES",
    "POINT_NAMES",
    "Datalist",
    "grading_items",
    "localizer_items",
    "mixed_items",
    "read_datalist",
    "sampling_weights",
]

BODIES: tuple[Vertebra, ...] = (Vertebra.L1, Vertebra.L2, Vertebra.L3, Vertebra.L4, Vertebra.L5, Vertebra.S1, Vertebra.T12)
"""Vertebral bodies of label maps; label value = position + 1."""

POINT_NAMES: tuple[str, ...] = tuple(f"{what} {level.label}" for what in ("disc", "canal") for level in DISCS)
"""The localiser's twelve points in channel order: `disc T12/L1` … `disc L5/S1`, `canal T12/L1` … `canal L5/S1`."""

Item = dict[str, Any]


def localizer_items(datalist: Datalist, split: str) -> list[Item]:
    """One item per sagittal volume.

    Returns:
        Dicts with `image` (absolute path), `bodies` (absolute path, empty where there is no label map), `points` ((12, 3)
        float32 RAS+ mm in the order of `POINT_NAMES`; NaN where not labelled), `estimated` ((12,) bool), `foramina` ((6, 2, 3)
        float32 RAS+ mm of the left and the right neural foramen of T12/L1 … L5/S1; NaN where not labelled), `marked` ((7,)
        float32, 1 where the label map marks that body), `case`, `study`, `volume` (path in the data set), `role`.
    """
    return [
        _localizer_item(datalist, case, volume)
        for case in datalist.cases_of(split)
        for volume in case.volumes
        if volume.role.startswith("sagittal")
    ]


def _localizer_item(datalist: Datalist, case: PreparedCase, volume: PreparedVolume) -> Item:
    known = {f"disc {level.label}": point for level, point in case.discs.items()}
    known |= {f"canal {level.label}": point for level, point in case.canals.items()}
    nowhere = (np.nan, np.nan, np.nan)
    return {
        "image": str((datalist.root / volume.image).resolve()),
        "bodies": "" if volume.bodies is None else str((datalist.root / volume.bodies).resolve()),
        "points": np.array([known.get(name, nowhere) for name in POINT_NAMES], dtype=np.float32),
        "estimated": np.array([name in case.estimated for name in POINT_NAMES]),
        "foramina": np.array([[_foramen(case, level, side) for side in Side] for level in DISCS], dtype=np.float32),
        "marked": np.array([volume.bodies is not None and body in volume.bodies_labelled for body in BODIES], dtype=np.float32),
        "case": case.case,
        "study": datalist.study,
        "volume": volume.image,
        "role": volume.role,
    }


def _foramen(case: PreparedCase, level: Level, side: Side) -> Point:
    """Where the foramen of a side was graded; NaN where it was not."""
    for target, found in case.targets.items():
        if (target.condition, target.level, target.side) == (Condition.NEURAL_FORAMINAL_NARROWING, level, side):
            return found.point_ras_mm
    return (np.nan, np.nan, np.nan)


def mixed_items(datalists: Path | str | Sequence[Path | str], split: str, *, limit: int | None = None) -> list[Item]:
    """The localiser's items of one or several prepared folders, one after the other.

    Args:
        datalists: A prepared folder, or several.
        split: `training`, `validation` or `test`.
        limit: At most so many items of each folder (the first ones).

    Raises:
        TableError: A folder has no data list, or none of them has anything in this split.
    """
    folders = [datalists] if isinstance(datalists, (str, Path)) else list(datalists)
    items = [item for folder in folders for item in localizer_items(read_datalist(folder), split)[:limit]]
    if not items:
        raise TableError(
            f"There is nothing in split {split!r} of {', '.join(map(str, folders))}. Prepare data that has this split."
        )
    return items


def sampling_weights(items: Sequence[Item], shares: Mapping[str, float] | None = None) -> list[float]:
    """How likely each item is drawn, so that data sets of different sizes are mixed in a stated ratio.

    Args:
        items: Items with `study`.
        shares: Share of each data set by name; None gives every data set the same.

    Returns:
        One weight per item; they add up to 1.

    Raises:
        TableError: A data set among the items has no share.
    """
    counts = Counter(item["study"] for item in items)
    wanted = dict.fromkeys(counts, 1.0) if shares is None else {name: float(share) for name, share in shares.items()}
    without = sorted(set(counts) - set(wanted))
    if without:
        raise TableError(f"No sampling share is given for {', '.join(without)}. Shares are given for: {', '.join(wanted)}.")
    total = sum(wanted[name] for name in counts)
    return [wanted[item["study"]] / total / counts[item["study"]] for item in items]


def grading_items(
    datalist: Datalist, split: str, condition: Condition | str, role: str, *, graded_only: bool = True
) -> list[Item]:
    """One item per graded target of a condition; targets without a grade, and cases without a series of this role, are left out.

    With `graded_only=False` targets that have a point and no grade are there too, labelled `losses.MISSING`.

    Where a case has several volumes of the role (series, blocks of axial slices), the target goes with the one that it was marked
    on; where the data list does not say, or that one has another role, with the one that its point lies deepest in.

    Returns:
        Dicts with `image` (absolute path), `point_ras_mm` ([r, a, s]), `mirror` (True for the right side, which is shown as a
        left one), `label` (0, 1 or 2, `MISSING` without a grade), `target` (slug), `case`; for training also the `shares` of all
        readers who would give each severity, where they are known.
    """
    condition = Condition.parse(condition)
    items = []
    for case in datalist.cases_of(split):
        grids = [(path, *stored_grid(path)) for path in _images(datalist, case, role)]
        for target, found in case.targets.items():
            if not grids or target.condition is not condition or (graded_only and found.severity is None):
                continue
            items.append(
                {
                    "image": _marked_image(datalist, found, grids),
                    "point_ras_mm": list(found.point_ras_mm),
                    "mirror": target.side is Side.RIGHT,
                    "label": MISSING if found.severity is None else found.severity.index,
                    "target": target.slug,
                    "case": case.case,
                    **({"shares": list(found.shares)} if found.shares is not None and split == "training" else {}),
                }
            )
    return items


def _marked_image(datalist: Datalist, found: PreparedTarget, grids: Sequence[tuple[str, Affine, tuple[int, ...]]]) -> str:
    """The volume that a target was marked on if it is among these, otherwise the one that its point lies deepest in."""
    marked = None if found.image is None else str((datalist.root / found.image).resolve())
    if marked in [path for path, _, _ in grids]:
        return marked
    return min(grids, key=lambda grid: _depth_mm(found.point_ras_mm, grid[1], grid[2]))[0]


def _images(datalist: Datalist, case: PreparedCase, role: str) -> list[str]:
    return [str((datalist.root / volume.image).resolve()) for volume in case.volumes if volume.role == role]


def _depth_mm(point_ras_mm: Point, affine: Affine, shape: tuple[int, ...]) -> float:
    """How far a point lies outside a grid; negative inside, the more the deeper. Millimetres along the grid's worst axis."""
    middle = (np.asarray(shape[:3]) - 1) / 2
    offset = np.abs(apply_affine(invert_affine(affine), point_ras_mm) - middle)
    return float(((offset - middle) * spacing_of(affine)).max())
