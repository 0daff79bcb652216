"""From the localiser's maps to the column: names, points, confidences, doubts and the label map of the bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import DISCS, Vertebra
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point, apply_affine, spacing_of
from monai_spine.level_candidates import Candidate, LocalizerMaps, find_candidates, maximum_around, peak_near
from monai_spine.level_confidence import UNCORRECTED, Calibration
from monai_spine.level_doubts import SURE, Doubt, canal_doubt, column_doubts, name_doubts, sacrum_doubts
from monai_spine.level_sequence import STANDARD_PRIOR, ColumnPrior, Numbering, number_column
from monai_spine.levels import BODY_VALUES, BodyMap, LevelPoint, Levels, VertebraPoint

__all__ = ["decode_levels"]

Floats = npt.NDArray[np.float64]

_FEWEST_LEVELS = 2
_SURELY_A_DISC = 0.8  # of any name: brains and noise reached it at one place at most, lumbar scans at four and more
_REFINE_REACH_MM = 10.0
_REFINE_THRESHOLD = 0.15
_CANAL_BEHIND_DISC_MM = 24.0
_CANAL_REACH_MM = 16.0
_CANAL_THRESHOLD = 0.15
_CANAL_LEVEL_MM = 9.0
_SIDEWAYS = 1e-6  # a column that runs so exactly to one side has nothing behind it: the canal is looked for at the disc
_TOWARDS_DISC = 0.6  # the canal is marked at the disc's height: two views of one height, the disc's the surer
_HALF_SPACING_MM = 17.5
_BODY_RADIUS_MM = 5.0
_BODY_REACH_MM = (19.0, 40.0)
_SMALLEST_BODY_MM3 = 2000.0
_SEEN_BODIES = tuple(BODY_VALUES)[:6]


@dataclass(frozen=True)
class _Place:
    """Where a vertebral body should be: the named discs beside it, its centre in mm, and the direction of the column there."""

    discs: tuple[int, ...]
    center: Floats
    down: Floats


def decode_levels(
    maps: LocalizerMaps,
    candidates: Sequence[Candidate] | None = None,
    *,
    series_instance_uid: str | None = None,
    prior: ColumnPrior = STANDARD_PRIOR,
    calibration: Calibration = UNCORRECTED,
    source: str = "the volume",
) -> Levels:
    """Name what the localiser saw, all levels at once.

    Args:
        maps: The localiser's answer, zero outside the scan.
        candidates: Where discs may be, with the evidence for their names; None: as the maps alone say.
        series_instance_uid: Goes with every point.
        prior: What is expected of a column.
        calibration: From the numbering's probabilities to confidences.
        source: What the maps were made from, for the message if nothing is found.

    Raises:
        LevelsNotFoundError: Fewer than two discs can be named.
    """
    candidates = find_candidates(maps) if candidates is None else candidates
    numbering = number_column(candidates, lambda upper, lower: _body_between(maps, upper, lower), prior)
    named = {level: candidates[index] for level, index in enumerate(numbering.assigned) if index is not None}
    sure = [level for level in named if _is_sure(numbering, level)]
    if len(sure) < _FEWEST_LEVELS:
        strongest = max((max(candidate.evidence) for candidate in candidates), default=0.0)
        raise LevelsNotFoundError(
            f"No lumbar spine was found on {source}: lumbar discs that were surely seen: {len(sure)} (at least {_FEWEST_LEVELS} "
            f"are needed; strongest evidence {strongest:.2f}). Check that it is a sagittal lumbar scan; of a study with several "
            "series, choose another with --series."
        )
    points = {level: _refined(maps.discs[level], candidate, maps.affine) for level, candidate in named.items()}
    numbering = _corrected(numbering, calibration, is_without_sacrum=bool(_sacrum_doubts(maps, points, numbering)))
    levels = tuple(_level_point(maps, numbering, points, level, series_instance_uid) for level in sorted(points))
    bodies, vertebrae = _bodies(maps, points, {level: _confidence(numbering, level) for level in points})
    doubts = column_doubts([named[level].evidence for level in sorted(named)], sorted(named))
    return Levels(levels, vertebrae, (*_sacrum_doubts(maps, points, numbering), *doubts), bodies)


def _sacrum_doubts(maps: LocalizerMaps, points: Mapping[int, Floats], numbering: Numbering) -> tuple[Doubt, ...]:
    affine, shape = maps.scan or (maps.affine, maps.discs.shape[1:])
    lowest = max(points)
    return sacrum_doubts(DISCS[lowest], _confidence(numbering, lowest), points[lowest], affine=affine, shape=shape)


def _corrected(numbering: Numbering, calibration: Calibration, *, is_without_sacrum: bool) -> Numbering:
    """Each given name as sure as it should be; what it loses or gains goes to, or comes from, the same disc's other names."""
    probability = numbering.probability.copy()
    for level, index in enumerate(numbering.assigned):
        if index is not None:
            row = probability[index]
            others, sure = float(row.sum() - row[level]), float(calibration(row[level], is_without_sacrum))
            row *= max(float(row.sum()) - sure, 0.0) / max(others, 1e-12)
            row[level] = sure
    return Numbering(numbering.assigned, probability)


def _refined(channel: npt.NDArray[np.float32], candidate: Candidate, affine: Affine) -> Floats:
    """Centre of a named disc in its own map, which is sharper than the sum of all; the candidate's where that map is silent."""
    point, strength = peak_near(channel, affine, around_ras_mm=candidate.point_ras_mm, reach_mm=_REFINE_REACH_MM)
    return np.asarray(point if strength > _REFINE_THRESHOLD else candidate.point_ras_mm)


def _confidence(numbering: Numbering, level: int) -> float:
    index = numbering.assigned[level]
    return 0.0 if index is None else float(numbering.probability[index, level])


def _is_sure(numbering: Numbering, level: int) -> bool:
    """Whether what was given a name is surely a lumbar disc, whichever, and not of names that are all as likely."""
    any_name = float(numbering.probability[numbering.assigned[level]].sum())
    return any_name >= _SURELY_A_DISC and _confidence(numbering, level) >= SURE / 2


def _level_point(
    maps: LocalizerMaps, numbering: Numbering, points: Mapping[int, Floats], level: int, uid: str | None
) -> LevelPoint:
    canal, unseen = _canal(maps, points, level)
    doubts = (*name_doubts(DISCS[level], numbering.probability[numbering.assigned[level]]), *unseen)
    confidence = round(_confidence(numbering, level), 4)
    return LevelPoint(DISCS[level], _as_point(points[level]), canal, confidence, uid, doubts)


def _down(points: Mapping[int, Floats], level: int) -> Floats:
    """Direction of the column at a level, from the named neighbours; straight down where there is none."""
    near = [points[other] for other in (level - 1, level, level + 1) if other in points]
    step = near[-1] - near[0] if len(near) > 1 else np.array([0.0, 0.0, -1.0])
    return np.asarray(step / np.linalg.norm(step))


def _canal(maps: LocalizerMaps, points: Mapping[int, Floats], level: int) -> tuple[Point | None, tuple[Doubt, ...]]:
    """The canal behind a disc: where the level's own map peaks there, else where any level's does; or None, and why."""
    back = np.cross(_down(points, level), [1.0, 0.0, 0.0])
    back = back * (-1 if back[1] > 0 else 1) / max(float(np.linalg.norm(back)), _SIDEWAYS)
    expected = _as_point(points[level] + _CANAL_BEHIND_DISC_MM * back)
    for channel in (maps.canals[level], maps.canals.max(axis=0)):
        point, value = peak_near(channel, maps.affine, around_ras_mm=expected, reach_mm=_CANAL_REACH_MM)
        below = float((point - points[level]) @ _down(points, level))
        if value >= _CANAL_THRESHOLD and abs(below) < _CANAL_LEVEL_MM:
            return _as_point(point - _TOWARDS_DISC * below * _down(points, level)), ()
    return None, (canal_doubt(DISCS[level], value, needed=_CANAL_THRESHOLD, below_mm=below),)


def _body_between(maps: LocalizerMaps, upper: Candidate, lower: Candidate) -> list[float]:
    """For each body, the probability that it is the one between two discs; 0.5 each where no body is seen."""
    middle = _as_point((np.asarray(upper.point_ras_mm) + np.asarray(lower.point_ras_mm)) / 2)
    seen = maximum_around(maps.bodies, maps.affine, around_ras_mm=middle, reach_mm=_BODY_RADIUS_MM)
    return [float(value) for value in seen + 0.5 * (1 - seen.max())]


def _bodies(
    maps: LocalizerMaps, points: Mapping[int, Floats], confidence: Mapping[int, float]
) -> tuple[BodyMap, tuple[VertebraPoint, ...]]:
    """Give each voxel that is any body to the vertebra that the numbering puts there."""
    strongest = maps.bodies.max(axis=0)
    voxels = np.argwhere(strongest > 0.5)
    labels = np.zeros(strongest.shape, np.uint8)
    centers = _expected_bodies(points)
    if len(voxels) == 0 or not centers:
        return BodyMap(labels, maps.affine), ()
    places = apply_affine(maps.affine, voxels)
    owner = _owners(places, centers)
    vertebrae = []
    for vertebra, place in centers.items():
        mine = owner == BODY_VALUES[vertebra]
        if mine.sum() * np.prod(spacing_of(maps.affine)) < _SMALLEST_BODY_MM3:
            continue
        labels[tuple(voxels[mine].T)] = BODY_VALUES[vertebra]
        certainty = max(confidence[level] for level in place.discs) * float(strongest[tuple(voxels[mine].T)].mean())
        vertebrae.append(VertebraPoint(vertebra, _as_point(places[mine].mean(0)), round(certainty, 4)))
    return BodyMap(labels, maps.affine), tuple(vertebrae)


def _expected_bodies(points: Mapping[int, Floats]) -> dict[Vertebra, _Place]:
    """For each vertebra beside a named disc: where it should be."""
    expected: dict[Vertebra, _Place] = {}
    for above, vertebra in enumerate(_SEEN_BODIES):
        below = above + 1
        beside = tuple(level for level in (above, below) if level in points)
        if len(beside) == 2:
            step = points[below] - points[above]
            expected[vertebra] = _Place(beside, (points[above] + points[below]) / 2, step / np.linalg.norm(step))
        elif beside:
            down = _down(points, beside[0])
            offset = down * _HALF_SPACING_MM * (1 if beside[0] == above else -1)
            expected[vertebra] = _Place(beside, points[beside[0]] + offset, down)
    return expected


def _owners(places: Floats, centers: Mapping[Vertebra, _Place]) -> npt.NDArray[np.int64]:
    """Label value of the vertebra that each place belongs to: the nearest centre, if it is near enough."""
    nearest = np.full(len(places), np.inf)
    owner = np.zeros(len(places), int)
    for vertebra, place in centers.items():
        offset = places - place.center
        along = np.abs(offset @ place.down)
        reach = _BODY_REACH_MM[0] if len(place.discs) == 1 else np.inf
        distance = np.linalg.norm(offset, axis=1)
        better = (distance < nearest) & (along < reach) & (distance < _BODY_REACH_MM[1])
        nearest[better], owner[better] = distance[better], BODY_VALUES[vertebra]
    return owner


def _as_point(values: Floats) -> Point:
    r, a, s = (float(value) for value in values)
    return r, a, s
