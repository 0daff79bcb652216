from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tiny_studies import write_study


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark"] = module
    spec.loader.exec_module(module)
    return module


def test_reading_is_held_against_pydicom_on_the_same_files(benchmark, tmp_path):
    bare, ours, ratio = benchmark.reading(write_study(tmp_path / "study"), repeats=1)
    assert "15 files" in bare.name
    assert ratio.value == pytest.approx(ours.value / bare.value)
    assert ratio.target == 1.5


def test_preparing_is_held_against_nibabel_on_the_same_files(benchmark, tmp_path):
    study = benchmark.write_study(tmp_path / "data" / "train_images" / "1", slices=4, matrix=32)
    bare, ours, ratio, all_files = benchmark.preparing(study, tmp_path, repeats=1)
    written = sorted(path.name for path in (tmp_path / "prepared" / "volumes" / "1").glob("*.nii.gz"))
    assert all_files.value == pytest.approx(ours.value / 12 * 147_320 / 60)
    assert written == ["sagittal_t2_0.nii.gz", "sagittal_t2_1.nii.gz", "sagittal_t2_2.nii.gz"]
    assert ratio.value == pytest.approx(ours.value / bare.value)
    assert ratio.target == 1.5


def test_the_table_names_targets_and_the_machine(benchmark):
    measures = [benchmark.Measure("Peak memory", 3.5, "GB", 3.0), benchmark.Measure("Bare", 0.1234, "s")]
    text = benchmark.document(measures, "one")
    assert "| Peak memory | 3.50 GB | ≤ 3 GB |" in text
    assert "| Bare | 0.12 s |  |" in text
    assert "cores" in text
    assert [measure.missed for measure in measures] == [True, False]
