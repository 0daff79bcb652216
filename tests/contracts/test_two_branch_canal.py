"""Canal grading on sagittal and axial T2 together: the overlay trains, and what it makes analyses studies that lack either."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_bundles import write_bundles
from tiny_prepared import write_tiny_prepared
from tiny_studies import AXIAL_T2, SAGITTAL_T1, SAGITTAL_T2, write_study

import monai_spine.report
from monai_spine.anatomy import Condition
from monai_spine.branches import Views, crop_specs
from monai_spine.crops import best_block, crop_block
from monai_spine.errors import WeightsError
from monai_spine.models import load_models
from monai_spine.pipeline import Analysis, analyze
from monai_spine.report.writing import write_result
from monai_spine.studies.prepared import read_datalist, write_datalist
from monai_spine.training.branch_crops import BranchCrops
from monai_spine.training.grading_crops import items_of
from monai_spine.volume import load_nifti
from monai_spine.weights import find_bundle, verify_bundle

ROOT = Path(__file__).resolve().parents[2]
NAME = "spinal_canal_stenosis_grading"
CONFIGS = ROOT / "bundles" / NAME / "configs"
OVERLAY = "two_branch_canal"
ROLES = ["sagittal_t2", "axial_t2"]
SCHEMA = Path(monai_spine.report.__file__).parent / "result.schema.json"

pytestmark = pytest.mark.filterwarnings("default")


def with_overlay(config: str, where: str, *others: str) -> list[str]:
    overlays = [ROOT / "configs" / where / f"{OVERLAY}.json", *(ROOT / "configs" / where / f"{name}.json" for name in others)]
    return [str(CONFIGS / f"{config}.json"), *map(str, overlays)]


def run(kind: str, run_id: str, configs: list[str], **changes: Any) -> ConfigWorkflow:
    flow = ConfigWorkflow(workflow_type=kind, config_file=configs, logging_file=False, run_id=run_id, **changes)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with both series for each split; a training case without axial slices, and one without sagittal T2."""
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)
    datalist = read_datalist(folder)
    whole = datalist.cases[0]
    lacking = [
        replace(whole, case=f"no_{role}", patient=role, volumes=tuple(one for one in whole.volumes if one.role != role))
        for role in ROLES
    ]
    splits = {split: list(names) for split, names in datalist.splits.items()}
    splits["training"] += [case.case for case in lacking]
    write_datalist(folder, study="tiny", source="simulated", cases=[*datalist.cases, *lacking], splits=splits)
    return folder


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> ConfigWorkflow:
    out = tmp_path_factory.mktemp("run")
    places = {"dataset_dir": str(prepared), "output_dir": str(out), "ckpt_path": str(out / "model.pt")}
    configs = with_overlay("train", "training")
    return run("train", "training", configs, epochs=1, batch_size=8, device=torch.device("cpu"), **places)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("variant_bundle", ROOT / "tools" / "variant_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundles(trained: ConfigWorkflow, tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for what finds the levels, and the trained two-branch grader as the tool packs it."""
    folder = write_bundles(tmp_path_factory.mktemp("bundles") / "all")
    shutil.rmtree(folder / NAME)
    weights = Path(trained.parser.get_parsed_content("ckpt_path"))
    given = [OVERLAY, "-o", str(folder), "--bundle", NAME, "--weights", str(weights), "--trained-on", "made-up cylinders"]
    assert tool.main(given) == 0
    return folder


def graded(folder: Path, bundles: Path, series: list[Any]) -> Analysis:
    return analyze(write_study(folder, series), models=load_models(bundles, device="cpu"))


@pytest.fixture(scope="module")
def whole(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A study with all three series."""
    return graded(tmp_path_factory.mktemp("studies") / "whole", bundles, [SAGITTAL_T1, SAGITTAL_T2, AXIAL_T2])


def canal(analysis: Analysis) -> dict[str, Any]:
    """The canal's entry of result.json at L3/L4, which the made-up series all show."""
    content = analysis.result.to_json()
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    kept = [one for one in content["grades"] if one["condition"] == "spinal_canal_stenosis" and one["level"] == "L3/L4"]
    return kept[0]


def test_both_overlays_say_the_same_of_crop_and_network() -> None:
    train = ConfigParser.load_config_files(with_overlay("train", "training"))
    inference = ConfigParser.load_config_files(with_overlay("inference", "inference"))
    for key in ("crop", "network_def", "condition", "dropout", "branch_dropout"):
        assert train[key] == inference[key]


def test_the_first_branch_sees_what_the_shipped_grader_sees() -> None:
    shipped = ConfigParser.load_config_files([str(CONFIGS / "train.json")])["crop"]
    first, second = crop_specs(ConfigParser.load_config_files(with_overlay("train", "training"))["crop"])
    assert (first,) == crop_specs(shipped)
    assert second.role == "axial_t2"
    assert second.offset_mm == first.offset_mm


def test_training_and_inference_crops_agree(prepared: Path, bundles: Path) -> None:
    bundle = find_bundle(NAME, bundles)
    specs = crop_specs(bundle.config("crop"))
    parser = ConfigParser()
    parser.read_config(with_overlay("train", "training"))
    datalist = read_datalist(prepared)
    items = items_of(prepared, "training", condition="spinal_canal_stenosis", role=parser["crop"]["role"])
    examples = BranchCrops(items, parser["crop"], parser.get_parsed_content("validate#preprocessing"))
    assert len(examples) == 15
    for at, item in enumerate(items):
        case = next(one for one in datalist.cases if one.case == item["case"])
        crops = []
        for spec in specs:
            blocks = [load_nifti(datalist.root / one.image) for one in case.volumes if one.role == spec.role]
            point = item["point_ras_mm"]
            block = best_block(blocks, point, size_mm=spec.size_mm) if blocks else None
            crops.append(None if block is None else crop_block(block, point, size_mm=spec.size_mm, shape=spec.shape))
        views = Views(tuple(crops), tuple(spec.shape for spec in specs))
        fed = np.asarray(bundle.preprocessing({"image": torch.from_numpy(views.image)})["image"])
        assert fed.shape == (2, *specs[0].shape)
        assert [np.isnan(channel).all() for channel in fed] == [role not in item["files"] for role in ROLES]
        np.testing.assert_allclose(np.asarray(examples[at]["image"]), fed, atol=2e-3)


def test_the_overlay_trains_both_branches_on_whatever_there_is(trained: ConfigWorkflow) -> None:
    network = trained.parser.get_parsed_content("network_def")
    dataset = trained.parser.get_parsed_content("train#dataset")
    assert [dataset.items[at]["case"] for at in (0, 5, 10)] == ["100", "no_sagittal_t2", "no_axial_t2"]
    assert all(torch.isfinite(one.grad).all() for one in network.parameters())
    firsts = [trunk.features.conv0.weight for trunk in network.trunks]
    assert all(float(one.grad.norm()) > 0 for one in [*firsts, network.stand_ins, network.class_layers.out.weight])


def test_evaluation_and_other_overlays_go_with_it(prepared: Path, trained: ConfigWorkflow, tmp_path: Path) -> None:
    weights = str(trained.parser.get_parsed_content("ckpt_path"))
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "device": torch.device("cpu")}
    save = str(ROOT / "configs" / "training" / "save_predictions.json")
    configs = [*with_overlay("train", "training"), str(CONFIGS / "evaluate.json"), save]
    run("train", "evaluating", configs, ckpt_path=weights, split="training", **places)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 15
    assert all(abs(sum(float(row[name]) for name in ("normal_mild", "moderate", "severe")) - 1) < 1e-4 for row in rows)
    second = with_overlay("train", "training", "mixing", "weighted_head")
    out = {"output_dir": str(tmp_path / "two"), "ckpt_path": str(tmp_path / "two" / "model.pt")}
    run("train", "training", second, epochs=1, batch_size=8, mixing_prob=1.0, pretrained=weights, **{**places, **out})
    before, after = (torch.load(path, weights_only=True) for path in (weights, out["ckpt_path"]))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert all(name.startswith("class_layers.") for name in moved)


def test_the_packed_bundle_is_whole_and_says_where_it_comes_from(bundles: Path) -> None:
    bundle = find_bundle(NAME, bundles)
    assert set(verify_bundle(bundle)) == {"models/model.pt", "models/model.ts"}
    assert (bundle.training_data, "made-up cylinders" in bundle.notice) == ("made-up cylinders", True)
    assert bundle.metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 2
    crops = torch.randn(3, 2, *crop_specs(bundle.config("crop"))[0].shape)
    crops[0, 0] = crops[1, 1] = float("nan")
    scripted = torch.jit.load(bundle.root / "models" / "model.ts")
    with torch.inference_mode():
        torch.testing.assert_close(scripted(crops), bundle.network()(crops), atol=1e-4, rtol=1e-4)
    run_again = json.loads((bundle.root / "configs" / "train.json").read_text())
    assert run_again["crop"]["role"] == ROLES


def test_a_study_with_both_series_is_graded_on_both(whole: Analysis) -> None:
    assert (canal(whole)["status"], canal(whole)["reason"]) == ("graded", None)
    views = next(one.views for one in whole.result.grades if one.target.slug == "spinal_canal_stenosis_l3_l4")
    assert [crop.array.shape for crop in views.crops] == [(16, 88, 60), (88, 60, 16)]


def test_a_study_without_axial_slices_is_graded_on_the_sagittal_ones(bundles: Path, whole: Analysis, tmp_path: Path) -> None:
    found = graded(tmp_path / "sagittal", bundles, [SAGITTAL_T1, SAGITTAL_T2])
    one = canal(found)
    assert (one["status"], one["reason"]) == ("graded", "graded on sagittal T2 alone: the study has no axial T2 series")
    assert one["probabilities"] != canal(whole)["probabilities"]
    write_result(found.result, found.images, tmp_path / "out", formats=["html", "csv"])
    assert "graded on sagittal T2 alone" in (tmp_path / "out" / "report.html").read_text()
    assert "graded on sagittal T2 alone" in (tmp_path / "out" / "grades.csv").read_text()


def test_a_study_without_sagittal_t2_is_graded_on_the_axial_slices(bundles: Path, tmp_path: Path) -> None:
    found = graded(tmp_path / "axial", bundles, [SAGITTAL_T1, AXIAL_T2])
    one = canal(found)
    assert (one["status"], one["reason"]) == ("graded", "graded on axial T2 alone: the study has no sagittal T2 series")
    axial = next(role for role in found.result.series if role.role is not None and role.role.value == "axial_t2")
    assert one["series_instance_uid"] == axial.series_instance_uid
    write_result(found.result, found.images, tmp_path / "out", formats=["html", "png"])
    assert "middle axial slice · Axial T2" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_with_neither_is_not_assessable_with_both_reasons(bundles: Path, tmp_path: Path) -> None:
    one = canal(graded(tmp_path / "neither", bundles, [SAGITTAL_T1]))
    assert one["status"] == "not_assessable"
    assert one["reason"] == "the study has no sagittal T2 series; the study has no axial T2 series"


def test_the_other_conditions_are_graded_as_ever(whole: Analysis, tmp_path: Path) -> None:
    expected = analyze(Path(whole.result.source), models=load_models(write_bundles(tmp_path / "plain"), device="cpu"))
    for one, other in zip(whole.result.grades, expected.result.grades, strict=True):
        if one.target.condition is not Condition.SPINAL_CANAL_STENOSIS:
            assert one.probabilities == other.probabilities


def test_the_tool_refuses_what_would_not_work(tool: ModuleType, bundles: Path, tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    given = {"bundle": NAME, "weights": tmp_path / "other.pt", "trained_on": "nothing"}
    before = (bundles / NAME / "configs" / "metadata.json").read_bytes()
    with pytest.raises(WeightsError, match="do not fit the network"):
        tool.write_variant(OVERLAY, bundles, **given)
    assert (bundles / NAME / "configs" / "metadata.json").read_bytes() == before
    assert not list(bundles.glob(".*"))
    with pytest.raises(WeightsError, match=r"no overlay 'two_branches'.*two_branch_canal"):
        tool.write_variant("two_branches", bundles, **given)
    with pytest.raises(WeightsError, match="no weights at"):
        tool.write_variant(OVERLAY, bundles, **{**given, "weights": tmp_path / "none.pt"})
    assert tool.main([OVERLAY, "-o", str(ROOT / "bundles"), "--bundle", NAME, "--weights", "w.pt", "--trained-on", "x"]) == 2
