"""The files over all studies of a run: index.html, cohort.csv, submission.csv, failures.csv, run.json, and degeneration.csv where
discs and vertebrae were graded.

They are made from the result.json of each finished study, so that a run which is resumed sums up what was there before as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from monai_spine.anatomy import Condition, Severity, Side, TargetKind
from monai_spine.errors import OutputError
from monai_spine.referral import REFERRAL
from monai_spine.report.tables import (
    DEGENERATION_COLUMNS,
    PriorNote,
    common_reasons,
    csv_text,
    degeneration_rows,
    json_text,
    study_submission,
)
from monai_spine.report.writing import write_file

__all__ = ["COHORT_COLUMNS", "FAILURE_COLUMNS", "CohortSummary", "FailureLike", "write_cohort"]

_KINDS: tuple[TargetKind, ...] = tuple(TargetKind(condition, side) for condition in Condition for side in condition.sides)

COHORT_COLUMNS: tuple[str, ...] = (
    "study", "study_instance_uid", "source", "levels_found", "graded", "not_assessable", *(kind.slug for kind in _KINDS), "flags",
    "referred", "reason", "notice",
)  # fmt: skip
"""Columns of cohort.csv: per kind of target the worst severity over its levels, empty where none was graded; `flags`: how series
were read, in sentences, and what is doubtful about levels, in a word each; how many findings are referred to a reader; `reason`:
why findings were not graded, or without one of their series; see `common_reasons`; `notice`: what the graders were trained on."""

FAILURE_COLUMNS: tuple[str, ...] = ("study", "source", "error", "exit_code", "message")


class FailureLike(Protocol):
    """A study that gave no result: `batch.Failure` is one."""

    @property
    def study(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def error(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def exit_code(self) -> int: ...


@dataclass(frozen=True)
class CohortSummary:
    """What was written.

    Attributes:
        studies: Finished studies, in the order of the files.
        priors: Rows of submission.csv that hold the prior, with the reason.
    """

    studies: tuple[str, ...]
    priors: tuple[PriorNote, ...]

    @property
    def note(self) -> str:
        """A line for people on what submission.csv holds; empty where every row is a prediction."""
        if not self.priors:
            return ""
        rows = 25 * len(self.studies)
        return (
            f"submission.csv: {len(self.priors)} of {rows} rows hold the prior of the training set, because they were not graded."
        )


@dataclass(frozen=True)
class _Row:
    """A study as a row of the index.

    Attributes:
        study: Its folder.
        result: Its result.json.
        worst: Per kind of target the worst severity and the levels where it is found; None where none was graded.
    """

    study: str
    result: Mapping[str, Any]
    worst: Mapping[TargetKind, tuple[Severity, tuple[str, ...]] | None]

    def count(self, status: str) -> int:
        return sum(grade["status"] == status for grade in self.result["grades"])

    @property
    def referred(self) -> int:
        """How many findings are left to a reader."""
        return sum(REFERRAL in grade.get("flags", ()) for grade in self.result["grades"])

    @property
    def reasons(self) -> list[str]:
        """Why findings were not graded, or without one of their series."""
        return common_reasons(grade.get("reason") for grade in self.result["grades"])

    def worst_of(self, condition: Condition) -> tuple[Severity, tuple[str, ...]] | None:
        """The worst over both sides, with level and side of each place."""
        found = [(self.worst[kind], kind.side) for kind in _KINDS if kind.condition is condition]
        graded = [(entry, side) for entry, side in found if entry is not None]
        if not graded:
            return None
        severity = max((entry[0] for entry, _ in graded), key=lambda severity: severity.index)
        places = [_place(level, side) for entry, side in graded if entry[0] is severity for level in entry[1]]
        return severity, tuple(sorted(places))


def write_cohort(
    folder: Path, studies: Iterable[str], *, failures: Sequence[FailureLike] = (), run: Mapping[str, Any] | None = None
) -> CohortSummary:
    """Write the files over all studies of a run, each of them at once.

    Args:
        folder: OUT.
        studies: Names of the folders of finished studies in it.
        failures: Studies that gave no result.
        run: What run.json records beside the lists of studies: versions, settings, times.

    Raises:
        OutputError: A result.json cannot be read, or the disk is full or may not be written.
    """
    from monai_spine.studies.submissions import write_submission

    rows = [_row(folder, study) for study in sorted(studies)]
    submissions = [study_submission(row.study, row.result) for row in rows]
    summary = CohortSummary(tuple(row.study for row in rows), tuple(note for _, notes in submissions for note in notes))
    write_file(folder / "cohort.csv", csv_text(COHORT_COLUMNS, [_cohort_row(row) for row in rows]))
    discs = [line for row in rows for line in degeneration_rows(row.study, row.result)]
    if discs:
        write_file(folder / "degeneration.csv", csv_text(DEGENERATION_COLUMNS, discs))
    write_submission([row for of_study, _ in submissions for row in of_study], folder / "submission.csv")
    write_file(folder / "failures.csv", csv_text(FAILURE_COLUMNS, [_failure_row(failure) for failure in failures]))
    write_file(folder / "run.json", json_text(_run_json(summary, failures, run or {})))
    write_file(folder / "index.html", _index_html(rows, failures, summary))
    return summary


def _row(folder: Path, study: str) -> _Row:
    path = folder / study / "result.json"
    try:
        result: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _Row(study, result, {kind: _worst(result, kind) for kind in _KINDS})
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(
            f"{path} cannot be summed up ({type(error).__name__}: {error}). Analyse the study again with --overwrite."
        ) from error


def _worst(result: Mapping[str, Any], kind: TargetKind) -> tuple[Severity, tuple[str, ...]] | None:
    side = kind.side and kind.side.value
    grades = [grade for grade in result["grades"] if grade["condition"] == kind.condition.value and grade["side"] == side]
    graded = [(Severity(grade["severity"]), str(grade["level"])) for grade in grades if grade["severity"] is not None]
    if not graded:
        return None
    worst = max((severity for severity, _ in graded), key=lambda severity: severity.index)
    return worst, tuple(level for severity, level in graded if severity is worst)


def _place(level: str, side: Side | None) -> str:
    return level if side is None else f"{level} {side.value}"


def _cohort_row(row: _Row) -> tuple[object, ...]:
    about = row.result["study"]
    worst = [None if found is None else found[0].value for found in row.worst.values()]
    flags = "; ".join(str(flag) for flag in row.result["flags"])
    counts = (len(row.result["levels"]), row.count("graded"), row.count("not_assessable"))
    notice = row.result["provenance"].get("notice", "")
    reasons = "; ".join(row.reasons)
    return row.study, about["study_instance_uid"], about["source"], *counts, *worst, flags, row.referred, reasons, notice


def _failure_row(failure: FailureLike) -> tuple[object, ...]:
    return failure.study, failure.source, failure.error, failure.exit_code, failure.message


def _run_json(summary: CohortSummary, failures: Sequence[FailureLike], run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        **run,
        "studies": list(summary.studies),
        "failures": [dict(zip(FAILURE_COLUMNS, _failure_row(failure), strict=True)) for failure in failures],
        "submission_priors": {
            "note": summary.note,
            "rows": [{"row_id": prior.row_id, "reason": prior.reason} for prior in summary.priors],
        },
    }


def _index_html(rows: Sequence[_Row], failures: Sequence[FailureLike], summary: CohortSummary) -> str:
    from monai_spine.report.html import degenerate, template_environment
    from monai_spine.report.palette import SIGNS
    from monai_spine.result import RESEARCH_NOTICE

    bundles = [bundle for row in rows for bundle in row.result["provenance"]["bundles"] if isinstance(bundle, Mapping)]
    return (
        template_environment()
        .get_template("index.html")
        .render(
            rows=rows,
            failures=failures,
            note=summary.note,
            conditions=list(Condition),
            degeneration=any(row.result.get("disc_grades") for row in rows),
            degenerate=degenerate,
            signs=SIGNS,
            research_notice=RESEARCH_NOTICE,
            notices=list(dict.fromkeys(bundle["notice"] for bundle in bundles if bundle.get("notice"))),
        )
    )
