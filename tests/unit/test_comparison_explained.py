"""Sheets of explained cases, of networks that learnt nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from tiny_prepared import write_tiny_prepared
from tiny_runs import write_tiny_runs

from monai_spine.anatomy import Condition
from monai_spine.comparison.contenders import contenders_of
from monai_spine.comparison.explained import explain_case
from monai_spine.comparison.plan import Plan
from monai_spine.comparison.questions import CONDITIONS
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import read_datalist
from monai_spine.weights import find_bundle

CANAL = GRADERS[Condition.SPINAL_CANAL_STENOSIS]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("study"), cases=3)


@pytest.fixture
def plan(study: Path, tmp_path: Path) -> Plan:
    contenders = contenders_of(["cnn"], [2], bundles=[CANAL])
    settings = {"crop#shape": [8, 24, 24]}
    return Plan(study, tmp_path / "out", (find_bundle(CANAL).root,), contenders, folds=3, settings=settings)


def case_of(plan: Plan, fold: int) -> str:
    """The first case of a fold's test."""
    return read_datalist(plan.fold(fold)).splits["test"][0]


def test_one_sheet_shows_all_contenders_and_two_each_of_them(plan: Plan) -> None:
    write_tiny_runs(plan)
    sheets = explain_case(plan, plan.bundles[0], f"{case_of(plan, 0)}:spinal_canal_stenosis_l4_l5", plan.output / "explained")
    assert [path.name.split("_")[0] for path in sheets] == ["grad", "features", "filters"]
    assert all(path.stat().st_size > 1000 for path in sheets)
    assert all("L4/L5" in caption for path, caption in sheets.items() if path.name.startswith("grad"))


def test_bundles_and_folds_do_not_write_over_each_other(plan: Plan) -> None:
    both = replace(plan, bundles=(*plan.bundles, find_bundle(CONDITIONS).root))
    write_tiny_runs(both)
    asked = [f"{case_of(both, fold)}:spinal_canal_stenosis_l4_l5" for fold in (0, 1)]
    written = [explain_case(both, root, case, both.output / "explained") for root, case in product(both.bundles, asked)]
    sheets = {path: caption for one in written for path, caption in one.items()}
    assert len(sheets) == sum(map(len, written)) == 3 + 3 + 4 + 4  # two questions are asked of a condition's crop
    filters = [path.read_bytes() for path in sheets if path.name.startswith("filters")]
    assert len(set(filters)) == len(filters) == 4
    assert len({caption for path, caption in sheets.items() if not path.name.startswith("grad")}) == 8
