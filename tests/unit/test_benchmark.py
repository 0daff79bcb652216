from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from tiny_rsna2024 import write_data
from tiny_studies import write_study

from monai_spine.studies.rsna2024_prepare import prepare
from monai_spine.training.grading_crops import GradingCrops
from monai_spine.training.simulated_lesions import RandSimulateLesiond

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")  # a process that it starts looks there too
        yield importlib.import_module("benchmark")


@pytest.fixture(scope="module")
def training_benchmark(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("training_benchmark")


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


@pytest.fixture(scope="module")
def rsna2024(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("rsna2024") / "data", studies=2)


@pytest.mark.filterwarnings("default")  # MONAI warns of readers that are not installed
def test_both_ways_of_training_see_the_same_crops(training_benchmark, rsna2024: Path, tmp_path: Path) -> None:
    data = training_benchmark.few_studies(rsna2024, tmp_path / "data", studies=1)
    items = training_benchmark.prepared_items(data, prepare(data, tmp_path / "prepared").path.parent)
    crop = json.loads((BUNDLES / training_benchmark.GRADER / "configs" / "train.json").read_text())["crop"]
    kept, cut = GradingCrops(items, crop), training_benchmark.PlainCrop(crop, None)
    assert len(kept) == len(items) == 10
    for at, item in enumerate(items):
        read = LoadImaged("image", reader="PydicomReader", image_only=True)({**item, "image": item["series"]})
        np.testing.assert_allclose(cut(read)["image"][0], kept.crop(at), atol=0.5)


@pytest.mark.filterwarnings("default")  # MONAI warns of readers that are not installed
def test_training_is_held_against_reading_dicom_each_time(
    training_benchmark, rsna2024: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(training_benchmark, "STUDIES", 1)
    monkeypatch.setattr(training_benchmark, "THREADS", torch.get_num_threads())
    plain, bundle, ratio, first, _, plain_wait, bundle_wait, _ = training_benchmark.training(
        tmp_path, dicom=rsna2024, matrix=64, repeats=1
    )
    assert "10 crops of 1 studies" in plain.name
    assert ratio.value == pytest.approx(bundle.value / plain.value)
    assert (ratio.target, ratio.at_least) == (2.0, True)
    assert first.value < ratio.value
    assert 0 < bundle_wait.value < 100
    assert 0 < plain_wait.value < 100


@pytest.mark.filterwarnings("default")  # MONAI warns of readers that are not installed
def test_a_lesion_is_held_against_an_elastic_deformation_of_the_same_crop(benchmark: ModuleType, tmp_path: Path) -> None:
    module = importlib.import_module("lesion_benchmark")
    example = module.lesion_example(tmp_path / "a")
    assert example["image"].shape == (1, *module.SHAPE)
    assert "share" in RandSimulateLesiond(seed=0)(example)["lesion"], "a lesion is drawn, and not refused"
    elastic, ours, slow, ratio = module.lesions(tmp_path / "b", repeats=2)
    assert ours.target == 30.0
    assert ratio.value == pytest.approx(ours.value / elastic.value)
    assert slow.value >= ours.value


def test_the_table_names_targets_and_the_machine(benchmark):
    measures = [benchmark.Measure("Peak memory", 3.5, "GB", 3.0), benchmark.Measure("Bare", 0.1234, "s")]
    measures += [benchmark.Measure("Ratio", value, "", 2.0, at_least=True) for value in (1.9, 2.1)]
    text = benchmark.document(measures, "one")
    assert "| Peak memory | 3.50 GB | ≤ 3 GB |" in text
    assert "| Bare | 0.12 s |  |" in text
    assert "cores" in text
    assert "| Ratio | 1.90 | ≥ 2 |" in text
    assert "data_wait_share" in text, "how to measure on a GPU"
    assert [measure.missed for measure in measures] == [True, False, True, False]
