"""Look at held-out scans as an analysis does, whole and cut down on purpose, and hold what is found against what is true."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from localizer_evaluation.degraded import degraded
from localizer_evaluation.experiments import BUNDLES, KINDS
from monai_spine.anatomy import DISCS, Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Point, apply_affine, invert_affine, lies_inside
from monai_spine.level_candidates import Candidate, LocalizerMaps, find_candidates
from monai_spine.level_confidence import UNCORRECTED
from monai_spine.level_decoding import decode_levels
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_names import LevelNamer
from monai_spine.level_pictures import localize_picture
from monai_spine.level_refinement import LevelRefiner
from monai_spine.level_sequence import DISC_SPACING_MM, NAMED_PRIOR, STANDARD_PRIOR, ColumnPrior
from monai_spine.levels import Levels
from monai_spine.studies.prepared import Datalist, PreparedCase
from monai_spine.training.localizer_metrics import body_overlaps
from monai_spine.volume import Volume, load_nifti
from monai_spine.weights import find_bundle

WHOLE = "whole"
ABLATED_LOOKS = (
    "all parts",
    "without the naming network",
    "without the sequence",
    "argmax of each channel",
)
CUTS = ("above the sacrum", "below L2", "one side", "three slices")
NEAR_MM = 10.0
_SEEN = 0.1
_SIDE_MM = 12.0
_IMPLANT_MM = (0.0, -40.0, 0.0)  # from a disc to where screws and rods are

Row = dict[str, Any]


def load_localizer(weights: Mapping[str, Path]) -> LevelLocalizer:
    """The shipped bundles with an experiment's weights, their confidences as the numbering says them."""
    bundles = {kind: find_bundle(name) for kind, name in BUNDLES.items()}
    networks = {kind: bundle.network_definition().eval() for kind, bundle in bundles.items()}
    for kind, network in networks.items():
        network.load_state_dict(torch.load(weights[kind], map_location="cpu", weights_only=True))
    refiner = LevelRefiner(bundles["refiner"], network=networks["refiner"])
    namer = LevelNamer(bundles["namer"], network=networks["namer"])
    namer.calibration = UNCORRECTED
    return LevelLocalizer(bundles["localizer"], network=networks["localizer"], namer=namer, refiner=refiner)


def look(datalist: Datalist, case: PreparedCase, localizer: LevelLocalizer, kinds: Collection[str] = KINDS) -> Iterator[Row]:
    """Rows of one held-out case: one per look and structure that should be found or was named.

    A row has `look`, `name`, `mm` (how far what was named lies from what is true, infinite where one of the two is not there),
    `limit_mm` (how far is right), `confidence` (None where nothing was named), `is_there` (false: cut away, or beyond the scan),
    `without_sacrum` (whether the flag `sacrum_not_seen` was up).
    Rows of a volume as a whole have the `name` `dice`, `outside` or `sacrum_not_seen`, and `value`.

    Args:
        datalist: That the case is of.
        case: A volume or a picture.
        localizer: With all three networks.
        kinds: Of `KINDS`, how it is looked at; a picture is neither cut nor made worse.
    """
    volume = load_nifti(datalist.root / case.volumes[0].image)
    is_picture = datalist.study == "midsagittal"
    if "whole" in kinds and is_picture:
        yield from _rows(WHOLE, _picture(volume, localizer), _true_structures(case), limit_mm=DISC_SPACING_MM / 3)
    elif "whole" in kinds:
        yield from _whole_volume(datalist, case, volume, localizer)
    if "cut" in kinds and not is_picture:
        yield from _cut_volumes(case, volume, localizer)
    if "worse" in kinds and not is_picture:
        yield from _degraded_volumes(case, volume, localizer)
    if "ablated" in kinds:
        yield from _ablated(case, volume, localizer, DISC_SPACING_MM / 3 if is_picture else NEAR_MM)


@dataclass(frozen=True)
class _Found:
    """Places by name, RAS+ mm, how sure they are, and the column's flags."""

    places: Mapping[str, Point]
    confidence: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, levels: Levels | None) -> _Found:
        named = () if levels is None else levels.levels
        return cls(
            {found.level.label: found.disc_ras_mm for found in named},
            {found.level.label: found.confidence for found in named},
            () if levels is None else levels.flags,
        )


def _true_discs(case: PreparedCase) -> dict[str, Point]:
    seen = {level: point for level, point in case.discs.items() if f"disc {level.label}" not in case.estimated}
    return {level.label: point for level, point in seen.items()}


