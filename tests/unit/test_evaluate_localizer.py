"""The evaluation of the localiser: what is cut off, what is left out, and how its tables count."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_prepared import write_tiny_prepared

from monai_spine.anatomy import Level
from monai_spine.geometry import apply_affine, invert_affine, lies_inside
from monai_spine.studies.prepared import read_datalist
from monai_spine.volume import Volume

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from localizer_evaluation.experiments import BUNDLES, RANDOMISATION, REPOSITORY, Training, split, training_command, weights_of
from localizer_evaluation.looks import cuts
from localizer_evaluation.tables import calibration_error, report

DISCS = {level: (1.0, -4.5 * at, 60.5 - 35.0 * at) for at, level in enumerate(list(Level)[1:])}


def scan(*, upside_down: bool) -> Volume:
    """16 slices of 4 mm, 60 × 120 pixels of 2 mm, each voxel with a value of its own; stored head first or feet first."""
    affine = np.diag([4.0, 2.0, -2.0 if upside_down else 2.0, 1.0])
    affine[:3, 3] = (-30, -60, 120 if upside_down else -118)
    return Volume(np.arange(16 * 60 * 120, dtype=np.float32).reshape(16, 60, 120), affine)


def values_at(volume: Volume, point: tuple[float, float, float]) -> float:
    i, j, k = np.rint(apply_affine(invert_affine(volume.affine), point)).astype(int)
    return float(volume.array[i, j, k])


@pytest.mark.parametrize("upside_down", [False, True])
def test_what_is_cut_off_is_gone_and_the_rest_stays_where_it_was(upside_down: bool) -> None:
    whole = scan(upside_down=upside_down)
    found = cuts(whole, DISCS)
    assert set(found) == {"above the sacrum", "below L2", "one side", "three slices"}
    gone = {"above the sacrum": {Level.L5_S1}, "below L2": {Level.L1_L2}}
    for name, cut in found.items():
        inside = {level for level, point in DISCS.items() if lies_inside(np.asarray(point), cut.affine, cut.array.shape)}
        assert inside == set(DISCS) - gone.get(name, set())
        assert all(values_at(cut, DISCS[level]) == values_at(whole, DISCS[level]) for level in inside)
    assert found["three slices"].array.shape == (3, 60, 120)
    assert found["one side"].array.shape[0] < 13


def how() -> Training:
    base = {kind: Path("base.pt") for kind in BUNDLES}
    return Training(Path("phantom"), base, dict.fromkeys(BUNDLES, 3), {kind: ["--seed", "1"] for kind in BUNDLES})


def experiment(folder: Path, name: str) -> Path:
    path = folder / name / "lumbar_volumes" / "datalist.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return folder / name


def test_without_phantom_nothing_has_seen_it(tmp_path: Path) -> None:
    plain = training_command(experiment(tmp_path, "fold_0"), "namer", how())
    assert "'phantom'" in plain[plain.index("--dataset_dir") + 1]
    assert "--pretrained" in plain
    without = training_command(experiment(tmp_path, "fold_0_without_phantom"), "namer", how())
    assert "'phantom'" not in without[without.index("--dataset_dir") + 1]
    assert "--pretrained" not in without


@pytest.mark.parametrize("kind", BUNDLES)
def test_without_randomisation_every_transform_of_intensities_is_off(kind: str) -> None:
    config = json.loads((REPOSITORY / "bundles" / BUNDLES[kind] / "configs" / "train.json").read_text(encoding="utf-8"))
    transforms = config["train"]["augmentation"]["transforms"]
    with_chance = [at for at, transform in enumerate(transforms) if "prob" in transform]
    assert list(RANDOMISATION[kind]) == with_chance


def test_another_study_goes_on_from_the_weights_that_never_saw_it(tmp_path: Path) -> None:
    command = training_command(experiment(tmp_path, "reuse_VB3_4"), "namer", how())
    assert command[command.index("--pretrained") + 1] == str(tmp_path / "without_VB3" / "namer.pt")
    assert "finetune_naming.json" in command[command.index("--config_file") + 1]
    assert "--epochs" not in command


def test_an_ablation_looks_with_its_fold_s_other_networks(tmp_path: Path) -> None:
    fold, ablation = experiment(tmp_path, "fold_1"), experiment(tmp_path, "fold_1_without_phantom")
    for path in (*(fold / f"{kind}.pt" for kind in BUNDLES), ablation / "namer.pt"):
        path.touch()
    assert weights_of(ablation) == {
        "localizer": fold / "localizer.pt",
        "namer": ablation / "namer.pt",
        "refiner": fold / "refiner.pt",
    }


def test_a_reused_part_looks_with_what_it_has_not_trained_itself(tmp_path: Path) -> None:
    start, reuse = experiment(tmp_path, "without_VB3"), experiment(tmp_path, "reuse_VB3_4")
    for path in (*(start / f"{kind}.pt" for kind in BUNDLES), reuse / "namer.pt"):
        path.touch()
    assert [weights_of(reuse)[kind].parent.name for kind in BUNDLES] == ["without_VB3", "reuse_VB3_4", "without_VB3"]


def test_the_calibration_error_is_how_far_bins_are_from_what_came_true() -> None:
    confidence = pd.Series([0.95] * 10 + [0.55] * 10)
    right = pd.Series([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert calibration_error(confidence, right) == pytest.approx((0.15 + 0.05) / 2)


def test_tables_count_missing_levels_as_wrong_and_name_what_was_cut_away() -> None:
    def row(look: str, name: str, mm: float, confidence: float | None, is_there: bool = True) -> dict[str, object]:
        about = {"study": "lumbar_volumes", "case": "a", "look": look, "limit_mm": 10.0}
        return {**about, "name": name, "mm": mm, "confidence": confidence, "is_there": is_there, "without_sacrum": False}

    rows = [row("whole", "L4/L5", 2.0, 0.9), row("whole", "L5/S1", np.inf, None)]
    rows += [row("above the sacrum", "L4/L5", 1.0, 0.8), row("above the sacrum", "L5/S1", np.inf, 0.4, False)]
    rows += [{"study": "lumbar_volumes", "case": "a", "look": "above the sacrum", "name": "sacrum_not_seen", "value": 1.0}]
    rows += [{"study": "lumbar_volumes", "case": "a", "look": "above the sacrum", "name": "outside", "value": 0}]
    rows += [row("all parts", "L4/L5", 2.0, None)]
    text = report({"fold_0": pd.DataFrame(rows), "fold_1": pd.DataFrame(rows)})
    assert "| all folds | lumbar_volumes | 1 | 4 | 50.0% | 50.0% |" in text
    assert "| above the sacrum | 1 | 2 | 100.0% | 2 | 0 | 100.0% |" in text


def test_a_part_whose_bodies_nobody_has_drawn_has_no_dice() -> None:
    row = {"study": "lumbar_volumes", "case": "IVD_20", "look": "whole", "limit_mm": 10.0, "name": "L4/L5", "mm": 2.0}
    text = report({"without_IVD": pd.DataFrame([row | {"confidence": 0.9, "is_there": True, "without_sacrum": False}])})
    assert "| without_IVD | lumbar_volumes | 1 | 1 | 100.0% | 100.0% | 2.00 | 100.0% | – |" in text


def test_the_experiment_all_holds_nothing_out(tmp_path: Path) -> None:
    datalist = read_datalist(write_tiny_prepared(tmp_path / "tiny"))
    split([datalist], tmp_path / "folds")
    everything = read_datalist(tmp_path / "folds" / "all" / "tiny")
    assert len(everything.cases_of("training")) == len(datalist.cases) == 9
    assert not everything.cases_of("validation")
    held_out = [
        case.case for fold in range(5) for case in read_datalist(tmp_path / f"folds/fold_{fold}/tiny").cases_of("validation")
    ]
    assert sorted(held_out) == sorted(case.case for case in datalist.cases)
