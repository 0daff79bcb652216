from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tiny_studies import write_study


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "tools")  # a process that it starts looks there too
        yield importlib.import_module("benchmark")


def test_reading_is_held_against_pydicom_on_the_same_files(benchmark, tmp_path):
    bare, ours, ratio = benchmark.reading(write_study(tmp_path / "study"), repeats=1)
    assert "15 files" in bare.name
    assert ratio.value == pytest.approx(ours.value / bare.value)
    assert ratio.target == 1.5


def test_levels_are_found_alone_in_a_process_of_its_own(benchmark, tmp_path):
    study = benchmark.write_study(tmp_path / "study", slices=9, matrix=192)
    seconds, memory = benchmark.levels_alone(study, argparse.Namespace(repeats=1, bundles=None))
    assert "9 × 192 × 192 voxels" in seconds.name or "192 × 192 × 9 voxels" in seconds.name
    assert (seconds.target, memory.target) == (1.5, 1.5)
    assert 0.1 < memory.value < 8, "of the process that ran the networks, in GB"


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
