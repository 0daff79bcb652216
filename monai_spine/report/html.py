"""The report of a study as one HTML file that needs no network: pictures, style and text are all inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from monai_spine.anatomy import LEVELS, Condition, Level, Severity, Side, Target, TargetKind
from monai_spine.levels import in_percent
from monai_spine.referral import REFERRAL
from monai_spine.report.palette import REFERRED, SIGNS
from monai_spine.report.tables import NOT_IN_THIS_RUN
from monai_spine.result import RESEARCH_NOTICE

if TYPE_CHECKING:
    from monai_spine.grades import Grade
    from monai_spine.result import StudyResult

__all__ = ["KINDS", "report_html", "template_environment"]

KINDS: tuple[TargetKind, ...] = tuple(
    TargetKind(condition, side) for condition in Condition for side in sorted(condition.sides, key=lambda side: side is Side.LEFT)
)
"""Columns of the table: the right side before the left, as they lie in axial pictures."""


@dataclass(frozen=True)
class Cell:
    """One target, ready to be shown.

    Attributes:
        target: Which.
        style: A severity's slug, or `none`.
        sign: A circle that fills with the severity.
        title: `Severe`, or `Not assessable`.
        percent: Probability of that severity, in whole percent; None where there is none.
        severity_index: Which of the three it is; None where there is none.
        shares: All three in whole percent.
        note: Number of the reason in the list under the table; None where it was graded.
        picture: Data URI of the crop; None where there is none.
        about: What the crop is, in words.
        referral: Why a reader should decide; None where the grader is sure enough.
    """

    target: Target
    style: str
    sign: str
    title: str
    percent: int | None = None
    severity_index: int | None = None
    shares: tuple[int, ...] = ()
    note: int | None = None
    picture: str | None = None
    about: str = ""
    referral: str | None = None


def report_html(result: StudyResult, figures: Mapping[str, bytes]) -> str:
    """The report as text.

    Args:
        result: What was found.
        figures: PNG files by name, from `figures.draw_figures`.
    """
    reasons = _numbered_reasons(result)
    rows = {
        level: [_cell(result, Target(kind.condition, kind.side, level), reasons, figures) for kind in KINDS] for level in LEVELS
    }
    content = result.to_json()
    notices = dict.fromkeys(bundle["notice"] for bundle in _bundles(content) if bundle.get("notice"))
    return (
        template_environment()
        .get_template("report.html")
        .render(
            result=content,
            research_notice=RESEARCH_NOTICE,
            notices=list(notices),
            other_notice=_other_notice(result.notice, notices),
            bundles=_bundles(content),
            kinds=KINDS,
            conditions=[(condition, [kind for kind in KINDS if kind.condition is condition]) for condition in Condition],
            rows=rows,
            reasons=reasons,
            worst=_worst(rows),
            notes=_notes(content),
            sagittal=_sagittal(result, figures),
            referrals=_referrals(rows, _bundles(content)),
            referral_sign=REFERRED,
            severities=[(severity, SIGNS[severity]) for severity in Severity],
            is_picture=result.picture_affine is not None,
            degenerate=degenerate,
        )
    )


@cache
def template_environment() -> Environment:
    """Jinja2 with autoescape on, where a missing name is an error."""
    environment = Environment(
        loader=PackageLoader("monai_spine.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = _words
    environment.filters["said"] = _said
    environment.filters["place"] = _place
    environment.filters["role"] = _role_label
    environment.filters["percent"] = in_percent
    return environment


def _words(flag: object) -> str:
    """`low_confidence` as `low confidence`; a sentence stays as it is."""
    text = str(flag)
    return text if " " in text else text.replace("_", " ")


def _said(value: object) -> str:
    """A value of the provenance: `yes`, `L1/L2, L2/L3`, `sagittal_t2 1.2.3`, or a dash where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = [f"{name} {one}" for name, one in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(map(str, value))
    return "–" if value is None or value == "" else str(value)


def _notes(content: Mapping[str, Any]) -> list[str]:
    """Every flag of result.json in words, with what was seen that raised it."""
    return [_note(flag, [doubt for doubt in content["doubts"] if doubt["flag"] == flag]) for flag in content["flags"]]


def _note(flag: str, doubts: Sequence[Mapping[str, Any]]) -> str:
    """`low confidence: L4/L5 (0.41); L5/S1 (0.38)`."""
    seen = [doubt["seen"] if doubt["level"] is None else f"{doubt['level']} ({doubt['seen']})" for doubt in doubts]
    return f"{_words(flag)}: {'; '.join(seen)}" if seen else _words(flag)


def _place(entry: Mapping[str, Any], name: str) -> str:
    """A point of result.json in mm or pixels, with one decimal."""
    point = entry.get(f"{name}_ras_mm", entry.get(f"{name}_px"))
    return "not seen" if point is None else ", ".join(f"{value:.1f}" for value in point)


def _bundles(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [bundle for bundle in content["provenance"]["bundles"] if isinstance(bundle, Mapping)]


def _other_notice(notice: str, shown: Mapping[str, None]) -> str:
    """What the provenance's notice says beyond the research notice and the bundles' own."""
    for known in (RESEARCH_NOTICE, *shown):
        notice = notice.replace(known, "")
    return " ".join(notice.split())


def _numbered_reasons(result: StudyResult) -> dict[str, int]:
    """Why targets were not graded: each reason once, numbered from 1 in the order of the table."""
    reasons: dict[str, int] = {}
    for level in LEVELS:
        for kind in KINDS:
            grade = result.grade_of(Target(kind.condition, kind.side, level))
            if grade is None or grade.severity is None:
                reasons.setdefault(_reason(grade), len(reasons) + 1)
    return reasons


def _reason(grade: Grade | None) -> str:
    return NOT_IN_THIS_RUN if grade is None else grade.reason or "no reason was given"


def _cell(result: StudyResult, target: Target, reasons: Mapping[str, int], figures: Mapping[str, bytes]) -> Cell:
    grade = result.grade_of(target)
    if grade is None or grade.severity is None or grade.probabilities is None:
        title = "Not graded" if grade is None else "Not assessable"
        return Cell(target, style="none", sign="–", title=title, note=reasons[_reason(grade)])
    severity = grade.severity
    picture = figures.get(f"crop_{target.slug}.png")
    return Cell(
        target,
        style=severity.slug.replace("_", "-"),
        sign=SIGNS[severity],
        title=severity.label,
        percent=_percent(grade.probabilities[severity.index]),
        severity_index=severity.index,
        shares=tuple(_percent(value) for value in grade.probabilities),
        picture=None if picture is None else _data_uri(picture),
        about=_about(result, grade),
        referral=next((doubt.seen for doubt in grade.doubts if doubt.flag == REFERRAL), None),
    )


def _about(result: StudyResult, grade: Grade) -> str:
    """Where a crop comes from: its plane, its series and its place; and what it was graded without."""
    series = next((role for role in result.series if role.series_instance_uid == grade.series_instance_uid), None)
    is_axial = "axial" in (series.role.value if series is not None and series.role is not None else "")
    is_axial |= grade.target.condition is Condition.SUBARTICULAR_STENOSIS
    parts = [f"middle {'axial' if is_axial else 'sagittal'} slice"]
    if series is not None and series.role is not None:
        parts.append(_role_label(series.role.value))
    if grade.point_ras_mm is not None and result.picture_affine is None:
        parts.append("R {:.0f}, A {:.0f}, S {:.0f} mm".format(*(value + 0.0 for value in grade.point_ras_mm)))
    if grade.reason is not None:
        parts.append(grade.reason)
    parts += [doubt.seen for doubt in grade.doubts if doubt.flag != REFERRAL]
    return " · ".join(parts)


def degenerate(content: Mapping[str, Any]) -> list[str]:
    """`L4/L5 protrusion`, `L4 degenerative`, and Schmorl nodes that are likelier than not; nothing where all is normal."""
    discs, bodies = content.get("disc_grades", []), content.get("vertebra_grades", [])
    graded = [(entry.get("disc") or entry.get("vertebra"), entry["grade"]) for entry in (*discs, *bodies)]
    nodes = [f"{entry['disc']} Schmorl node" for entry in discs if entry["schmorl_node"] > 0.5]
    return [f"{name} {grade}" for name, grade in graded if grade != "normal"] + nodes


def _percent(share: float) -> int:
    return round(100 * share)


def _worst(rows: Mapping[Level, list[Cell]]) -> list[tuple[Severity, list[Cell]]]:
    """Severe and moderate findings, the most severe first, then by level."""
    cells = [cell for level in LEVELS for cell in rows[level]]
    found = [
        (severity, [cell for cell in cells if cell.title == severity.label]) for severity in (Severity.SEVERE, Severity.MODERATE)
    ]
    return [(severity, some) for severity, some in found if some]


def _referrals(
    rows: Mapping[Level, list[Cell]], bundles: Sequence[Mapping[str, Any]]
) -> list[tuple[Condition, list[Cell], Mapping[str, Any]]]:
    """Each graded condition that is referred above some risk: what a reader should decide, and the section of its bundle."""
    sections = {str(bundle["name"]): bundle["referral"] for bundle in bundles if bundle.get("referral")}
    graded = {cell.target.condition for level in LEVELS for cell in rows[level] if cell.percent is not None}
    cells = [cell for level in LEVELS for cell in rows[level] if cell.referral]
    found = []
    for condition in Condition:
        place = condition.slug.rpartition("_")[0]  # the grader of single slices bears it in its name, too
        section = next((section for name, section in sections.items() if name.startswith(place)), None)
        if section is not None and condition in graded:
            found.append((condition, [cell for cell in cells if cell.target.condition is condition], section))
    return found


def _sagittal(result: StudyResult, figures: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Name of the series' role and data URI of each picture of the whole spine."""
    names = [name for name in figures if name.startswith("sagittal_")]
    return [(_role_label(name.removeprefix("sagittal_").removesuffix(".png")), _data_uri(figures[name])) for name in names]


def _role_label(role: str) -> str:
    """`sagittal_t2` as people write it: `Sagittal T2`."""
    return role.replace("_", " ").capitalize().replace(" t1", " T1").replace(" t2", " T2")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")