def _true_structures(case: PreparedCase) -> dict[str, Point]:
    return _true_discs(case) | {vertebra.label: point for vertebra, point in case.vertebrae.items()}


def _rows(look: str, found: _Found, true: Mapping[str, Point], *, limit_mm: float, gone: Sequence[str] = ()) -> Iterator[Row]:
    """One row per true structure, and one per named structure that is known to be gone."""
    for name in (*true, *(name for name in gone if name in found.places)):
        place = found.places.get(name) if name in true else None
        yield {
            "look": look,
            "name": name,
            "mm": np.inf if place is None else float(np.linalg.norm(np.subtract(place, true[name]))),
            "limit_mm": limit_mm,
            "confidence": found.confidence.get(name),
            "is_there": name in true,
            "without_sacrum": "sacrum_not_seen" in found.flags,
        }


def _picture(volume: Volume, localizer: LevelLocalizer) -> _Found:
    """A picture at unknown scale; places in the millimetres of its own disc spacing."""
    try:
        found = localize_picture(volume.array[0].T, localizer)
    except LevelsNotFoundError:
        return _Found({})
    pixels = {structure.label: place for of in (found.discs_px, found.vertebrae_px) for structure, place in of.items()}
    ends = {name: apply_affine(volume.affine, [0.0, x, y]) for name, (x, y) in pixels.items()}
    confidence = {level.label: sure for level, sure in found.confidence.items()}
    return _Found({name: _point(end) for name, end in ends.items()}, confidence, found.flags)


def _found_on(volume: Volume, localizer: LevelLocalizer) -> Levels | None:
    try:
        return localizer(volume)
    except LevelsNotFoundError:
        return None


def _whole_volume(datalist: Datalist, case: PreparedCase, volume: Volume, localizer: LevelLocalizer) -> Iterator[Row]:
    levels = _found_on(volume, localizer)
    yield from _rows(WHOLE, _Found.of(levels), _true_discs(case), limit_mm=NEAR_MM)
    image = case.volumes[0]
    if image.bodies:
        bodies = None if levels is None else levels.bodies
        for _, dice in body_overlaps(bodies, datalist.root / image.bodies, image.bodies_labelled):
            yield {"look": WHOLE, "name": "dice", "value": dice}


def _cut_volumes(case: PreparedCase, volume: Volume, localizer: LevelLocalizer) -> Iterator[Row]:
    """The same scan with its lower or upper end, a side or most slices cut off."""
    places, true = dict(case.discs), _true_discs(case)
    for name, cut in cuts(volume, places).items():
        levels = _found_on(cut, localizer)
        inside = {label: point for label, point in true.items() if lies_inside(np.asarray(point), cut.affine, cut.array.shape)}
        gone = [level.label for level, point in places.items() if not lies_inside(np.asarray(point), cut.affine, cut.array.shape)]
        yield from _rows(name, _Found.of(levels), inside, limit_mm=NEAR_MM, gone=gone)
        if levels is not None:
            yield {"look": name, "name": "outside", "value": _outside(levels, cut)}
            yield {"look": name, "name": "sacrum_not_seen", "value": "sacrum_not_seen" in levels.flags}


def _degraded_volumes(case: PreparedCase, volume: Volume, localizer: LevelLocalizer) -> Iterator[Row]:
    """The same scan with one fault at a time."""
    true = _true_discs(case)
    if not true:
        return
    middle = _point(np.median(list(true.values()), axis=0))
    implant = min(true.values(), key=lambda point: np.linalg.norm(np.subtract(point, middle)))
    for name, (copy, motion) in degraded(volume, middle, _point(np.add(implant, _IMPLANT_MM))).items():
        moved = {label: _point(apply_affine(motion, point)) for label, point in true.items()}
        inside = {label: point for label, point in moved.items() if lies_inside(np.asarray(point), copy.affine, copy.array.shape)}
        yield from _rows(name, _Found.of(_found_on(copy, localizer)), inside, limit_mm=NEAR_MM)


