"""Tables of a study: result.json, grades.csv, series.json, and its rows of a submission."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monai_spine.anatomy import DISC_GRADES, TARGETS, VERTEBRA_GRADES, Severity, Target

if TYPE_CHECKING:
    from monai_spine.result import StudyResult
    from monai_spine.studies.submissions import SubmissionRow

__all__ = [
    "DEGENERATION_COLUMNS",
    "GRADE_COLUMNS",
    "NOT_IN_THIS_RUN",
    "PriorNote",
    "common_reasons",
    "csv_text",
    "degeneration_rows",
    "grade_rows",
    "json_text",
    "study_submission",
]

GRADE_COLUMNS: tuple[str, ...] = (
    "target", "condition", "side", "level", "status", "severity", *(severity.value for severity in Severity),
    "reason", "series_instance_uid", "point_r_mm", "point_a_mm", "point_s_mm", "flags",
)  # fmt: skip
"""Columns of grades.csv. `side` is the patient's own; the point is the centre of the crop in RAS+ mm, empty for a picture.
`flags` says `referral` of a finding that is left to a reader, `single_slice` of one that was graded on one slice."""

_SHARES = tuple(dict.fromkeys([*DISC_GRADES, *VERTEBRA_GRADES]))
DEGENERATION_COLUMNS: tuple[str, ...] = ("study", "structure", "grade", *_SHARES, "schmorl_node")
"""Columns of degeneration.csv, a row per disc and vertebra: the probability of each grade that there is of it."""

NOT_IN_THIS_RUN = "left out of this run"
"""Reason of a target that was not asked for."""

_COMMON = 4
"""So many findings make a reason one that holds for many."""


@dataclass(frozen=True)
class PriorNote:
    """A row of a submission that holds the prior, because the target was not graded."""

    row_id: str
    reason: str


def common_reasons(reasons: Iterable[str | None]) -> list[str]:
    """The reasons that hold for many findings of a study, or the commonest one where none does; the commonest first."""
    counts = Counter(reason for reason in reasons if reason)
    return [reason for reason, times in counts.most_common() if times >= _COMMON] or [one for one, _ in counts.most_common(1)]


def json_text(content: Any) -> str:
    """JSON as it is written to files: indented, UTF-8, never NaN."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV with line feeds; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def grade_rows(result: StudyResult) -> list[tuple[object, ...]]:
    """One row per target in the official order, as `GRADE_COLUMNS` names them; also for targets that were left out."""
    written = _by_target(result.to_json())
    return [_grade_row(target, written.get(target)) for target in TARGETS]


def degeneration_rows(study: str, result: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """One row per graded disc and vertebra of a study, as `DEGENERATION_COLUMNS` names them.

    Args:
        study: Its name.
        result: Its result.json.
    """
    graded = [(kind, entry) for kind in ("disc", "vertebra") for entry in result.get(f"{kind}_grades", ())]
    return [
        (study, entry[kind], entry["grade"], *map(entry["probabilities"].get, _SHARES), entry.get("schmorl_node"))
        for kind, entry in graded
    ]


def study_submission(study: str, result: Mapping[str, Any]) -> tuple[list[SubmissionRow], list[PriorNote]]:
    """The 25 rows of a study, in the official order.

    Probabilities are scaled by the weights of the official score (1, 2, 4), because the graders give plain frequencies. A target
    that was not graded takes the best constant prediction for its condition and level in the training set.

    Args:
        study: Name of the study in the row ids.
        result: Its result.json.

    Returns:
        The rows, and a note for each that holds the prior.
    """
    from monai_spine.studies.priors import submission_prior
    from monai_spine.studies.submissions import SubmissionRow, row_id

    rows, notes, written = [], [], _by_target(result)
    for target in TARGETS:
        probabilities = (written.get(target) or {}).get("probabilities")
        if probabilities is None:
            reason = (written.get(target) or {}).get("reason") or NOT_IN_THIS_RUN
            notes.append(PriorNote(row_id(study, target), reason))
        rows.append(SubmissionRow(study, target, _scored(probabilities) if probabilities else submission_prior(target)))
    return rows, notes


def _scored(probabilities: Mapping[str, float]) -> tuple[float, float, float]:
    """The prediction that scores best where these are the true frequencies."""
    weighted = [probabilities[severity.value] * severity.weight for severity in Severity]
    normal_mild, moderate, severe = (value / sum(weighted) for value in weighted)
    return normal_mild, moderate, severe


def _by_target(result: Mapping[str, Any]) -> dict[Target, Mapping[str, Any]]:
    """The grades of a result.json by target."""
    places = {(target.condition.value, target.side and target.side.value, target.level.label): target for target in TARGETS}
    return {places[grade["condition"], grade["side"], grade["level"]]: grade for grade in result["grades"]}


def _grade_row(target: Target, grade: Mapping[str, Any] | None) -> tuple[object, ...]:
    grade = grade or {"status": "not_assessable", "reason": NOT_IN_THIS_RUN}
    probabilities = grade.get("probabilities") or {}
    return (
        target.slug,
        target.condition.value,
        target.side and target.side.value,
        target.level.label,
        grade["status"],
        grade.get("severity"),
        *(probabilities.get(severity.value) for severity in Severity),
        grade.get("reason"),
        grade.get("series_instance_uid"),
        *(grade.get("point_ras_mm") or (None, None, None)),
        "; ".join(grade.get("flags", ())) or None,
    )
