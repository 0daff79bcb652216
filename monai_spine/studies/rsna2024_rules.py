"""What geometry alone says against the names of points: sides that are exchanged, and levels that do not follow the column.

A point and its grade were given in one act by a reader who looked at that place. So where a name contradicts the place, the name
is corrected, and the grade stays with its point; where no name fits, the point is set aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from monai_spine.anatomy import LEVELS, Condition, Level, Side, Target
from monai_spine.studies.level_order import Heights, descending, shift_between, untangle
from monai_spine.studies.rsna2024_points import PlacedPoint
from monai_spine.studies.rsna2024_tables import PointRow

__all__ = ["Finding", "Tolerances", "apply_finding", "corner_findings", "level_findings", "shift_findings", "side_findings"]

Points = Mapping[Target, PlacedPoint]

CORNER_PX = 6.0
"""A point nearer than this to two edges of its picture marks nothing."""


@dataclass(frozen=True)
class Tolerances:
    """Distances below which nothing is concluded.

    Attributes:
        step_mm: Neighbouring levels lie farther apart than this; true ones are 29–42 mm apart, less along the body's axis.
        side_mm: A left and a right point lie farther apart than this; true ones are 15 mm apart or more.
    """

    step_mm: float = 5.0
    side_mm: float = 3.0


@dataclass(frozen=True)
class Finding:
    """What a rule found, and what would put it right.

    Attributes:
        kind: As in `quirks.QUIRK_TITLES`.
        seen: With the values.
        renamed: Findings that get another name, with point and grade.
        dropped: Findings whose point is set aside.
        unsolved: It could not be told which of the findings are right: all stay.
    """

    kind: str
    seen: str
    renamed: Mapping[Target, Target] = field(default_factory=dict)
    dropped: tuple[Target, ...] = ()
    unsolved: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Slugs of the findings that it is about, by the names of the tables."""
        return tuple(target.slug for target in (*self.renamed, *self.dropped, *self.unsolved))

    @property
    def remedy(self) -> str:
        """What is done about it, in words."""
        renamed = ", ".join(f"{target.slug} → {other.slug}" for target, other in self.renamed.items())
        dropped = " ".join(target.slug for target in self.dropped)
        if renamed and dropped:
            return f"named by place, each grade with its point, what is left over set aside: {renamed}, {dropped}"
        if renamed:
            return f"named by place, each grade with its point: {renamed}"
        return f"set aside: {dropped}" if dropped else "nothing, as it is not known which is right"


def apply_finding(points: Points, finding: Finding) -> dict[Target, PlacedPoint]:
    """The points as they are after a finding was put right."""
    kept = {target: point for target, point in points.items() if target not in finding.dropped}
    return {
        finding.renamed.get(target, target): replace(point, target=finding.renamed.get(target, target))
        for target, point in kept.items()
    }


def corner_findings(points: Iterable[PointRow]) -> Iterator[Finding]:
    """Points in the upper left corner of their picture, where no spine lies: a tool's default, not a reader's mark."""
    corner = [point for point in points if max(point.x, point.y) <= CORNER_PX]
    if corner:
        seen = ", ".join(f"{point.target.slug} at pixel {point.x:.0f}, {point.y:.0f}" for point in corner)
        yield Finding("corner_point", seen, dropped=tuple(point.target for point in corner))


def side_findings(points: Points, tolerances: Tolerances = Tolerances()) -> Iterator[Finding]:
    """Left points that lie to the right of their right twins, and twins on one slice. R grows to the patient's right."""
    middles = {
        target.level: point.point_ras_mm[0]
        for target, point in points.items()
        if target.condition is Condition.SPINAL_CANAL_STENOSIS
    }
    usual = float(np.median(list(middles.values()))) if middles else None
    for condition in (Condition.NEURAL_FORAMINAL_NARROWING, Condition.SUBARTICULAR_STENOSIS):
        for level in LEVELS:
            left, right = (points.get(Target(condition, side, level)) for side in (Side.LEFT, Side.RIGHT))
            if left and right and right.point_ras_mm[0] - left.point_ras_mm[0] <= tolerances.side_mm:
                yield _side_finding(left, right, middles.get(level, usual), side_mm=tolerances.side_mm)


