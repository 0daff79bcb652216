"""The report and the index as HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_cases import HOSTILE, MEANING, SIMULATED, case

from monai_spine.anatomy import DISCS, LEVELS, TARGETS, Condition, Level, Severity, Side, TargetKind, Vertebra
from monai_spine.degeneration import Degeneration
from monai_spine.report import write_cohort, write_result
from monai_spine.report.html import KINDS, report_html
from monai_spine.report.tables import NOT_IN_THIS_RUN
from monai_spine.result import RESEARCH_NOTICE

PNG = b"\x89PNG no picture"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes in order, the text of each cell, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def with_tag(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(**changes: object) -> tuple[str, Page]:
    result, _ = case(**changes)
    names = [f"crop_{grade.target.slug}.png" for grade in result.grades if grade.severity is not None]
    text = report_html(result, dict.fromkeys(["sagittal_sagittal_t2.png", *names], PNG))
    return text, Page(text)


def test_a_report_is_well_formed_and_each_link_leads_to_a_place_in_it() -> None:
    _, page = page_of()
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in page.with_tag("a")}
    assert {f"#{target.slug}" for target in TARGETS if "subarticular_stenosis_l1_l2" not in target.slug} <= links
    assert links <= {f"#{name}" for name in ids}


def test_a_report_needs_no_network() -> None:
    text, page = page_of(source="plain", series=case()[0].series[:3])
    assert "http://" not in text
    assert "https://" not in text
    assert not page.with_tag("script")
    assert not page.with_tag("link")
    assert all((attributes["src"] or "").startswith("data:image/png;base64,") for attributes in page.with_tag("img"))
    assert "@import" not in text
    assert "url(" not in text


def test_text_from_files_is_shown_and_never_run() -> None:
    hostile = f"{HOSTILE}<img src=x onerror=alert(1)>"
    result, _ = case()
    grades = tuple(
        grade if grade.severity else type(grade)(grade.target, "not_assessable", reason=hostile) for grade in result.grades
    )
    text, page = page_of(
        source=hostile, flags=(hostile,), grades=grades, provenance={"notice": hostile, "settings": {hostile: hostile}}
    )
    assert "<script" not in text
    assert "onerror" not in [name for _, attributes in page.tags for name in attributes]
    assert page.open == []
    assert page.text.count("<script>alert('x')</script>") >= 5


def test_the_notice_stands_before_any_finding_and_says_what_the_weights_were_trained_on() -> None:
    text, page = page_of()
    assert text.index(RESEARCH_NOTICE) < text.index("Findings")
    assert text.index(SIMULATED) < text.index("Findings")
    assert page.text.count(SIMULATED) == 1


def test_the_table_has_five_levels_by_five_kinds_of_target_with_severity_and_probabilities_as_text() -> None:
    _, page = page_of()
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 6 and row[0] in {level.label for level in LEVELS}}
    assert list(rows) == [level.label for level in LEVELS]
    assert rows["L4/L5"] == ["● Severe 3 · 16 · 81 %"] * 5
    assert rows["L3/L4"][:2] == ["◐ Moderate 20 · 65 · 15 % ⚑ Referral", "◐ Moderate 20 · 65 · 15 %"]
    assert rows["L1/L2"] == ["○ Normal/Mild 88 · 10 · 2 %"] * 3 + ["– Not assessable [1]"] * 2


def test_left_findings_stand_under_left() -> None:
    """At L5/S1 of this case, left is moderate and right is normal."""
    _, page = page_of()
    row = next(row for row in page.rows if len(row) == 6 and row[0] == "L5/S1")
    moderate = [kind for kind, cell in zip(KINDS, row[1:], strict=True) if "Moderate" in cell]
    assert moderate == [TargetKind(condition, Side.LEFT) for condition in Condition if condition.sides != (None,)]
    assert page.rows[1] == ["Right", "Left", "Right", "Left"]
    assert [kind.side for kind in KINDS] == [None, Side.RIGHT, Side.LEFT, Side.RIGHT, Side.LEFT]


def test_a_finding_that_is_left_to_a_reader_is_marked_in_the_table_at_its_picture_and_in_the_list() -> None:
    html, page = page_of()
    marked = [cell for row in page.rows if len(row) == 6 for cell in row[1:] if "Referral" in cell]
    assert [cell.split() for cell in marked] == [["◐", "Moderate", "20", "·", "65", "·", "15", "%", "⚑", "Referral"]]
    assert "⚑ Referral: expected to be wrong with 35.0 %; above 30.0 % a reader should decide" in page.text
    assert f"Spinal canal stenosis , expected risk above 30.0 %: L3/L4 {MEANING}" in page.text
    assert html.count('class="moderate referred"') == 1


def test_without_a_threshold_nothing_is_said_of_referral() -> None:
    plain = tuple(replace(grade, doubts=()) for grade in case()[0].grades)
    html, _ = page_of(grades=plain, provenance={})
    assert "Referral" not in html


def test_the_threshold_of_the_grader_of_single_slices_is_shown_too() -> None:
    bundle = {"name": "spinal_canal_slice_grading", "referral": {"expected_risk": 0.3, "meaning": "of slices"}}
    _, page = page_of(provenance={"bundles": [bundle]})
    assert "Spinal canal stenosis , expected risk above 30.0 %: L3/L4 of slices" in page.text


def test_of_a_condition_that_was_not_graded_nothing_is_said_of_referral() -> None:
    left = tuple(grade for grade in case()[0].grades if grade.target.side is not None)
    _, page = page_of(grades=left)
    assert "expected risk above" not in page.text


def test_what_was_not_graded_says_why() -> None:
    _, page = page_of()
    assert "only 33 % of its 64 × 64 × 32 mm block lies inside the scan" in page.text


def test_targets_that_were_left_out_are_not_called_not_assessable() -> None:
    kept = tuple(grade for grade in case()[0].grades if grade.target.level is Level.L4_L5)
    _, page = page_of(grades=kept)
    row = next(row for row in page.rows if len(row) == 6 and row[0] == "L1/L2")
    assert row[1:] == ["– Not graded [1]"] * 5
    assert NOT_IN_THIS_RUN in page.text


def test_every_header_has_a_scope_and_every_picture_a_text() -> None:
    _, page = page_of()
    assert all(attributes.get("scope") in {"col", "row", "colgroup"} for attributes in page.with_tag("th"))
    pictures = page.with_tag("img")
    assert len(pictures) == 1 + 23
    assert all(attributes.get("alt") for attributes in pictures)
    assert any(
        attributes["alt"].startswith("Left Subarticular Stenosis L4/L5: Severe, 81 percent")
        for attributes in pictures
        if attributes["alt"]
    )


def test_settings_are_told_in_words() -> None:
    settings = {"series": {}, "series_table": False, "nifti_role": None, "levels": ["L1/L2", "L2/L3"]}
    html, _ = page_of(provenance={"settings": settings})
    assert "series: – · series table: no · nifti role: – · levels: L1/L2, L2/L3" in html


def test_series_roles_reasons_flags_and_provenance_are_shown() -> None:
    _, page = page_of()
    assert "3 slices in three planes: a localizer" in page.text
    assert HOSTILE in page.text
    assert "Slices 4 and 5 of series 3 lie at one position" in page.text
    assert "ab" * 32 in page.text
    assert "torch: 2.13.0" in page.text


def test_each_flag_is_said_in_words_with_what_was_seen() -> None:
    _, page = page_of()
    assert "sacrum not seen: L5/S1 was named with a confidence of 0.45 only" in page.text
    assert "low confidence: L5/S1 (0.45)" in page.text
    notes = {row[0]: row[-1] for row in page.rows if len(row) == 5 and row[0] in {level.label for level in LEVELS}}
    assert notes == {**dict.fromkeys((level.label for level in LEVELS[:-1]), ""), "L5/S1": "low confidence: 0.45"}


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, WCAG 2.1."""

    def luminance(colour: str) -> float:
        full = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        values = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_a_contrast_of_at_least_4_5_in_light_and_dark() -> None:
    text, _ = page_of()
    themes = [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)]
    assert len(themes) == 3
    pairs = [(slug, f"{slug}-ink") for slug in ("normal-mild", "moderate", "severe", "none")]
    pairs += [
        ("page", "ink"),
        ("page", "soft"),
        ("card", "ink"),
        ("card", "soft"),
        ("page", "link"),
        ("card", "link"),
        ("warn", "ink"),
    ]
    for theme in themes:
        for back, front in pairs:
            assert contrast(theme[back], theme[front]) >= 4.5, (back, front)


