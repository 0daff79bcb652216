"""`lumbar_condition_classification`: one crop for all conditions, sides told apart, and what its configs and documents say."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_prepared import ROLE_OF, write_tiny_prepared

from monai_spine.anatomy import KINDS, TARGETS, Condition, Severity, Side, Target
from monai_spine.errors import AnatomyError
from monai_spine.listings import bundle_lines, verified_lines
from monai_spine.studies.prepared import read_datalist, write_datalist
from monai_spine.training.condition_crops import ConditionCrops, condition_items
from monai_spine.training.losses import MISSING
from monai_spine.weights import find_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAME = "lumbar_condition_classification"
UNGRADED = Target(Condition.SUBARTICULAR_STENOSIS, Side.LEFT, TARGETS[0].level)

pytestmark = pytest.mark.filterwarnings("default")


def config(file: str) -> dict[str, Any]:
    return json.loads((BUNDLES / NAME / "configs" / f"{file}.json").read_text())


CROP = config("train")["crop"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case per split, each with one target that nobody graded."""
    folder = write_tiny_prepared(tmp_path_factory.mktemp("prepared"), cases=1)
    datalist = read_datalist(folder)
    cases = [
        replace(case, targets={**case.targets, UNGRADED: replace(case.targets[UNGRADED], severity=None)})
        for case in datalist.cases
    ]
    write_datalist(folder, study=datalist.study, source=datalist.source, cases=cases, splits=datalist.splits)
    return folder


@pytest.fixture(scope="module")
def items(prepared: Path) -> list[dict[str, Any]]:
    return condition_items(prepared, "training", roles=CROP["roles"])


def test_every_target_with_a_point_is_there_graded_or_not(items: list[dict[str, Any]]) -> None:
    assert {item["target"] for item in items} == {target.slug for target in TARGETS}
    assert [item["target"] for item in items if item["label"] == MISSING] == [UNGRADED.slug]


def test_each_condition_is_cut_from_its_own_series(items: list[dict[str, Any]]) -> None:
    assert CROP["roles"] == {condition.slug: role for condition, role in ROLE_OF.items()}
    assert all(f"{ROLE_OF[Target.parse(item['target']).condition]}_0.nii" in item["image"] for item in items)


def test_an_unknown_condition_among_the_roles_is_refused(prepared: Path) -> None:
    with pytest.raises(AnatomyError, match=r"Unknown condition 'canal_stenosis'.*spinal_canal_stenosis"):
        condition_items(prepared, "training", roles={"canal_stenosis": "sagittal_t2"})


def test_labels_say_condition_side_and_severity(items: list[dict[str, Any]]) -> None:
    crops = ConditionCrops(items, CROP)
    assert len(crops) == 25
    for at, item in enumerate(items):
        example = crops[at]
        target = Target.parse(item["target"])
        assert example["label"].tolist() == [KINDS.index(target.kind), item["label"]]
        assert example["image"].shape == (1, *CROP["shape"])


def test_right_sides_are_not_mirrored(items: list[dict[str, Any]]) -> None:
    """The canal, bright in the tiny cases, lies to the right of a left finding and to the left of a right one."""
    crops = ConditionCrops(items, CROP)
    half = CROP["shape"][0] // 2
    seen = Counter()
    for at, item in enumerate(items):
        side = Target.parse(item["target"]).side
        if side is not None:
            image = crops[at]["image"][0]
            seen[side, bool(image[half:].mean() > image[:half].mean())] += 1
    assert seen == {(Side.LEFT, True): 10, (Side.RIGHT, False): 10}


def test_a_crop_that_is_flipped_becomes_one_of_the_other_side(items: list[dict[str, Any]]) -> None:
    still, flipping = ConditionCrops(items, CROP), ConditionCrops(items, CROP, jitter={"flip": True})
    flips = Counter()
    for at, item in enumerate(items * 3):
        at %= len(items)
        target, plain, example = Target.parse(item["target"]), still[at], flipping[at]
        flipped = not torch.equal(example["image"], plain["image"])
        expected = target.mirrored if flipped else target
        assert example["label"].tolist() == [KINDS.index(expected.kind), item["label"]]
        assert example["target"] == expected.slug
        assert torch.equal(example["image"], plain["image"].flip(1) if flipped else plain["image"])
        flips[flipped] += 1
    assert min(flips[True], flips[False]) > 20


def test_training_and_inference_see_the_same_crops_by_the_same_network() -> None:
    train, inference = config("train"), config("inference")
    for key in ("crop", "network_def", "features", "dropout"):
        assert train[key] == inference[key]
    assert train["validate"]["preprocessing"]["transforms"][0] == inference["preprocessing"]["transforms"][0]
    assert train["normalize"] == inference["preprocessing"]["transforms"][1]


def test_channels_of_the_metadata_are_those_of_the_vocabulary() -> None:
    channels = config("metadata")["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values()) == [*(kind.slug for kind in KINDS), *(severity.label for severity in Severity)]


def test_it_is_listed_as_trained_on_simulated_images_and_its_weights_are_verified() -> None:
    lines = bundle_lines(BUNDLES)
    at = lines.index(f"{NAME} {config('metadata')['version']}: trained on simulated data")
    assert lines[at + 1].strip() == config("metadata")["notice"]
    assert "trained on simulated images: shows the path, grades no patient" in config("metadata")["notice"]
    assert [line.split(": ok")[0] for line in verified_lines(BUNDLES, [NAME])] == [
        f"{NAME}/models/model.pt",
        f"{NAME}/models/model.ts",
    ]
    assert find_bundle(NAME, BUNDLES).training_data == "simulated"


def test_training_evaluation_and_inference_follow_each_other(prepared: Path, tmp_path: Path) -> None:
    places = {"dataset_dir": str(prepared), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    finished("train", ["train"], "training", epochs=1, batch_size=8, **places)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    metrics = finished("train", ["train", "evaluate"], "evaluating", **places).evaluator.state.metrics
    heads = {f"{head}_{what}" for head in ("condition", "severity") for what in ("log_loss", "accuracy", "macro_f1")}
    assert set(metrics) == {"log_loss", *heads}
    assert metrics["log_loss"] == pytest.approx(metrics["condition_log_loss"] + metrics["severity_log_loss"])
    finished("infer", ["inference"], "run", **places)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert {row["target"] for row in rows} == {target.slug for target in TARGETS}
    graded = [row for row in rows if row["true_severity"]]
    assert len(graded) == 24
    for head, judged in (("condition", rows), ("severity", graded)):
        share = np.mean([row[head] == row[f"true_{head}"] for row in judged])
        assert metrics[f"{head}_accuracy"] == pytest.approx(share)


def finished(kind: str, configs: list[str], run_id: str, **changes: object) -> ConfigWorkflow:
    folder = BUNDLES / NAME / "configs"
    flow = ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(folder / f"{name}.json") for name in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=False,
        run_id=run_id,
        **changes,
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow
