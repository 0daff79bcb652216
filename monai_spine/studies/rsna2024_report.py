"""The report on prepared RSNA 2024 data as one HTML file: classes, splits, series, what was odd, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Severity, Target, TargetKind
from monai_spine.report.html import KINDS, template_environment
from monai_spine.report.palette import SIGNS
from monai_spine.result import RESEARCH_NOTICE
from monai_spine.studies.prepared import PreparedCase
from monai_spine.studies.quirks import QUIRK_TITLES, Quirk
from monai_spine.studies.rsna2024_images import StudyImages
from monai_spine.studies.rsna2024_quirks import ROLES
from monai_spine.studies.rsna2024_tables import SetAsideStudy, StudyRows

__all__ = ["ReportContent", "report_html"]

SHOWN = 12
"""Examples of each kind of oddity."""
_SPLIT_TITLES = {"fold": "Fold", "70_15_15": "70 / 15 / 15", "80_15_5": "80 / 15 / 5"}


@dataclass(frozen=True)
class ReportContent:
    """What the report is written from.

    Attributes:
        title: What the data set is called.
        rows: The tables' studies that were prepared.
        images: Of the same studies.
        cases: Those that came into the data list.
        parts: As `rsna2024_splits.write_all_splits` gives them.
        quirks: All that was odd.
        set_aside: Studies that take no part.
        corrections: Whether any were made.
    """

    title: str
    rows: Sequence[StudyRows]
    images: Sequence[StudyImages]
    cases: Sequence[PreparedCase]
    parts: Mapping[str, Mapping[str, str]]
    quirks: Sequence[Quirk]
    set_aside: Sequence[SetAsideStudy]
    corrections: bool

    @property
    def without_points(self) -> int:
        """Studies whose images were written, but that have no point and are in no data list."""
        return len(self.images) - len(self.cases)


@dataclass(frozen=True)
class ClassCell:
    """Grades of one kind of finding at one level, or at all."""

    counts: Mapping[Severity, int]
    missing: int

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def percent(self, severity: Severity) -> float:
        """Share of a grade among those given."""
        return 100 * self.counts[severity] / self.total if self.total else 0.0


@dataclass(frozen=True)
class PartRow:
    """One part of one way to split: how many studies and patients, and how often each condition is severe and moderate in it."""

    title: str
    studies: int
    patients: int
    counts: Mapping[tuple[Condition, Severity], int]


@dataclass(frozen=True)
class RoleRow:
    """All series of one kind.

    Attributes:
        label: Of the kind.
        series: How many.
        per_study: How many studies have 0, 1, 2 … of them.
        ranges: Least, middle and greatest of each measure, by its name.
        bars: Distance of slices in mm, to the nearest half, and how many volumes have it.
    """

    label: str
    series: int
    per_study: Mapping[int, int]
    ranges: Mapping[str, str]
    bars: Mapping[float, int]


@dataclass(frozen=True)
class QuirkRow:
    """All oddities of one kind."""

    title: str
    studies: int
    findings: int
    done: Mapping[str, int]
    examples: Sequence[Quirk]
    more: int


def report_html(content: ReportContent) -> str:
    """The report as text."""
    return (
        template_environment()
        .get_template("dataset.html")
        .render(
            content=content,
            research_notice=RESEARCH_NOTICE,
            kinds=KINDS,
            levels=LEVELS,
            classes={(kind, level): _class_cell(content.rows, kind, [level]) for kind in KINDS for level in LEVELS},
            totals={kind: _class_cell(content.rows, kind, LEVELS) for kind in KINDS},
            conditions=list(Condition),
            severities=[(severity, SIGNS[severity]) for severity in Severity],
            graded=(Severity.SEVERE, Severity.MODERATE),
            parts=[row for name in _SPLIT_TITLES for row in _part_rows(content, name)],
            roles=[_role_row(content.images, role.value, role.label) for role in ROLES],
            quirks=_quirk_rows(content.quirks),
            volumes=sum(len(series.volumes) for study in content.images for series in study.series),
            series=sum(len(study.series) for study in content.images),
            slices=sum(volume.shape[2] for study in content.images for series in study.series for volume in series.volumes),
            points=sum(len(case.targets) for case in content.cases),
            unlabelled=sum(len(TARGETS) - len(study.severities) for study in content.rows),
        )
    )


def _class_cell(rows: Iterable[StudyRows], kind: TargetKind, levels: Sequence[Level]) -> ClassCell:
    targets = [Target(kind.condition, kind.side, level) for level in levels]
    found = Counter(study.severities.get(target) for study in rows for target in targets)
    return ClassCell({severity: found[severity] for severity in Severity}, found[None])


def _part_rows(content: ReportContent, name: str) -> list[PartRow]:
    part_of = content.parts[name]
    names = list(dict.fromkeys(sorted(part_of.values()))) if name == "fold" else ["training", "validation", "test"]
    rows = []
    for part in names if part_of else ():
        cases = [case for case in content.cases if part_of[case.case] == part]
        graded = [(target.condition, found.severity) for case in cases for target, found in case.targets.items()]
        counts = Counter((condition, severity) for condition, severity in graded if severity is not None)
        rows.append(PartRow(f"{_SPLIT_TITLES[name]} {part}", len(cases), len({case.patient for case in cases}), counts))
    return rows


def _role_row(images: Sequence[StudyImages], role: str, label: str) -> RoleRow:
    of_study = [[series for series in study.series if series.role.value == role] for study in images]
    series = [one for found in of_study for one in found]
    volumes = [volume for one in series for volume in one.volumes]
    measures: dict[str, Sequence[float]] = {
        "Slices of a series": [sum(volume.shape[2] for volume in one.volumes) for one in series if one.volumes],
        "Blocks of a series": [len(one.volumes) for one in series],
        "Matrix": [max(volume.shape[:2]) for volume in volumes],
        "Pixel, mm": [volume.spacing_mm[0] for volume in volumes],
        "Slice distance, mm": [volume.spacing_mm[2] for volume in volumes],
    }
    bars = Counter(round(2 * volume.spacing_mm[2]) / 2 for volume in volumes)
    per_study = Counter(len(found) for found in of_study)
    ranges = {name: _range(values) for name, values in measures.items()}
    return RoleRow(label, len(series), dict(sorted(per_study.items())), ranges, dict(sorted(bars.items())))


def _range(values: Sequence[float]) -> str:
    return " – ".join(f"{round(value, 2):,g}" for value in (min(values), median(values), max(values))) if values else "–"


def _quirk_rows(quirks: Sequence[Quirk]) -> list[QuirkRow]:
    rows = []
    for kind, title in QUIRK_TITLES.items():
        own = [quirk for quirk in quirks if quirk.kind == kind]
        if own:
            studies, findings = len({quirk.study_id for quirk in own}), sum(len(quirk.targets) for quirk in own)
            done = dict(Counter(quirk.summary for quirk in own).most_common())
            rows.append(QuirkRow(title, studies, findings, done, own[:SHOWN], max(0, len(own) - SHOWN)))
    return rows