def test_a_picture_without_geometry_is_shown_without_millimetres() -> None:
    import numpy as np

    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 100], [0, -1, 0, 120], [0, 0, 0, 1]], dtype=float)
    _, page = page_of(picture_affine=affine)
    assert "no millimetres are given" in page.text
    assert "R -8, A" not in page.text


def degeneration(worn: dict[str, str], nodes: dict[str, float]) -> tuple[Degeneration, ...]:
    """Discs and vertebrae, normal but for `worn`; `nodes`: probabilities of Schmorl nodes, 0.1 where none is given."""
    bodies = (Vertebra.L1, Vertebra.L2, Vertebra.L3, Vertebra.L4, Vertebra.L5)
    return tuple(
        Degeneration(
            structure,
            probabilities={"normal": 1.0},
            grade=worn.get(structure.label, "normal"),
            point_ras_mm=(0.0, 0.0, 0.0),
            schmorl_node=None if structure in bodies else nodes.get(structure.label, 0.1),
        )
        for structure in (*DISCS, *bodies)
    )


@pytest.mark.parametrize(
    ("worn", "nodes", "said"),
    [
        ({}, {}, "No degeneration of 6 discs and 5 vertebrae."),
        ({}, {"L1/L2": 0.5}, "No degeneration of 6 discs and 5 vertebrae."),
        ({"L4/L5": "bulge"}, {}, "Degeneration: L4/L5 bulge."),
        ({"L4": "degenerative"}, {}, "Degeneration: L4 degenerative."),
        ({"L5": "degenerative", "L5/S1": "extrusion"}, {"L1/L2": 0.6},
         "Degeneration: L5/S1 extrusion, L5 degenerative, L1/L2 Schmorl node."),
    ],
)  # fmt: skip
def test_a_report_names_what_is_degenerate_or_says_that_nothing_is(
    worn: dict[str, str], nodes: dict[str, float], said: str
) -> None:
    _, page = page_of(degeneration=degeneration(worn, nodes))
    assert re.findall(r"No degeneration of [^.]*\.|Degeneration: [^.]*\.", page.text) == [said]


