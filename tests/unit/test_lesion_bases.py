"""Which discs may bear a simulated lesion."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_spine.anatomy import DISCS, Condition, Level, Severity, Target
from monai_spine.errors import TableError
from monai_spine.phantom.lesions.bases import base_levels, disc_grades
from monai_spine.studies.prepared import PreparedCase, PreparedTarget


def case(**severities: Severity) -> PreparedCase:
    targets = {
        Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.parse(name)): PreparedTarget((0.0, 0.0, 0.0), severity)
        for name, severity in severities.items()
    }
    return PreparedCase("a", "a", (), discs=dict.fromkeys(DISCS[:5], (0.0, 0.0, 0.0)), targets=targets)


def test_a_disc_graded_worse_than_normal_is_no_base(tmp_path: Path) -> None:
    rows = ["053,L1/L2,disc_bulge", "053,L2,vertebra_normal", "053,L2/L3,disc_protrusion", "053,L3/L4,", "053,L4/L5,disc_normal"]
    (tmp_path / "points.csv").write_text("\n".join(["image,structure,grade", *rows]) + "\n", encoding="utf-8")
    grades = disc_grades(tmp_path / "points.csv")
    assert list(grades) == ["053"]
    assert base_levels(case(), grades["053"]) == (Level.L4_L5,)


def test_a_canal_graded_worse_than_mild_is_no_base() -> None:
    graded = case(l1_l2=Severity.NORMAL_MILD, l2_l3=Severity.MODERATE, l3_l4=Severity.SEVERE)
    assert base_levels(graded) == (Level.L1_L2, Level.L4_L5)


def test_ungraded_scans_offer_every_disc_but_those_that_are_not_graded() -> None:
    assert base_levels(case()) == (Level.L1_L2, Level.L2_L3, Level.L3_L4, Level.L4_L5)


def test_a_table_without_grades_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("image,structure\n053,L1/L2\n", encoding="utf-8")
    with pytest.raises(TableError, match="grade"):
        disc_grades(tmp_path / "points.csv")
