"""The result and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from report_cases import SIMULATED, case, case_levels

import monai_spine.report
from monai_spine.anatomy import TARGETS, Condition, Level, Severity, Side, Target
from monai_spine.grades import Grade
from monai_spine.result import RESEARCH_NOTICE, provenance_of

OWN_SCHEMA = Path(monai_spine.report.__file__).with_name("result.schema.json")
SHARED_SCHEMA = Path(__file__).resolve().parents[3] / "shared" / "result.schema.json"


def schemas() -> Iterator[Any]:
    yield pytest.param(OWN_SCHEMA, id="shipped")
    absent = pytest.mark.skipif(not SHARED_SCHEMA.is_file(), reason="shared/result.schema.json lies not beside the checkout")
    yield pytest.param(SHARED_SCHEMA, id="contract", marks=absent)


def picture_case() -> tuple[Any, Any]:
    """Columns grow to the back, rows to the feet, 1 `mm` a pixel, pixel (0, 0) at A 100, S 120."""
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 100], [0, -1, 0, 120], [0, 0, 0, 1]], dtype=float)
    return case(picture_affine=affine, study_instance_uid=None)


@pytest.fixture(params=schemas())
def validator(request: pytest.FixtureRequest) -> Draft202012Validator:
    schema = json.loads(request.param.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_a_result_fits_the_schema(validator: Draft202012Validator) -> None:
    validator.validate(json.loads(json.dumps(case()[0].to_json())))


def test_a_result_of_a_picture_fits_the_schema(validator: Draft202012Validator) -> None:
    validator.validate(json.loads(json.dumps(picture_case()[0].to_json())))


def test_a_result_without_any_level_or_grade_fits_the_schema(validator: Draft202012Validator) -> None:
    levels = replace(case_levels(), levels=(), vertebrae=(), bodies=None)
    validator.validate(case(levels=levels, grades=(), series=(), provenance={})[0].to_json())


def test_the_shipped_schema_refuses_a_graded_target_without_probabilities() -> None:
    content = case()[0].to_json()
    content["grades"][0]["probabilities"] = None
    validator = Draft202012Validator(json.loads(OWN_SCHEMA.read_text(encoding="utf-8")))
    assert [list(error.path) for error in validator.iter_errors(content)] == [["grades", 0, "probabilities"]]


def test_grades_are_written_in_the_order_in_which_they_were_given() -> None:
    content = case()[0].to_json()
    written = [(grade["condition"], grade["side"], grade["level"]) for grade in content["grades"]]
    assert written == [(target.condition.value, target.side and target.side.value, target.level.label) for target in TARGETS]


def test_the_severity_is_the_most_probable_one_and_the_milder_one_of_two_equal() -> None:
    target = TARGETS[0]
    grades = [
        Grade(target, "graded", probabilities=values) for values in ((0.2, 0.3, 0.5), (0.1, 0.45, 0.45), (1 / 3, 1 / 3, 1 / 3))
    ]
    written = [case(grades=(grade,))[0].to_json()["grades"][0]["severity"] for grade in grades]
    assert written == ["severe", "moderate", "normal_mild"]


def test_a_target_that_is_not_assessable_carries_its_reason_and_no_numbers() -> None:
    result, _ = case()
    grade = result.grade_of(Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, Level.L1_L2))
    assert grade is not None
    written = next(entry for entry in result.to_json()["grades"] if entry["status"] == "not_assessable")
    assert written["reason"] == grade.reason
    assert [written[name] for name in ("probabilities", "severity", "point_ras_mm")] == [None, None, None]


def test_points_are_rounded_to_a_micrometre_and_have_no_negative_zero() -> None:
    level = replace(case_levels().levels[0], disc_ras_mm=(1.23456, -0.0000001, -7.0), canal_ras_mm=None)
    written = case(levels=replace(case_levels(), levels=(level,)))[0].to_json()["levels"][0]
    assert json.dumps(written["point_ras_mm"]) == "[1.235, 0.0, -7.0]"
    assert "canal_ras_mm" not in written


def test_a_picture_has_pixels_and_no_millimetres() -> None:
    content = picture_case()[0].to_json()
    level = content["levels"][0]
    _, a, s = case_levels().levels[0].disc_ras_mm
    assert level["point_px"] == [round(100 - a, 3), round(120 - s, 3)]
    assert level["canal_px"][0] == pytest.approx(level["point_px"][0] + 25)
    assert content["levels"][1]["foramina_px"].keys() == {"left", "right"}
    assert "sagittal_slices" not in content["levels"][1]
    assert "_mm" not in json.dumps(
        [content["levels"], content["vertebrae"], [g for g in content["grades"] if g["status"] == "graded"]]
    )


def test_flags_of_the_study_and_of_its_levels_come_together_once() -> None:
    result, _ = case(flags=("sacrum_not_seen", "another"))
    assert result.to_json()["flags"] == ["sacrum_not_seen", "another", "low_confidence"]


def test_each_flag_of_the_levels_stands_with_what_was_seen() -> None:
    content = case()[0].to_json()
    assert content["doubts"] == [
        {"flag": "sacrum_not_seen", "level": None, "seen": "L5/S1 was named with a confidence of 0.45 only"},
        {"flag": "low_confidence", "level": "L5/S1", "seen": "0.45"},
    ]
    assert [level["flags"] for level in content["levels"]] == [*5 * [[]], ["low_confidence"]]


def test_foramina_stand_by_side_where_they_were_seen_and_slices_count_from_the_right() -> None:
    """The drawn scan has slices of 4 mm from R -30 to R 30 mm; its canal lies at R 1 mm, the foramina 17 mm aside."""
    levels = case()[0].to_json()["levels"]
    assert "foramina_ras_mm" not in levels[0], "T12/L1 has none"
    assert set(levels[0]["sagittal_slices"]) == {"canal"}
    _, a, s = case_levels().levels[1].canal_ras_mm
    assert levels[1]["foramina_ras_mm"] == {
        "left": [-16.0, round(a + 5, 3), round(s + 8, 3)], "right": [18.0, round(a + 5, 3), round(s + 8, 3)]
    }  # fmt: skip
    assert levels[1]["sagittal_slices"] == {"canal": 7, "left_foramen": 11, "right_foramen": 3}
    uids = levels[1]["sagittal_sop_instance_uids"]
    assert uids == {"canal": "1.2.826.0.1.2.9", "left_foramen": "1.2.826.0.1.2.5", "right_foramen": "1.2.826.0.1.2.13"}


@pytest.mark.parametrize("notice", ["", "Made of wood.", f"{RESEARCH_NOTICE} Made of wood."])
def test_the_notice_always_says_that_this_is_research(notice: str) -> None:
    written = case(provenance={"notice": notice})[0].to_json()["provenance"]["notice"]
    assert written.startswith(RESEARCH_NOTICE)
    assert written.count(RESEARCH_NOTICE) == 1
    assert notice.replace(RESEARCH_NOTICE, "").strip() in written


def test_the_provenance_names_versions_bundles_hashes_and_what_they_were_trained_on() -> None:
    bundle = SimpleNamespace(
        name="canal",
        version="0.2.0",
        weights_sha256={"models/model.pt": "ab"},
        training_data="simulated",
        notice=SIMULATED,
        option={"referral": {"expected_risk": 0.25}}.get,
    )
    provenance = provenance_of([bundle, bundle], {"device": "cpu"})  # type: ignore[list-item]
    assert {"monai_spine", "python", "torch", "monai"} <= set(provenance["versions"])
    assert provenance["bundles"][0]["weights_sha256"] == {"models/model.pt": "ab"}
    assert provenance["bundles"][0]["training_data"] == "simulated"
    assert provenance["bundles"][0]["referral"] == {"expected_risk": 0.25}
    assert provenance["notice"] == f"{RESEARCH_NOTICE} {SIMULATED}"
    assert provenance["settings"] == {"device": "cpu"}


def test_a_finding_that_is_left_to_a_reader_says_so_with_what_raised_the_flag() -> None:
    written = {(grade["condition"], grade["level"]): grade for grade in case()[0].to_json()["grades"]}
    seen = "expected to be wrong with 35.0 %; above 30.0 % a reader should decide"
    assert written["spinal_canal_stenosis", "L3/L4"]["flags"] == ["referral"]
    assert written["spinal_canal_stenosis", "L3/L4"]["doubts"] == [{"flag": "referral", "level": "L3/L4", "seen": seen}]
    assert written["spinal_canal_stenosis", "L2/L3"]["flags"] == []


def test_every_probability_is_written_under_the_name_of_its_severity() -> None:
    grade = case()[0].to_json()["grades"][3]
    assert list(grade["probabilities"]) == [severity.value for severity in Severity]
    assert sum(grade["probabilities"].values()) == pytest.approx(1, abs=2e-6)
