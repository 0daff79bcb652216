"""The competition's tables study by study: the quirks that they show without any image, counted on the real ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from monai_spine.anatomy import Condition, Target
from monai_spine.series import Role
from monai_spine.studies.corrections import read_corrections
from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_points import PlacedPoint
from monai_spine.studies.rsna2024_quirks import ROLES, table_quirks
from monai_spine.studies.rsna2024_rules import Tolerances, corner_findings, level_findings, side_findings
from monai_spine.studies.rsna2024_tables import StudyRows, StudyTables, read_tables
from monai_spine.studies.stratified import stratified_parts

ANY_DISTANCE = Tolerances(step_mm=0, side_mm=0)


@pytest.fixture(scope="module")
def real(rsna_tables_dir: Path) -> StudyTables:
    return read_tables(rsna_tables_dir)


@pytest.fixture(scope="module")
def quirks(real: StudyTables) -> list[Quirk]:
    return [quirk for study in real.studies for quirk in table_quirks(study)]


def on_paper(study: StudyRows, *conditions: Condition, widths: dict[int, float] | None = None) -> dict[Target, PlacedPoint]:
    """Pixels for places: x grows to the patient's left on axial pictures, y to the feet on sagittal ones."""
    return {
        point.target: PlacedPoint(
            target=point.target,
            severity=study.severities.get(point.target),
            series_id=point.series_id,
            role=study.series[point.series_id],
            instance_number=point.instance_number,
            point_ras_mm=(-point.x / (widths or {}).get(point.series_id, 1.0), 0.0, -point.y),
        )
        for point in study.points
        if point.target.condition in conditions
    }


def studies_and_findings(quirks: list[Quirk], kind: str) -> tuple[int, int]:
    own = [quirk for quirk in quirks if quirk.kind == kind]
    return len({quirk.study_id for quirk in own}), sum(len(quirk.targets) for quirk in own)


def test_labels_and_points_that_the_real_tables_lack_are_found(quirks: list[Quirk]) -> None:
    missing = [Target.parse(slug) for quirk in quirks if quirk.kind == "missing_label" for slug in quirk.targets]
    assert studies_and_findings(quirks, "missing_label") == (185, 572)
    assert Counter(target.condition.score_group for target in missing) == {"subarticular": 517, "foraminal": 50, "spinal": 5}
    assert studies_and_findings(quirks, "label_without_point")[1] == 146
    assert studies_and_findings(quirks, "point_without_label")[1] == 35
    assert [quirk.study_id for quirk in quirks if quirk.kind == "no_points"] == [3008676218]


def test_kinds_of_series_of_the_real_tables_are_counted(real: StudyTables, quirks: list[Quirk]) -> None:
    several = Counter(quirk.seen.split(" series")[0][2:] for quirk in quirks if quirk.kind == "several_series")
    lacking = {(quirk.study_id, quirk.seen) for quirk in quirks if quirk.kind == "no_series"}
    assert sum(Counter(study.series.values()) == dict.fromkeys(ROLES, 1) for study in real.studies) == 1632
    assert several == {"Axial T2": 335, "Sagittal T1": 7}
    assert lacking == {
        (2492114990, "no Sagittal T1 series"),
        (2780132468, "no Sagittal T1 series"),
        (3008676218, "no Sagittal T2/STIR series"),
    }


def test_canal_points_on_a_t1_series_are_found(quirks: list[Quirk]) -> None:
    (found,) = [quirk for quirk in quirks if quirk.kind == "other_series_kind"]
    assert (found.study_id, len(found.targets)) == (3637444890, 5)
    assert found.seen == "5 points of spinal canal stenosis on a Sagittal T1 series"


def test_canal_points_that_do_not_descend_are_found(real: StudyTables) -> None:
    sagittal = (Condition.SPINAL_CANAL_STENOSIS, Condition.NEURAL_FORAMINAL_NARROWING)
    found = [(study.study_id, one) for study in real.studies for one in level_findings(on_paper(study, *sagittal), ANY_DISTANCE)]
    dropped = {study: one.dropped for study, one in found}
    assert len(found) == 12
    assert {target.condition for targets in dropped.values() for target in targets} == {Condition.SPINAL_CANAL_STENOSIS}
    assert dropped[372642770] == (Target.parse("spinal_canal_stenosis_l1_l2"),), "the foramina show which of two is wrong"


def test_axial_sides_seem_swapped_by_pixels_but_not_by_share_of_the_width(real: StudyTables, rsna_tables_dir: Path) -> None:
    sizes = pd.read_csv(rsna_tables_dir / "series_size_and_slice_count.csv")
    widths = dict(zip(sizes["series_id"].tolist(), sizes["width"].tolist(), strict=True))

    def swapped(given: dict[int, float] | None) -> list[int]:
        points = ((study.study_id, on_paper(study, Condition.SUBARTICULAR_STENOSIS, widths=given)) for study in real.studies)
        return [study for study, placed in points for _ in side_findings(placed, ANY_DISTANCE)]

    by_pixel, by_share = swapped(None), swapped(widths)
    assert (len(by_pixel), len(set(by_pixel))) == (121, 29)
    assert (len(by_share), len(set(by_share))) == (19, 7), "most swaps are but series of other sizes"


def test_foraminal_points_of_both_sides_on_one_slice_are_found(real: StudyTables) -> None:
    def slices(study: StudyRows) -> Counter[tuple[object, ...]]:
        foraminal = [p for p in study.points if p.target.condition is Condition.NEURAL_FORAMINAL_NARROWING]
        return Counter((p.target.level, p.series_id, p.instance_number) for p in foraminal)

    assert sum(max(slices(study).values(), default=0) > 1 for study in real.studies) == 9


def test_points_in_a_corner_are_found(real: StudyTables) -> None:
    found = [one for study in real.studies for one in corner_findings(study.points)]
    assert len(found) == 13
    assert all(target.condition is Condition.SPINAL_CANAL_STENOSIS for one in found for target in one.dropped)


def test_every_listed_correction_is_about_a_point_of_the_real_tables(real: StudyTables) -> None:
    points = {(study.study_id, point.target) for study in real.studies for point in study.points}
    listed = {(study, target) for study, found in read_corrections().items() for one in found for target in one.targets or ()}
    assert listed
    assert listed <= points


def test_every_fold_has_its_share_of_each_real_class(real: StudyTables) -> None:
    classes = {
        str(study.study_id): Counter(f"{t.condition.slug} {t.level.slug} {grade.slug}" for t, grade in study.severities.items())
        for study in real.studies
    }
    total = sum(classes.values(), Counter())
    for fold in stratified_parts(classes, (0.2,) * 5):
        counts = sum((classes[study] for study in fold), Counter())
        assert all(abs(counts[name] - total[name] / 5) <= max(2, 0.03 * total[name]) for name in total)


def test_the_kind_of_every_real_series_is_a_role(real: StudyTables) -> None:
    counts = Counter(role for study in real.studies for role in study.series.values())
    assert set(counts) == {Role.SAGITTAL_T1, Role.SAGITTAL_T2, Role.AXIAL_T2}
    assert counts.total() == 6294
