"""Metrics, table and pictures of the refining network, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from tiny_bundles import BLOCK, DrawnLevel

from monai_spine.geometry import apply_affine
from monai_spine.level_refinement import CHANNELS, DiscBlock, block_affine
from monai_spine.training.refinement_handlers import (
    BlockPictures,
    RefinementAccuracy,
    RefinementTable,
    Shortfall,
    prepare_batch,
)

CROP = DiscBlock.from_config(BLOCK)
DISC = np.array([1.0, -20.0, 30.0])
UP = np.array([0.0, 0.0, 1.0])
AFFINE = block_affine(np.eye(4), DISC, UP, CROP)


def element(
    *,
    aside_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    weight: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0),
    unseen: tuple[str, ...] = (),
    study: str = "spots",
    thick: bool = False,
) -> dict[str, Any]:
    """What an evaluator gives for one block: truth in its place, and an answer that lies `aside_mm` of it.

    Args:
        aside_mm: How far the points and the bodies of the answer lie from the true ones.
        weight: Of the label.
        unseen: Channels of which the answer shows nothing.
        study: Name of the data set.
        thick: The answer's bodies fill the whole block.
    """
    with torch.no_grad():
        true = (DrawnLevel()(torch.zeros(1, 1, *CROP.shape))[0] > 0).float()
        answer = DrawnLevel(aside_mm)(torch.zeros(1, 1, *CROP.shape))[0].sigmoid()
    answer[[CHANNELS.index(name) for name in unseen]] = 0.0
    if thick:
        answer[3:] = 1.0
    points = np.add(DISC, [[0.0, 0.0, 0.0], [0.0, -24.0, 0.0], [-17.0, -19.0, 8.0], [17.0, -19.0, 8.0]])
    label = {"target": true, "weight": torch.tensor(weight), "affine": torch.tensor(AFFINE), "points": torch.tensor(points)}
    image = torch.zeros(1, *CROP.shape)
    return {"image": image, "pred": answer, "label": {**label, "study": study}}


def accuracy(*elements: dict[str, Any]) -> dict[str, float]:
    metric = RefinementAccuracy()
    metric.update(list(elements[:1]))
    metric.update(list(elements[1:]))
    return metric.compute()


def shortfall(*elements: dict[str, Any]) -> float:
    metric = Shortfall()
    metric.update(list(elements))
    return metric.compute()


def test_a_right_answer_lacks_nothing() -> None:
    result = accuracy(element())
    assert result.pop("spots foramen mm") == pytest.approx(0.0, abs=0.4), "they lie between the middles of thick slices"
    assert result == pytest.approx({"spots disc mm": 0, "spots canal mm": 0, "spots body dice": 1, "spots count": 1}, abs=0.1)
    assert shortfall(element()) == pytest.approx(0.0, abs=0.15)


def test_distances_are_those_of_the_points_and_their_mean_is_taken() -> None:
    result = accuracy(element(aside_mm=(0.0, 3.0, 4.0)), element())
    assert result["spots disc mm"] == pytest.approx(2.5, abs=0.15)
    assert result["spots canal mm"] == pytest.approx(2.5, abs=0.15)
    assert result["spots foramen mm"] == pytest.approx(2.5, abs=0.3)
    assert result["spots count"] == 2


def test_what_is_not_seen_counts_10_mm() -> None:
    result = accuracy(element(unseen=("disc",)), element(unseen=("canal",)), element(unseen=("foramina",)))
    assert result["spots disc mm"] == pytest.approx(10 / 3, abs=0.1)
    assert result["spots canal mm"] == pytest.approx(10 / 3, abs=0.1)
    assert result["spots foramen mm"] == pytest.approx(10 / 3, abs=0.3)
    far = accuracy(element(aside_mm=(0.0, 0.0, 12.0)))
    assert far["spots disc mm"] == 10.0


@pytest.mark.parametrize("half", [slice(None, CROP.shape[0] // 2), slice(CROP.shape[0] // 2, None)])
def test_each_foramen_counts_for_itself(half: slice) -> None:
    one_sided = element()
    one_sided["pred"][CHANNELS.index("foramina"), half] = 0.0
    assert accuracy(one_sided)["spots foramen mm"] == pytest.approx(5.0, abs=0.2)


def test_foramina_are_held_against_those_of_their_own_side() -> None:
    swapped = element()
    swapped["label"]["points"] = swapped["label"]["points"][[0, 1, 3, 2]]
    assert accuracy(swapped)["spots foramen mm"] == 10.0


def test_derived_points_and_undrawn_bodies_count_nothing() -> None:
    result = accuracy(element(weight=(1.0, 0.3, 0.0, 0.0, 0.0), aside_mm=(0.0, 6.0, 0.0)))
    assert set(result) == {"spots disc mm", "spots count"}
    without_body = element(weight=(1.0, 1.0, 1.0, 1.0, 0.0))
    without_body["pred"][4] = 0.0
    assert accuracy(without_body)["spots body dice"] == 1.0


def test_a_body_outside_the_block_counts_nothing() -> None:
    outside = element(thick=True)
    outside["label"]["target"][4] = 0.0
    inside = float(outside["label"]["target"][3].sum())
    assert accuracy(outside)["spots body dice"] == pytest.approx(2 * inside / (inside + np.prod(CROP.shape)))


def test_dice_is_twice_the_overlap_over_the_sum() -> None:
    whole, body = float(np.prod(CROP.shape)), element()["label"]["target"]
    expected = np.mean([2 * float(body[at].sum()) / (float(body[at].sum()) + whole) for at in (3, 4)])
    assert accuracy(element(thick=True))["spots body dice"] == pytest.approx(expected)
    assert accuracy(element(unseen=("body above", "body below")))["spots body dice"] == 0.0


def test_the_shortfall_adds_millimetres_and_ten_times_the_missing_dice_data_sets_alike() -> None:
    off = element(unseen=("disc",), study="other")
    assert shortfall(off) == pytest.approx(10 / 3, abs=0.15)
    assert shortfall(off, element(), element(), element()) == pytest.approx(5 / 3, abs=0.15)
    assert shortfall(element(unseen=("body above",))) == pytest.approx(5.0, abs=0.15)
    unmarked = element(weight=(1.0, 1.0, 1.0, 0.0, 0.0))
    assert shortfall(unmarked) == pytest.approx(10.0, abs=0.15), "no body anywhere is no praise"


def test_an_answer_with_the_blocks_middle_is_found_out() -> None:
    """A network that always answers with the middle of its block does not profit from where blocks are cut."""
    beside = AFFINE.copy()
    beside[:3, 3] += 4.0
    lazy = element()
    lazy["label"]["affine"] = torch.tensor(beside)
    assert accuracy(lazy)["spots disc mm"] == pytest.approx(np.sqrt(3) * 4, abs=0.15)


def test_the_table_prints_one_line_per_data_set(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(lambda *_: None)
    only_disc = element(weight=(1.0, 0.3, 0.0, 0.0, 0.0), study="pictures")
    engine.state.metrics = {"refined": accuracy(element(aside_mm=(0.0, 3.0, 4.0)), only_disc)}
    with caplog.at_level("INFO"):
        RefinementTable()(engine)
    head, pictures, spots = caplog.records[-1].getMessage().strip().splitlines()
    assert head.split() == ["data", "set", "blocks", "disc", "mm", "canal", "mm", "foramen", "mm", "body", "dice"]
    assert pictures.split()[3:] == ["nan", "nan", "nan"]
    assert spots.split()[:2] == ["spots", "1"]
    assert float(spots.split()[2]) == pytest.approx(5.0, abs=0.2)


def test_pictures_show_the_disc_red_head_up_front_to_the_left() -> None:
    shown = []

    class Writer:
        def add_image(self, tag: str, picture: np.ndarray, epoch: int) -> None:
            shown.append((tag, picture))

    engine = Engine(lambda *_: None)
    engine.state.output = [element(aside_mm=(0.0, 12.0, 21.0)), element(), element()]
    pictures = BlockPictures(Writer(), count=2)
    pictures(engine)
    assert [tag for tag, _ in shown] == ["blocks/0", "blocks/1"]
    picture = shown[0][1]
    assert picture.shape == (3, CROP.shape[2], CROP.shape[1])
    row, column = np.unravel_index(int(picture[0].argmax()), picture.shape[1:])
    assert row < CROP.shape[2] / 2 - 4
    assert column < CROP.shape[1] / 2 - 2


def test_a_batch_brings_its_answers_along() -> None:
    block = element()
    batch = {"image": block["image"][None], **{key: [value] for key, value in block["label"].items()}}
    batch |= {key: block["label"][key][None] for key in ("target", "weight", "affine", "points")}
    image, answer = prepare_batch(batch, "cpu")
    assert image.shape == (1, 1, *CROP.shape)
    assert set(answer) == {"target", "weight", "affine", "points", "study"}


def test_the_truth_of_these_tests_lies_where_it_should() -> None:
    maps = element()["label"]["target"].numpy()
    np.testing.assert_allclose(apply_affine(AFFINE, np.argwhere(maps[0] > 0)).mean(0), DISC, atol=1.0)