def test_a_report_without_pictures_or_grades_is_still_a_page() -> None:
    result, _ = case(grades=(), provenance={})
    page = Page(report_html(result, {}))
    assert page.open == []
    assert "No sagittal series is shown" in page.text


@pytest.fixture
def index(tmp_path: Path) -> Page:
    for study in ("one", "<b>two</b>".replace("/", "")):
        write_result(*case(), tmp_path / study, formats=("json",))
    failure = SimpleNamespace(study="<i>bad", source=HOSTILE, error="StudyError", message=HOSTILE, exit_code=3)
    write_cohort(tmp_path, ["one", "<b>two<b>"], failures=[failure])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    return Page(text)


def test_the_index_links_each_report_and_shows_the_worst_severity_of_each_condition(index: Page) -> None:
    links = [attributes["href"] for attributes in index.with_tag("a")]
    assert {"one/report.html", "%3Cb%3Etwo%3Cb%3E/report.html"} <= set(links)
    row = next(row for row in index.rows if row[0] == "one")
    assert row[1:4] == ["● Severe L4/L5", "● Severe L4/L5 left, L4/L5 right", "● Severe L4/L5 left, L4/L5 right"]
    assert row[4:6] == ["23", "2"]
    assert row[7].startswith("only 33 % of its 64 × 64 × 32 mm block lies inside the scan (at least 50 % is needed); ")


def test_the_index_lists_failures_and_is_well_formed_whatever_they_say(index: Page) -> None:
    assert index.open == []
    assert next(row for row in index.rows if row[0] == "<i>bad")[1] == HOSTILE
    assert RESEARCH_NOTICE in index.text
    assert "4 of 50 rows hold the prior" in index.text


def test_severities_are_told_apart_by_their_signs_too() -> None:
    from monai_spine.report.palette import SIGNS

    assert len({SIGNS[severity] for severity in Severity}) == 3