def _side_finding(left: PlacedPoint, right: PlacedPoint, middle_mm: float | None, *, side_mm: float) -> Finding:
    """Exchanged where each lies on the other's side of the middle; else that point is wrong which lies beyond it.

    Where the middle is not known, points that lie apart count as exchanged, and of points that lie together neither is kept.
    """
    twins = (left.target, right.target)
    left_mm, right_mm = left.point_ras_mm[0], right.point_ras_mm[0]
    where = "" if middle_mm is None else f", the canal at R {middle_mm:.1f}"
    places = f"left at R {left_mm:.1f}, right at R {right_mm:.1f}{where} mm"
    seen = f"{left.target.condition.label} {left.target.level.label}: {places}"
    apart = right_mm - left_mm < -side_mm
    if apart and (middle_mm is None or right_mm < middle_mm < left_mm):
        return Finding("sides_swapped", seen, dict(zip(twins, twins[::-1], strict=True)))
    off = 0.0 if middle_mm is None else (left_mm + right_mm) / 2 - middle_mm
    return Finding("sides_alike", seen, dropped=(twins[0 if off > 0 else 1],) if abs(off) > side_mm else twins)


def level_findings(points: Points, tolerances: Tolerances = Tolerances()) -> Iterator[Finding]:
    """Points of one condition and side that do not descend level by level; other conditions tell which of them are wrong."""
    for condition, side in ((one, side) for one in Condition for side in one.sides):
        heights = _heights(points, condition, side)
        if descending(heights, tolerances.step_mm):
            continue
        renamed, dropped = untangle(heights, _ladder(points, condition), step_mm=tolerances.step_mm)
        what = condition.label if side is None else f"{side.label} {condition.label}"
        placed = ", ".join(f"{level.label} {height:.1f}" for level, height in heights.items())
        yield Finding(
            "levels_out_of_order",
            f"{what} at S {placed} mm",
            {Target(condition, side, old): Target(condition, side, new) for old, new in renamed.items()},
            tuple(Target(condition, side, level) for level in dropped),
        )


def shift_findings(points: Points) -> Iterator[Finding]:
    """A condition that is named one level too high or too low: the other two agree with each other, and it with neither."""
    ladders = {condition: _ladder(points, condition, own=True) for condition in Condition}
    shifts = {
        (one, other): shift_between(ladders[one], ladders[other]) for one in Condition for other in Condition if one is not other
    }
    for condition in Condition:
        first, second = (other for other in Condition if other is not condition)
        shift = shifts[condition, first]
        if not shift:
            continue
        targets = [target for target in points if target.condition is condition]
        alone = shifts[condition, second] == shift and shifts[first, second] == 0
        seen = f"{condition.label} lies one level {'lower' if shift > 0 else 'higher'} than its name, next to {first.label}"
        if alone:
            moved = {target: _moved(target, shift) for target in targets}
            renamed = {target: other for target, other in moved.items() if other is not None}
            dropped = tuple(target for target, other in moved.items() if other is None)
            yield Finding("levels_off_by_one", f"{seen} and {second.label}", renamed, dropped)
        elif shifts[condition, second] is None and list(Condition).index(condition) < list(Condition).index(first):
            yield Finding("levels_off_by_one", seen, unsolved=tuple(targets))


def _moved(target: Target, shift: int) -> Target | None:
    index = LEVELS.index(target.level) + shift
    return replace(target, level=LEVELS[index]) if 0 <= index < len(LEVELS) else None


def _heights(points: Points, condition: Condition, side: Side | None) -> Heights:
    targets = [Target(condition, side, level) for level in LEVELS]
    return {target.level: points[target].point_ras_mm[2] for target in targets if target in points}


def _ladder(points: Points, condition: Condition, *, own: bool = False) -> Heights:
    """Mean height of each level by a condition's own points, or by those of the others."""
    found: dict[Level, list[float]] = {level: [] for level in LEVELS}
    for target, point in points.items():
        if (target.condition is condition) is own:
            found[target.level].append(point.point_ras_mm[2])
    return {level: float(np.mean(heights)) for level, heights in found.items() if heights}
