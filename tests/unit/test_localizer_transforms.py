"""What the localiser's training sees, and what its loss and metrics count."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_spine.anatomy import DISCS
from monai_spine.geometry import affine_from_spacing, apply_affine, invert_affine
from monai_spine.grid import area_downsample
from monai_spine.level_inference import maps_of
from monai_spine.levels import BodyMap, LevelPoint, Levels
from monai_spine.training.localizer_handlers import LevelTable, SaveLevels, heatmap_picture
from monai_spine.training.localizer_loss import LocalizerLoss
from monai_spine.training.localizer_metrics import CAP_MM, BodyDice, CappedDistance, LevelAccuracy
from monai_spine.training.localizer_transforms import LoadBodiesd, LocalizerTargetd, RandContrastRemapd, RandViewd, heatmaps

SPACING = (4.0, 2.0, 2.0)
WINDOW = (12, 64, 96)
SHAPE = (14, 90, 110)
AFFINE = affine_from_spacing(SPACING, center_ras_mm=(10.0, -30.0, 5.0), shape=SHAPE)


def column() -> np.ndarray:
    discs = np.array([[12.0, -20.0, 93.0 - 35.0 * step] for step in range(6)])
    return np.concatenate([discs, discs - [0, 24.0, 0]]).astype(np.float32)


def example(points: np.ndarray | None = None) -> dict:
    """An image whose only bright spot lies at the third disc, and a label map with L3 around it."""
    points = column() if points is None else points
    spot = heatmaps(apply_affine(invert_affine(AFFINE), column()[2:3]), SHAPE, sigma=(1.0, 2.0, 2.0))
    bodies = (spot > 0.5).to(torch.uint8) * 3
    return {
        "image": MetaTensor(spot, affine=torch.as_tensor(AFFINE)),
        "bodies": MetaTensor(bodies, affine=torch.as_tensor(AFFINE)),
        "points": points,
        "estimated": np.zeros(12, bool),
        "marked": np.ones(7, np.float32),
        "case": "1",
        "study": "made up",
    }


def view(seed: int, data: dict | None = None, **settings: object) -> dict:
    looked = RandViewd(["image", "bodies"], WINDOW, SPACING, **{"cut_prob": 0.0, **settings})
    looked.set_random_state(seed)
    return looked(example() if data is None else data)


def test_heatmaps_peak_at_the_point_and_unknown_points_are_empty():
    maps = heatmaps(np.array([[3.0, 10.0, 20.0], [np.nan, 1.0, 1.0]]), (8, 32, 40), sigma=(1.25, 2.5, 2.5))
    assert np.unravel_index(int(maps[0].argmax()), (8, 32, 40)) == (3, 10, 20)
    assert float(maps[0].max()) == pytest.approx(1.0)
    assert float(maps[1].abs().max()) == 0.0


@pytest.mark.parametrize("seed", range(8))
def test_a_point_stays_on_its_structure_in_any_view(seed):
    seen = view(seed)
    place = apply_affine(invert_affine(np.asarray(seen["image"].affine)), column()[2])
    if ((place < 1) | (place > np.array(WINDOW) - 2)).any():
        pytest.skip("the spot lies outside this view")
    peak = np.unravel_index(int(seen["image"][0].argmax()), WINDOW)
    np.testing.assert_allclose(peak, place, atol=1.01)
    assert int(seen["bodies"][0][peak]) == 3


def test_views_are_mirrored_turned_and_scaled():
    affines = [np.asarray(view(seed)["image"].affine) for seed in range(12)]
    assert {bool(np.linalg.det(affine[:3, :3]) < 0) for affine in affines} == {True, False}
    edges = [np.linalg.norm(affine[:3, 2]) for affine in affines]
    assert min(edges) < 1.9
    assert max(edges) > 2.1
    assert max(abs(math.degrees(math.atan2(affine[1, 2], affine[2, 2]))) for affine in affines) > 5


def test_a_cut_leaves_nothing_beyond_and_no_heatmap_there():
    seen = view(3, cut_prob=1.0)
    low, high = seen["inside"].astype(int)
    outside = np.ones(WINDOW, bool)
    outside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = False
    assert float(seen["image"][0][torch.as_tensor(outside)].abs().max()) == 0.0
    affine = np.asarray(seen["image"].affine)
    answer = LocalizerTargetd("bodies", SPACING)(seen)
    for channel, point in enumerate(column()):
        place = apply_affine(invert_affine(affine), point)
        inside = ((place >= low - 0.5) & (place <= high - 0.5)).all()
        assert (float(answer["target"][channel].max()) > 0) == inside
    assert answer["weight"].tolist() == [1.0] * 18


def test_what_is_not_labelled_weighs_nothing_and_what_is_estimated_little():
    data = example(np.where(np.arange(12)[:, None] < 6, column(), np.nan).astype(np.float32))
    data["estimated"][4] = True
    data["marked"][5] = 0.0
    answer = LocalizerTargetd("bodies", SPACING, estimated_weight=0.25)(view(0, data))
    assert answer["weight"].tolist() == [1.0] * 4 + [0.25, 1.0] + [0.0] * 6 + [1.0] * 5 + [0.0]
    assert set(answer) == {"image", "target", "weight"}


def loss_of(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, **settings: float) -> float:
    return float(LocalizerLoss(**settings)(logits, {"target": target, "weight": weight}))


@pytest.mark.parametrize("channel", [3, 13])
def test_the_loss_ignores_channels_without_a_label(channel):
    torch.manual_seed(0)
    target, weight = torch.rand(2, 18, 4, 8, 8).round(), torch.ones(2, 18)
    weight[:, channel] = 0.0
    logits = torch.randn(2, 18, 4, 8, 8)
    changed = logits.clone()
    changed[:, channel] += 5.0
    assert loss_of(logits, target, weight) == pytest.approx(loss_of(changed, target, weight))


def test_a_neighbour_s_name_costs_more_than_the_right_one():
    target, weight = torch.zeros(1, 18, 2, 4, 4), torch.ones(1, 18)
    target[:, 1] = 1.0
    right, wrong = torch.zeros_like(target), torch.zeros_like(target)
    right[:, 1] = wrong[:, 2] = 3.0
    plain = loss_of(wrong, target, weight) - loss_of(right, target, weight)
    named = loss_of(wrong, target, weight, name_share=1.0) - loss_of(right, target, weight, name_share=1.0)
    assert named == pytest.approx(plain + 1.0, abs=1e-4)


def test_the_loss_of_a_batch_is_the_mean_of_its_examples():
    torch.manual_seed(0)
    logits, target, weight = torch.randn(2, 18, 4, 8, 8), torch.rand(2, 18, 4, 8, 8), torch.rand(2, 18).round()
    loss = LocalizerLoss()
    alone = [float(loss(logits[at : at + 1], {"target": target[at : at + 1], "weight": weight[at : at + 1]})) for at in range(2)]
    assert float(loss(logits, {"target": target, "weight": weight})) == pytest.approx(np.mean(alone), rel=1e-5)


def test_the_loss_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit target"):
        LocalizerLoss()(torch.zeros(1, 18, 2, 2, 2), {"target": torch.zeros(1, 17, 2, 2, 2), "weight": torch.ones(1, 18)})


def test_bodies_are_loaded_onto_the_image_s_grid(tmp_path):
    stored = np.zeros((30, 40, 6), np.uint8)
    stored[10:20, 10:30, 2:4] = 2
    affine = np.array([[0, 0, -4.0, 10], [0, -2.0, 0, 20], [-2.0, 0, 0, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "bodies.nii.gz")
    data = {**example(), "bodies": str(tmp_path / "bodies.nii.gz")}
    loaded = LoadBodiesd("bodies")(data)["bodies"]
    places = apply_affine(AFFINE, np.argwhere(np.asarray(loaded[0]) == 2))
    np.testing.assert_allclose(places.mean(0), apply_affine(affine, np.argwhere(stored == 2)).mean(0), atol=2.0)
    assert int(LoadBodiesd("bodies")({**data, "bodies": ""})["bodies"].max()) == 0


def test_air_stays_black_whatever_the_contrast():
    remap = RandContrastRemapd("image", prob=1.0)
    remap.set_random_state(0)
    for _ in range(5):
        changed = remap(example())["image"]
        assert float(changed[0][torch.as_tensor(np.asarray(example()["image"][0]) == 0)].abs().max()) == 0.0
        assert np.asarray(changed.affine).tolist() == AFFINE.tolist()


def test_an_inverted_contrast_makes_what_was_brightest_darkest_and_leaves_air_black():
    remap = RandContrastRemapd("image", prob=1.0, invert_prob=1.0)
    ramp = torch.linspace(0, 1, 11)[None]
    remap.set_random_state(0)
    changed = torch.stack([remap({"image": ramp})["image"][0] for _ in range(200)])
    assert float(changed[:, 0].abs().max()) == 0.0
    assert (changed[:, 2] > changed[:, 10]).float().mean() > 0.8


def test_averaging_keeps_places_in_space_and_the_mean():
    fine = torch.zeros(1, 8, 64, 64)
    fine[0, :, 20:24, 40:44] = 1.0
    affine = affine_from_spacing((4.0, 0.5, 0.5), center_ras_mm=(0.0, 0.0, 0.0), shape=(8, 64, 64))
    coarse = area_downsample(MetaTensor(fine, affine=torch.as_tensor(affine)), SPACING)
    assert tuple(coarse.shape) == (1, 8, 16, 16)
    place = apply_affine(np.asarray(coarse.affine), np.argwhere(np.asarray(coarse[0]) > 0).mean(0))
    np.testing.assert_allclose(place, apply_affine(affine, np.argwhere(fine[0].numpy() > 0).mean(0)), atol=1e-6)


def found(shift_mm: float, count: int = 6) -> Levels:
    points = [tuple(float(value) for value in np.add(point, [0, 0, shift_mm])) for point in column()]
    levels = [LevelPoint(DISCS[at], points[at], points[at + 6], 0.9) for at in range(count)]
    return Levels(tuple(levels), ())


def output(levels: Levels | None, study: str = "made up", case: str = "1", role: str = "sagittal_t2") -> dict:
    label = {
        "points": torch.as_tensor(column()),
        "estimated": torch.tensor([False] * 6 + [True] * 6),
        "bodies": "",
        "marked": torch.ones(7),
        "case": case,
        "study": study,
        "volume": f"volumes/{case}/{role}_0.nii",
        "role": role,
    }
    return {"label": label, "levels": levels, "image": MetaTensor(torch.zeros(1, 2, 2, 2))}


def test_levels_count_under_their_own_name_and_estimated_points_do_not():
    metric = LevelAccuracy()
    metric.update([output(found(3.0)), output(found(7.0, count=5), study="other", case="2")])
    result = metric.compute()
    assert result["all disc count"] == 12
    assert result["made up disc within 5 mm"] == 1.0
    assert result["other disc within 5 mm"] == 0.0
    assert result["other disc within 10 mm"] == pytest.approx(5 / 6)
    assert result["other disc median mm"] == pytest.approx(7.0, abs=1e-4)
    assert not any("canal" in name for name in result)


def test_each_level_and_each_kind_of_series_has_its_own_share():
    metric = LevelAccuracy(detailed=True)
    metric.update([output(found(3.0)), output(found(3.0, count=5), role="sagittal_t1"), output(found(7.0), case="2")])
    result = metric.compute()
    assert result["made up disc L1/L2 within 5 mm"] == pytest.approx(2 / 3)
    assert result["made up disc L5/S1 within 5 mm"] == pytest.approx(1 / 3)
    assert result["made up disc L5/S1 within 10 mm"] == pytest.approx(2 / 3)
    assert result["made up sagittal_t1 disc within 10 mm"] == pytest.approx(5 / 6)
    assert result["made up sagittal_t2 disc within 5 mm"] == pytest.approx(1 / 2)
    assert (result["made up cases"], result["made up volumes"]) == (2, 3)
    assert result["made up all discs within 5 mm"] == pytest.approx(1 / 3)
    assert result["made up all discs within 10 mm"] == pytest.approx(2 / 3)


def test_points_outside_the_scan_are_not_asked_for():
    element = output(found(3.0, count=5))
    affine = affine_from_spacing((4.0, 2.0, 2.0), center_ras_mm=(12.0, -20.0, 20.0), shape=(10, 60, 100))
    element["image"].meta.update(original_affine=affine, spatial_shape=np.array([10, 60, 100]))
    metric = LevelAccuracy()
    metric.update([element])
    assert metric.compute()["made up disc count"] == 5
    assert metric.compute()["made up disc within 5 mm"] == 1.0


def test_of_several_volumes_of_a_case_the_surest_counts_as_in_an_analysis():
    metric = LevelAccuracy()
    metric.update([output(found(3.0, count=5)), output(found(7.0), role="sagittal_t1"), output(found(3.0), case="2")])
    result = metric.compute()
    assert result["made up disc, surest volume of a case count"] == 12
    assert result["made up disc, surest volume of a case within 5 mm"] == 0.5


def test_a_missed_level_costs_the_cap_and_data_sets_count_alike():
    metric = CappedDistance()
    metric.update([output(found(2.0)), output(found(2.0), case="2"), output(None, study="other")])
    assert metric.compute() == pytest.approx((2.0 + CAP_MM) / 2, abs=1e-4)


def stored_bodies(tmp_path: Path, values: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(values.astype(np.uint8), affine), tmp_path / "bodies.nii.gz")
    return str(tmp_path / "bodies.nii.gz")


def test_dice_counts_the_bodies_that_are_drawn_only(tmp_path):
    values = np.zeros((4, 4, 4))
    values[0, 0, 0] = 3
    element = output(found(0.0))
    element["label"]["bodies"] = stored_bodies(tmp_path, values, np.eye(4))
    metric = BodyDice()
    metric.update([element, output(found(0.0), case="2")])
    assert metric.compute() == 0.0
    assert len(metric._rows) == 1


def test_dice_is_taken_on_the_grid_of_the_drawn_bodies_whatever_the_found_ones_lie_on(tmp_path):
    values = np.zeros((8, 8, 8))
    values[2:6, 2:6, 2:6], values[6:, 6:, 6:] = 7, 6
    coarse = np.zeros((2, 4, 4), np.uint8)
    coarse[:1, 1:3, 1:3] = 7
    affine = np.diag([4.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (0.5 + 1 + 2, 0.5, 0.5)
    element = output(replace(found(0.0), bodies=BodyMap(coarse, affine)))
    element["label"]["bodies"] = stored_bodies(tmp_path, values, np.eye(4))
    element["label"]["marked"] = torch.tensor([1.0, 1, 1, 1, 1, 0, 1])
    metric = BodyDice()
    metric.update([element])
    assert metric.compute() == 1.0
    assert [row[2] for row in metric._rows] == ["T12"]


def test_the_table_prints_one_line_per_data_set(caplog):
    from ignite.engine import Engine

    metric = LevelAccuracy()
    metric.update([output(found(3.0))])
    engine = Engine(lambda *_: None)
    engine.state.metrics = {"levels": metric.compute(), "body_dice": 0.5}
    with caplog.at_level("INFO"):
        LevelTable()(engine)
    assert "made up disc" in caplog.text
    assert "100.0%" in caplog.text
    assert "mean Dice 0.500" in caplog.text
    assert "made up: 1 volumes of 1 cases; all discs within 5 mm on 100.0%" in caplog.text


def test_images_of_one_name_in_several_folders_get_their_own_levels(tmp_path):
    from ignite.engine import Engine

    engine = Engine(lambda *_: None)
    engine.state.output = [output(None), output(found(0.0), case="2")]
    SaveLevels(tmp_path)(engine)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert written == [f"made up/volumes/{case}/sagittal_t2_0_levels.json" for case in ("1", "2")]
    documents = [json.loads((tmp_path / path).read_text()) for path in written]
    assert [len(document["levels"]) for document in documents] == [0, 6]
    assert documents[0]["flags"] == ["no_lumbar_spine_found"]


def test_the_picture_shows_discs_red_head_up_front_left():
    probabilities = np.zeros((18, 4, 10, 20), np.float32)
    probabilities[0, 2, 8, 17] = 1.0
    picture = heatmap_picture(np.zeros((4, 10, 20), np.float32), probabilities)
    assert picture.shape == (3, 20, 10)
    assert picture[0, 2, 1] == 1.0
    assert maps_of(probabilities, np.eye(4)).discs.shape == (6, 4, 10, 20)
