"""One RSNA 2024 study as a case of a data list: its points put right by list and rule, its discs estimated from the canal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_spine.anatomy import LEVELS, Condition, Level, Target
from monai_spine.geometry import Point
from monai_spine.studies.corrections import Correction
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume
from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_images import StudyImages
from monai_spine.studies.rsna2024_points import PlacedPoint
from monai_spine.studies.rsna2024_rules import (
    Finding,
    apply_finding,
    corner_findings,
    level_findings,
    shift_findings,
    side_findings,
)
from monai_spine.studies.rsna2024_tables import StudyRows

__all__ = ["DISC_BEFORE_CANAL_MM", "CorrectedPoints", "corrected", "disc_points", "prepared_case"]

DISC_BEFORE_CANAL_MM = 24.0
"""The centre of a disc lies 22–26 mm in front of the canal's centre in adults."""

LEFT_AS_IS = "nothing, as corrections are turned off"
_Rule = Callable[[Mapping[Target, PlacedPoint]], Iterator[Finding]]
_RULES: tuple[_Rule, ...] = (level_findings, shift_findings, side_findings)


@dataclass(frozen=True)
class CorrectedPoints:
    """The points of a study after corrections, and what was found."""

    points: Mapping[Target, PlacedPoint]
    quirks: tuple[Quirk, ...]


def corrected(
    study: StudyRows, points: Mapping[Target, PlacedPoint], listed: Sequence[Correction] = (), *, apply: bool = True
) -> CorrectedPoints:
    """Put points right by the list, then by each rule in turn, which compares points of one frame of reference.

    Args:
        study: What the tables say.
        points: As `place_points` gives them.
        listed: The study's corrections.
        apply: Without it everything is found and nothing changed.
    """
    by_list = [Finding("listed", one.reason, one.renamed, one.dropped) for one in listed]
    found = [*by_list, *corner_findings(study.points)]
    points = _applied(points, found) if apply else points
    for rule in _RULES:
        more = [finding for comparable in _by_frame(points) for finding in rule(comparable)]
        points = _applied(points, more) if apply else points
        found += more
    quirks = [_quirk(study.study_id, finding, apply) for finding in found]
    return CorrectedPoints(points, tuple(quirks))


def _by_frame(points: Mapping[Target, PlacedPoint]) -> list[dict[Target, PlacedPoint]]:
    frames = dict.fromkeys(point.frame_of_reference_uid for point in points.values())
    return [{target: one for target, one in points.items() if one.frame_of_reference_uid == frame} for frame in frames]


def _applied(points: Mapping[Target, PlacedPoint], findings: Iterable[Finding]) -> Mapping[Target, PlacedPoint]:
    for finding in findings:
        points = apply_finding(points, finding)
    return points


def _quirk(study_id: int, finding: Finding, apply: bool) -> Quirk:
    return Quirk(finding.kind, study_id, finding.seen, finding.remedy if apply else LEFT_AS_IS, targets=finding.targets)


def prepared_case(images: StudyImages, points: Mapping[Target, PlacedPoint], *, patient: str) -> PreparedCase:
    """The case of a study.

    Args:
        images: What was written of it.
        points: Its points.
        patient: Whose it is.
    """
    name = str(images.study_id)
    folder = f"volumes/{name}"
    canals = {
        target.level: point.point_ras_mm
        for target, point in points.items()
        if target.condition is Condition.SPINAL_CANAL_STENOSIS
    }
    canals = {level: canals[level] for level in LEVELS if level in canals}
    discs = disc_points(canals)
    return PreparedCase(
        case=name,
        patient=patient,
        volumes=tuple(
            PreparedVolume(f"{folder}/{volume.name}", series.role.value, series.series_instance_uid)
            for series in images.series
            for volume in series.volumes
        ),
        discs=discs,
        canals=canals,
        targets={
            target: PreparedTarget(point.point_ras_mm, point.severity, f"{folder}/{point.volume}" if point.volume else None)
            for target, point in points.items()
        },
        estimated=tuple(f"disc {level.label}" for level in discs),
    )


def disc_points(canals: Mapping[Level, Point]) -> dict[Level, Point]:
    """Where the centres of discs should lie: in front of the canal, perpendicular to its course in the sagittal plane.

    Args:
        canals: Centres of the canal at each level from the head down, RAS+ mm; of fewer than two no course is known.
    """
    if len(canals) < 2:
        return {}
    course = -np.gradient(np.array(list(canals.values()), dtype=float), axis=0, edge_order=2 if len(canals) > 2 else 1)
    front = np.stack([np.zeros(len(course)), course[:, 2], -course[:, 1]], axis=1)
    front *= DISC_BEFORE_CANAL_MM / np.linalg.norm(front, axis=1, keepdims=True)
    places = np.array(list(canals.values())) + front
    return {level: (float(r), float(a), float(s)) for level, (r, a, s) in zip(canals, places, strict=True)}
