"""Which studies are replicated: such that rare grades and every quirk of the tables are among them."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Severity, Side
from monai_spine.errors import TableError
from monai_spine.phantom.replica.tables import ReplicaTables, TablePoint, TableSeries, TableStudy

__all__ = ["choose_studies", "quirks_of"]

_RARE_SHARE = 0.5
_LEVEL_SHARE = 0.06  # of the field of view, about half the distance of two discs
_LEVEL_SLICES = 3


def choose_studies(tables: ReplicaTables, *, studies: int, seed: int) -> tuple[int, ...]:
    """Choose studies, the same for the same seed.

    Half of them at most is chosen for what is rare: in turn each quirk (`quirks_of`) and each severe cell of the 25 targets,
    rarest first, gets one more study as long as it has less than twice its share in the tables (but at least one). The rest is
    drawn from all others, each as likely. So a quirk of which the tables have one study is in every replica of 100 or more.

    Args:
        tables: What there is.
        studies: How many.
        seed: Fixes the choice.

    Returns:
        Ids in the order of train.csv.

    Raises:
        TableError: More studies were asked for than the tables have.
    """
    if studies > len(tables.studies):
        raise TableError(f"{studies} studies were asked for, the tables have {len(tables.studies)}. Ask for that many or fewer.")
    rng = np.random.default_rng([seed, 2024])
    order = [int(study) for study in rng.permutation(list(tables.studies))]
    chosen: dict[int, None] = {}
    traits = _studies_by_trait(tables, order)
    turns = sorted(traits, key=lambda trait: (len(traits[trait]), trait))
    while len(chosen) < _RARE_SHARE * studies:
        before = len(chosen)
        for trait in turns:
            fair = max(1.0, 2 * studies * len(traits[trait]) / len(order))
            had = sum(study in chosen for study in traits[trait])
            fresh = next((study for study in traits[trait] if study not in chosen), None)
            if fresh is not None and had < fair and len(chosen) < max(1.0, _RARE_SHARE * studies):
                chosen[fresh] = None
        if len(chosen) == before:
            break
    chosen |= dict.fromkeys([study for study in order if study not in chosen][: studies - len(chosen)])
    return tuple(study for study in tables.studies if study in chosen)


def _studies_by_trait(tables: ReplicaTables, order: list[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for study in order:
        table = tables.studies[study]
        severe = {f"severe {target.slug}" for target, grade in table.grades.items() if grade is Severity.SEVERE}
        for trait in quirks_of(table) | severe:
            found[trait].append(study)
    return found


def quirks_of(table: TableStudy) -> frozenset[str]:
    """What a loader may stumble over in a study, as far as the tables tell."""
    roles = [series.role for series in table.series]
    marked = {point.target for point in table.points}
    described = {
        "several axial series": roles.count("axial_t2") > 1,
        "two T1 series": roles.count("sagittal_t1") > 1,
        "no T1 series": "sagittal_t1" not in roles,
        "no T2 series": "sagittal_t2" not in roles,
        "id beyond 32 bits signed": any(number > 2**31 - 1 for number in (table.study_id, *(s.series_id for s in table.series))),
        "matrices of two sizes": any(series.other_shape for series in table.series),
        "matrix not square": any(series.shape[0] != series.shape[1] for series in table.series),
        "instances beyond the slice count": any(_beyond(table, series) for series in table.series),
        "slices right to left": any(_direction(series) < 0 for series in table.series),
        "slices left to right": any(_direction(series) > 0 for series in table.series),
        "label missing": len(table.grades) < len(TARGETS),
        "label without point": bool(set(table.grades) - marked),
        "point without label": bool(marked - set(table.grades)),
        "canal points on T1": any(_canal_on_t1(table, series) for series in table.series),
        "axial sides swapped": _swapped_recesses(table),
        "foraminal sides on wrong slices": _misplaced_foramina(table),
        "levels of one side off": _level_off(table),
        "canal does not descend": _canal_climbs(table),
    }
    return frozenset(name for name, there in described.items() if there)


def _beyond(table: TableStudy, series: TableSeries) -> bool:
    named = [*series.positions_ras_mm, *(point.instance for point in table.points_on(series))]
    return max(named, default=0) > series.slices


def _direction(series: TableSeries) -> float:
    """Above 0 where R grows with the instance number, below 0 where it falls, 0 where the table does not say."""
    known = sorted(series.positions_ras_mm)
    return series.positions_ras_mm[known[-1]][0] - series.positions_ras_mm[known[0]][0] if len(known) > 1 else 0.0


def _canal_on_t1(table: TableStudy, series: TableSeries) -> bool:
    points = table.points_on(series) if series.role == "sagittal_t1" else ()
    return any(point.target.condition is Condition.SPINAL_CANAL_STENOSIS for point in points)


def _pairs(table: TableStudy, condition: Condition) -> list[tuple[TableSeries, TablePoint, TablePoint]]:
    """Left and right points of a level that lie on the same series: across series neither pixels nor instances compare."""
    found: dict[tuple[int, Level], dict[Side, TablePoint]] = defaultdict(dict)
    for point in table.points:
        if point.target.condition is condition and point.target.side is not None:
            found[point.series_id, point.target.level][point.target.side] = point
    series = {series.series_id: series for series in table.series}
    both = {key: sides for key, sides in found.items() if len(sides) == 2}
    return [(series[series_id], sides[Side.LEFT], sides[Side.RIGHT]) for (series_id, _), sides in both.items()]


def _swapped_recesses(table: TableStudy) -> bool:
    """In an axial picture the patient's left is at the right."""
    return any(left.x < right.x for _, left, right in _pairs(table, Condition.SUBARTICULAR_STENOSIS))


def _misplaced_foramina(table: TableStudy) -> bool:
    """Left and right on one slice or neighbours (they are 30 mm apart), or left on the right by the positions that are known."""
    pairs = _pairs(table, Condition.NEURAL_FORAMINAL_NARROWING)
    return any(
        abs(right.instance - left.instance) < 2 or (right.instance - left.instance) * _direction(series) < 0
        for series, left, right in pairs
    )


def _level_off(table: TableStudy) -> bool:
    """One side's names a level off: foramina of a level at different heights, or recesses on far slices, at several levels."""
    foramina = [
        abs(left.y - right.y) / series.shape[0] for series, left, right in _pairs(table, Condition.NEURAL_FORAMINAL_NARROWING)
    ]
    recesses = [abs(left.instance - right.instance) for _, left, right in _pairs(table, Condition.SUBARTICULAR_STENOSIS)]
    return sum(gap > _LEVEL_SHARE for gap in foramina) > 1 or sum(gap > _LEVEL_SLICES for gap in recesses) > 1


def _canal_climbs(table: TableStudy) -> bool:
    down = {point.target.level: point.y for point in table.points if point.target.condition is Condition.SPINAL_CANAL_STENOSIS}
    heights = [down[level] for level in LEVELS if level in down]
    return any(lower <= upper for upper, lower in pairwise(heights))
