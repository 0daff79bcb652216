"""Look again at each named disc, at a finer grid: its centre, the canal behind it, both foramina, and the two bodies beside it.

The refining network knows no names and no sides. It sees one block around one disc, turned so that the column runs along its
third axis, and answers with five maps: disc, canal, foramina (both on one map), body above, body below. Names come from the
localiser, which has seen the whole column; sides from where the patient's left lies in space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import LEVELS, Side
from monai_spine.crops import resample_block
from monai_spine.errors import WeightsError
from monai_spine.geometry import Affine, Point, Triple, apply_affine, invert_affine, lies_inside
from monai_spine.level_blocks import BlockSpec
from monai_spine.level_bodies import BodyCanvas
from monai_spine.level_candidates import peak_near
from monai_spine.level_doubts import CANAL_NOT_SEEN, canal_doubt
from monai_spine.level_slices import on_slices
from monai_spine.levels import LevelPoint, Levels
from monai_spine.volume import Volume
from monai_spine.weights import Bundle

__all__ = [
    "CHANNELS",
    "DiscBlock",
    "LevelRefiner",
    "Located",
    "block_affine",
    "column_direction",
    "cut_blocks",
    "locate",
    "refine_levels",
]

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]

CHANNELS = ("disc", "canal", "foramina", "body above", "body below")
"""What the refining network's channels say."""

_DISC, _CANAL, _FORAMINA = range(3)
_BODIES = slice(3, 5)
_REACH_MM = 14.0
_CANAL_MM = 24.0
_FORAMEN_MM = (17.0, 5.0, 8.0)  # outwards, to the front and up from the canal: the middle of placement.FORAMINAL_OFFSET_MM
_SEEN = 0.2


class DiscBlock(BlockSpec):
    """The block that the refining network sees, turned so that its third axis follows the column."""

    bundle = "refining"


def column_direction(points_ras_mm: Sequence[Point] | Floats, index: int) -> Floats:
    """Unit vector up the column at one of several discs, from the nearest known ones; the scanner's own up where there are none.

    Args:
        points_ras_mm: (N, 3) centres from the head down; rows with NaN are not known.
        index: Which of them.
    """
    points = np.asarray(points_ras_mm, float)
    known = np.flatnonzero(np.isfinite(points).all(1))
    above, below = known[known < index][-1:], known[known > index][:1]
    near = [*above, index, *below]
    if len(near) < 2:
        return np.array([0.0, 0.0, 1.0])
    step = points[near[0]] - points[near[-1]]
    return np.asarray(step / np.linalg.norm(step))


def block_affine(scan_affine: Affine, disc_ras_mm: Point | Floats, up: Floats, block: DiscBlock) -> Affine:
    """Where the block around a disc lies: 4 × 4, voxel centre to RAS+ mm.

    Its first axis is the scan's own axis nearest to the patient's right, so that sagittal slices stay slices; the third follows
    the column.

    Args:
        scan_affine: Of the scan that it is cut from.
        disc_ras_mm: Centre of the disc.
        up: Direction of the column there.
        block: Its size and place.
    """
    right = scan_affine[:3, int(np.argmax(np.abs(scan_affine[0, :3] / np.linalg.norm(scan_affine[:3, :3], axis=0))))]
    right = right / np.linalg.norm(right) * np.sign(right[0])
    above = up - (up @ right) * right
    above = above / max(float(np.linalg.norm(above)), 1e-6)
    axes = np.stack([right, np.cross(above, right), above], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(block.spacing_mm)
    center = np.asarray(disc_ras_mm) + axes @ np.asarray(block.center_mm)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.asarray(block.shape) - 1) / 2)
    return affine


def cut_blocks(volume: Volume, levels: Levels, block: DiscBlock, preprocessing: Any) -> tuple[torch.Tensor, list[Affine]]:
    """What the network is shown of each level: (levels, 1, R, A, S), and the affines of these blocks.

    Args:
        volume: Scan to cut from.
        levels: Where its discs are.
        block: What is cut around each.
        preprocessing: The bundle's, on dicts with `image`.
    """
    points = [found.disc_ras_mm for found in levels.levels]
    affines = [block_affine(volume.affine, point, column_direction(points, at), block) for at, point in enumerate(points)]
    blocks = [torch.from_numpy(resample_block(volume, affine, block.shape))[None] for affine in affines]
    return torch.stack([torch.as_tensor(preprocessing({"image": one})["image"]) for one in blocks]), affines


@dataclass(frozen=True)
class _Look:
    """What was seen around one disc: probabilities (5, R, A, S) on the block's grid."""

    level: LevelPoint
    maps: Maps
    affine: Affine


