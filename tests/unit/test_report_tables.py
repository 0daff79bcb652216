"""Tables of a study and of a run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_cases import case

from monai_spine.anatomy import LEVELS, TARGETS, Level
from monai_spine.errors import OutputError
from monai_spine.report import write_cohort, write_result
from monai_spine.report.cohort import COHORT_COLUMNS
from monai_spine.report.tables import GRADE_COLUMNS, NOT_IN_THIS_RUN, common_reasons, csv_text, grade_rows, study_submission
from monai_spine.studies.priors import submission_prior
from monai_spine.studies.submissions import read_submission


def grades_of(**changes: object) -> dict[str, dict[str, str]]:
    text = csv_text(GRADE_COLUMNS, grade_rows(case(**changes)[0]))
    return {row["target"]: row for row in csv.DictReader(io.StringIO(text))}


def test_grades_has_one_row_per_target_in_the_official_order() -> None:
    assert list(grades_of()) == [target.slug for target in TARGETS]


def test_left_rows_hold_points_on_the_patients_left() -> None:
    for row in grades_of().values():
        if row["point_r_mm"] and row["side"]:
            assert (float(row["point_r_mm"]) < 0) == (row["side"] == "left")


def test_a_row_holds_severity_probabilities_or_the_reason() -> None:
    rows = grades_of()
    severe = rows["spinal_canal_stenosis_l4_l5"]
    assert (severe["severity"], severe["severe"], severe["reason"], severe["side"]) == ("severe", "0.81", "", "")
    missing = rows["left_subarticular_stenosis_l1_l2"]
    assert (missing["status"], missing["severity"], missing["severe"]) == ("not_assessable", "", "")
    assert "only 33 % of its 64" in missing["reason"]


def test_targets_that_were_left_out_have_a_row_that_says_so() -> None:
    kept = tuple(grade for grade in case()[0].grades if grade.target.level is Level.L4_L5)
    rows = grades_of(grades=kept)
    assert [row["reason"] for row in rows.values() if row["level"] != "L4/L5"] == [NOT_IN_THIS_RUN] * 20


def test_a_submission_scales_grades_by_the_weights_of_the_score_and_takes_the_prior_where_nothing_was_graded() -> None:
    rows, notes = study_submission("7", case()[0].to_json())
    assert [row.target for row in rows] == list(TARGETS)
    by_slug = {row.target.slug: row.probabilities for row in rows}
    weighted = (0.03, 0.16 * 2, 0.81 * 4)
    assert by_slug["spinal_canal_stenosis_l4_l5"] == pytest.approx([value / sum(weighted) for value in weighted])
    missing = next(target for target in TARGETS if target.slug == "left_subarticular_stenosis_l1_l2")
    assert by_slug[missing.slug] == submission_prior(missing)
    assert [note.row_id for note in notes] == [f"7_{side}_subarticular_stenosis_l1_l2" for side in ("left", "right")]
    assert "only 33 %" in notes[0].reason


def test_the_flag_of_a_finding_that_is_left_to_a_reader_stands_in_its_row() -> None:
    rows = [dict(zip(GRADE_COLUMNS, row, strict=True)) for row in grade_rows(case()[0])]
    assert {row["target"]: row["flags"] for row in rows if row["flags"]} == {"spinal_canal_stenosis_l3_l4": "referral"}


def table_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def written_cohort(folder: Path, *studies: str) -> str:
    for study in studies:
        write_result(*case(), folder / study, formats=("json",))
    failure = SimpleNamespace(
        study="bad", source="in/bad", error="StudyError", message="No MR, none. Choose another.", exit_code=3
    )
    return write_cohort(folder, studies, failures=[failure], run={"versions": {"monai_spine": "0"}}).note


def test_a_run_is_summed_up_from_what_lies_in_its_folder(tmp_path: Path) -> None:
    note = written_cohort(tmp_path, "20", "3")
    cohort = table_of(tmp_path / "cohort.csv")
    assert tuple(cohort[0]) == COHORT_COLUMNS
    assert [row["study"] for row in cohort] == ["20", "3"]
    assert (cohort[0]["graded"], cohort[0]["not_assessable"], cohort[0]["spinal_canal_stenosis"]) == ("23", "2", "severe")
    assert cohort[0]["referred"] == "1"
    assert cohort[0]["reason"] == "only 33 % of its 64 × 64 × 32 mm block lies inside the scan (at least 50 % is needed)"
    result = json.loads((tmp_path / "20" / "result.json").read_text(encoding="utf-8"))
    assert cohort[0]["notice"] == result["provenance"]["notice"]
    assert "trained on simulated images" in cohort[0]["notice"]
    assert note == "submission.csv: 4 of 50 rows hold the prior of the training set, because they were not graded."


def test_graded_discs_and_vertebrae_have_a_table_and_a_column_of_their_own(tmp_path: Path) -> None:
    written_cohort(tmp_path, "20", "3")
    assert not (tmp_path / "degeneration.csv").exists()
    assert "degeneration.csv" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    path = tmp_path / "3" / "result.json"
    shares = {"normal": 0.1, "bulge": 0.2, "protrusion": 0.6, "extrusion": 0.1}
    discs = [{"disc": "L4/L5", "grade": "protrusion", "probabilities": shares, "schmorl_node": 0.02}]
    bodies = [{"vertebra": "L4", "grade": "normal", "probabilities": {"normal": 0.7, "degenerative": 0.3}}]
    graded = {"disc_grades": discs, "vertebra_grades": bodies}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **graded}), encoding="utf-8")
    write_cohort(tmp_path, ("20", "3"))
    rows = table_of(tmp_path / "degeneration.csv")
    assert [(row["study"], row["structure"], row["grade"]) for row in rows] == [
        ("3", "L4/L5", "protrusion"),
        ("3", "L4", "normal"),
    ]
    assert [(row["protrusion"], row["degenerative"], row["schmorl_node"]) for row in rows] == [
        ("0.6", "", "0.02"),
        ("", "0.3", ""),
    ]
    assert "L4/L5 protrusion" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_submission_has_the_official_columns_and_run_json_names_the_rows_that_hold_the_prior(tmp_path: Path) -> None:
    note = written_cohort(tmp_path, "20", "3")
    lines = (tmp_path / "submission.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "row_id,normal_mild,moderate,severe"
    assert [line.split(",")[0] for line in lines[1:]] == [f"{study}_{target.slug}" for study in ("3", "20") for target in TARGETS]
    assert len(read_submission(tmp_path / "submission.csv")) == 50
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert run["submission_priors"]["note"] == note
    assert run["submission_priors"]["rows"][0]["row_id"] == "20_left_subarticular_stenosis_l1_l2"
    assert run["versions"] == {"monai_spine": "0"}


def test_reasons_that_hold_for_many_findings_are_named_or_else_the_commonest() -> None:
    many = ["no axial T2 series"] * 10 + ["no sagittal T2 series"] * 5
    assert common_reasons([*many, "outside the scan", None]) == ["no axial T2 series", "no sagittal T2 series"]
    assert common_reasons(["not found", "outside the scan", "outside the scan", None]) == ["outside the scan"]
    assert common_reasons([None]) == []


def test_failures_are_listed_with_their_message(tmp_path: Path) -> None:
    written_cohort(tmp_path, "1")
    (row,) = table_of(tmp_path / "failures.csv")
    assert row == {
        "study": "bad",
        "source": "in/bad",
        "error": "StudyError",
        "exit_code": "3",
        "message": "No MR, none. Choose another.",
    }


def test_a_run_without_any_finished_study_still_writes_its_tables(tmp_path: Path) -> None:
    assert written_cohort(tmp_path) == ""
    assert (tmp_path / "submission.csv").read_text(encoding="utf-8") == "row_id,normal_mild,moderate,severe\n"
    assert "No study was finished" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_study_without_a_readable_result_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(OutputError, match=r"one/result\.json cannot be summed up"):
        write_cohort(tmp_path, ["one"])


def test_levels_and_targets_of_the_tables_are_those_of_the_vocabulary() -> None:
    assert {row["level"] for row in grades_of().values()} == {level.label for level in LEVELS}
