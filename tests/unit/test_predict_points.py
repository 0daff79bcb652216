"""Targets are placed where an analysis looks, and keep their grades."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_bundles import write_bundles
from tiny_prepared import write_tiny_prepared

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from predict_points import main, placers

from monai_spine.grades import grade_targets
from monai_spine.level_inference import localize_levels
from monai_spine.models import load_models
from monai_spine.studies.prepared import PreparedCase, read_datalist
from monai_spine.training.grading_crops import items_of
from monai_spine.volume import load_nifti


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)


@pytest.fixture(scope="module")
def placed(prepared: Path, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("points")
    assert main([str(prepared), "-o", str(out), "--bundles", str(bundles)]) == 0
    return out


def validation_case(folder: Path) -> PreparedCase:
    (case,) = read_datalist(folder).cases_of("validation")
    return case


def test_points_are_those_of_an_analysis_and_grades_stay(prepared: Path, bundles: Path, placed: Path) -> None:
    before, after = validation_case(prepared), validation_case(placed)
    volumes = {volume.role: (load_nifti(prepared / volume.image),) for volume in before.volumes}
    models = load_models(bundles)
    levels = localize_levels([volumes["sagittal_t2"][0], volumes["sagittal_t1"][0]], models.localizer)
    expected = {g.target: g for g in grade_targets(before.targets, levels, volumes, models.graders) if g.status == "graded"}
    assert set(after.targets) == set(expected)
    assert len(expected) >= 20
    for target, found in after.targets.items():
        assert found.point_ras_mm == pytest.approx(expected[target].point_ras_mm, abs=1e-3)
        assert found.severity is before.targets[target].severity
    assert any(found.point_ras_mm != before.targets[target].point_ras_mm for target, found in after.targets.items())


def test_only_one_split_is_placed_and_its_images_are_found(placed: Path) -> None:
    assert {name: len(cases) for name, cases in read_datalist(placed).splits.items()} == {
        "training": 0,
        "validation": 1,
        "test": 0,
    }
    for condition, placer in placers().items():
        items = items_of(placed, "validation", condition=condition.slug, role=placer.spec.role)
        assert items
        assert all(Path(item["image"]).is_file() for item in items)


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "cannot be read as a data list" in capsys.readouterr().err