class LevelRefiner:
    """A loaded refining network: takes a scan and its levels, gives better ones.

    Args:
        bundle: Says block, preprocessing, network, inferer and postprocessing.
        device: Where the network runs.
        network: The bundle's network if it is loaded already.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", network: Any = None) -> None:
        self.bundle, self.device = bundle, device
        self.network = bundle.network(device) if network is None else network
        self.block = DiscBlock.from_config(bundle.config("crop"))
        self.inferer, self.preprocessing, self.postprocessing = bundle.inferer, bundle.preprocessing, bundle.postprocessing

    def __call__(self, volume: Volume, levels: Levels) -> Levels:
        """Replace the points by better ones, and the bodies by a mask on the scan's own grid (in its plane at most 1 mm fine).

        A point that the finer look does not show stays where it was. Names, confidences and doubts stay, but for
        `canal_not_seen`, which is decided anew.
        """
        batch, affines = cut_blocks(volume, levels, self.block, self.preprocessing)
        with torch.inference_mode():
            logits = self.inferer(batch.to(self.device), self.network)
        maps = [self.postprocessing({"pred": answer})["pred"].float().cpu().numpy() for answer in logits]
        needed = (len(CHANNELS), *self.block.shape)
        if wrong := [answer.shape for answer in maps if answer.shape != needed]:
            raise WeightsError(f"The refiner answered with shape {wrong[0]}; {needed} is needed. Use a bundle with its channels.")
        return refine_levels(volume, levels, affines=affines, maps=maps)


def refine_levels(volume: Volume, levels: Levels, *, affines: Sequence[Affine], maps: Sequence[Maps]) -> Levels:
    """The same levels, seen at a finer grid; see `LevelRefiner.__call__`.

    Args:
        volume: Scan that the blocks were cut from.
        levels: As the localiser found them.
        affines: Of the block around each level.
        maps: (5, R, A, S) probabilities on each block.
    """
    looks = [_Look(*seen) for seen in zip(levels.levels, maps, affines, strict=True)]
    bodies = BodyCanvas.on(volume)
    for look in looks:
        beside = (look.level.level.vertebra_above, look.level.level.vertebra_below)
        bodies.add(dict(zip(beside, look.maps[_BODIES], strict=True)), look.affine)
    confidence = {look.level.level: look.level.confidence for look in looks}
    refined = replace(
        levels,
        levels=tuple(_refined(look, volume) for look in looks),
        vertebrae=bodies.vertebrae(confidence),
        bodies=bodies.map(),
    )
    return on_slices(refined, volume)


def _refined(look: _Look, volume: Volume) -> LevelPoint:
    found, seen = look.level, locate(look.maps, look.affine, look.level.disc_ras_mm)
    canal = _within(volume, seen.canal) or found.canal_ras_mm
    doubts = tuple(doubt for doubt in found.doubts if doubt.flag != CANAL_NOT_SEEN)
    return replace(
        found,
        disc_ras_mm=_within(volume, seen.disc) or found.disc_ras_mm,
        canal_ras_mm=canal,
        foramina_ras_mm={
            side: place for side, place in seen.foramina.items() if found.level in LEVELS and _is_within(volume, place)
        },
        doubts=doubts if canal else (*doubts, canal_doubt(found.level, seen.canal_strength, needed=_SEEN)),
    )


def _within(volume: Volume, point_ras_mm: Point | None) -> Point | None:
    """The nearest place between the scan's outermost voxel centres: of a single slice, on that slice. None stays None."""
    if point_ras_mm is None:
        return None
    place = apply_affine(invert_affine(volume.affine), point_ras_mm)
    return _triple(apply_affine(volume.affine, np.clip(place, 0, np.asarray(volume.array.shape) - 1)))


def _is_within(volume: Volume, point_ras_mm: Point) -> bool:
    """Whether a place lies inside the scan's outermost voxels."""
    return bool(lies_inside(np.asarray(point_ras_mm), volume.affine, volume.array.shape))


@dataclass(frozen=True)
class Located:
    """What was seen in one block, RAS+ mm; None, or no entry, for what was not.

    Attributes:
        disc: Its centre.
        canal: Centre of the canal behind it.
        foramina: Of each side of the patient, the foramen above the disc's height.
        canal_strength: Probability at the strongest place near where the canal is expected, seen or not.
    """

    disc: Point | None
    canal: Point | None
    foramina: Mapping[Side, Point]
    canal_strength: float = 0.0


def locate(maps: Maps, affine: Affine, disc_ras_mm: Point) -> Located:
    """Centre of the disc, of the canal behind it and of the foramina beside that.

    Args:
        maps: (5, R, A, S) probabilities.
        affine: Of their grid, as `block_affine` gives it.
        disc_ras_mm: Where the disc was thought to be.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    disc, _ = _peak(maps[_DISC], affine, np.asarray(disc_ras_mm))
    expected = np.asarray(disc or disc_ras_mm) - _CANAL_MM * axes[:, 1]
    canal, strength = _peak(maps[_CANAL], affine, expected)
    outwards, front, up = _FORAMEN_MM
    foramina = {}
    for side, sign in ((Side.LEFT, -1), (Side.RIGHT, 1)):
        place, _ = _peak(maps[_FORAMINA], affine, np.asarray(canal or expected) + axes @ np.array([sign * outwards, front, up]))
        if place is not None:
            foramina[side] = place
    return Located(disc, canal, foramina, strength)


def _peak(channel: npt.NDArray[np.float32], affine: Affine, expected: Floats) -> tuple[Point | None, float]:
    """The strongest place near the expected one, None if it is too weak to have been seen, and its strength."""
    place, strength = peak_near(channel, affine, around_ras_mm=_triple(expected), reach_mm=_REACH_MM)
    return _triple(place) if strength >= _SEEN else None, strength


def _triple(values: Sequence[float] | Floats) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third