def cuts(volume: Volume, discs: Mapping[Level, Point]) -> dict[str, Volume]:
    """The scan without what lies below L4/L5 and above L2/L3 (half way to the next disc), without one side, and three slices.

    Args:
        volume: A sagittal scan.
        discs: Where its discs lie, RAS+ mm.
    """
    across, _, along = (
        int(np.argmax(np.abs(volume.affine[row, :3]) / np.linalg.norm(volume.affine[:3, :3], axis=0))) for row in range(3)
    )
    middle = apply_affine(invert_affine(volume.affine), np.median(list(discs.values()), axis=0))[across]
    step = np.linalg.norm(volume.affine[:3, across])
    found = {}
    if {Level.L4_L5, Level.L5_S1} <= set(discs):
        found["above the sacrum"] = _kept(volume, along, _between(discs, Level.L4_L5, Level.L5_S1), upwards=True)
    if {Level.L1_L2, Level.L2_L3} <= set(discs):
        found["below L2"] = _kept(volume, along, _between(discs, Level.L1_L2, Level.L2_L3), upwards=False)
    last = volume.array.shape[across] - 1
    found["one side"] = _part(volume, across, 0, min(last, round(middle + _SIDE_MM / step)))
    first = int(np.clip(round(middle) - 1, 0, max(last - 2, 0)))
    found["three slices"] = _part(volume, across, first, min(first + 2, last))
    return found


def _between(discs: Mapping[Level, Point], upper: Level, lower: Level) -> npt.NDArray[np.float64]:
    return np.asarray((np.asarray(discs[upper]) + np.asarray(discs[lower])) / 2)


def _kept(volume: Volume, axis: int, place: npt.NDArray[np.float64], *, upwards: bool) -> Volume:
    """What lies above, or below, a place along the axis that runs along the body."""
    index = int(np.clip(np.round(apply_affine(invert_affine(volume.affine), place)[axis]), 1, volume.array.shape[axis] - 2))
    end = volume.array.shape[axis] - 1
    return _part(volume, axis, index, end) if upwards == (volume.affine[2, axis] > 0) else _part(volume, axis, 0, index)


def _part(volume: Volume, axis: int, first: int, last: int) -> Volume:
    """The voxels from `first` to `last` along an axis."""
    start = np.zeros(3)
    start[axis] = first
    affine = volume.affine.copy()
    affine[:3, 3] = apply_affine(volume.affine, start)
    chosen = (slice(None),) * axis + (slice(first, last + 1),)
    return replace(volume, array=np.ascontiguousarray(volume.array[chosen]), affine=affine)


def _outside(levels: Levels, volume: Volume) -> int:
    """How many of all points that were found lie outside the scan."""
    points = [point for found in levels.levels for point in (found.disc_ras_mm, found.canal_ras_mm) if point is not None]
    points += [point for found in levels.levels for point in found.foramina_ras_mm.values()]
    points += [body.point_ras_mm for body in levels.vertebrae]
    return int((~lies_inside(np.asarray(points).reshape(-1, 3), volume.affine, volume.array.shape)).sum())


def _ablated(case: PreparedCase, volume: Volume, localizer: LevelLocalizer, limit_mm: float) -> Iterator[Row]:
    """The same networks with a part of the decoding left out; pictures at the scale of their own disc spacing."""
    maps = localizer.maps(volume)
    candidates = find_candidates(maps)
    named = () if localizer.namer is None else localizer.namer(volume, candidates)
    found = (
        _decoded(maps, named, NAMED_PRIOR),
        _decoded(maps, candidates, STANDARD_PRIOR),
        _each_alone(named),
        _argmax(maps),
    )
    for name, places in zip(ABLATED_LOOKS, found, strict=True):
        yield from _rows(name, places, _true_discs(case), limit_mm=limit_mm)


def _decoded(maps: LocalizerMaps, candidates: Sequence[Candidate], prior: ColumnPrior) -> _Found:
    try:
        return _Found.of(decode_levels(maps, candidates, prior=prior))
    except LevelsNotFoundError:
        return _Found({})


def _each_alone(candidates: Sequence[Candidate]) -> _Found:
    """Each name goes to the candidate with the most evidence for it."""
    best = {level: max(candidates, key=lambda one: one.evidence[at], default=None) for at, level in enumerate(DISCS)}
    seen = {level.label: one for at, level in enumerate(DISCS) if (one := best[level]) and one.evidence[at] > _SEEN}
    return _Found({label: one.point_ras_mm for label, one in seen.items()})


def _argmax(maps: LocalizerMaps) -> _Found:
    """Each name goes to the strongest voxel of its own channel."""
    peaks = {level.label: np.unravel_index(int(maps.discs[at].argmax()), maps.discs[at].shape) for at, level in enumerate(DISCS)}
    seen = {level.label: maps.discs[at].max() > _SEEN for at, level in enumerate(DISCS)}
    return _Found({label: _point(apply_affine(maps.affine, peak)) for label, peak in peaks.items() if seen[label]})


def _point(values: npt.ArrayLike) -> Point:
    r, a, s = (float(value) for value in np.asarray(values))
    return r, a, s
