"""Metrics, loss and table of the naming network, against numbers worked out by hand."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_spine.level_names import CLASSES
from monai_spine.training.naming_handlers import (
    NameAccuracy,
    NameLoss,
    NamePictures,
    NameTable,
    NamingLogLoss,
    prepare_batch,
)

LOWEST = "L5/S1"


def element(name: str, said: dict[str, float], study: str = "phantom") -> dict[str, Any]:
    """What an evaluator gives for one block: its name, and the probability that the answer gives to some names."""
    probabilities = torch.tensor([said.get(one, 0.0) for one in CLASSES])
    return {"pred": probabilities, "label": {"label": torch.tensor(CLASSES.index(name)), "study": study}}


SURE = element("L3/L4", {"L3/L4": 0.8, "L4/L5": 0.2})
WRONG = element(LOWEST, {"below": 0.5, LOWEST: 0.25, "L4/L5": 0.25})
RIGHT = element(LOWEST, {LOWEST: 1.0})
HALF = element("above", {"T12/L1": 0.5, "above": 0.5 - 1e-3, "L1/L2": 1e-3}, "pictures")


def computed(metric: Any, *elements: dict[str, Any]) -> Any:
    metric.reset()
    metric.update(list(elements[:1]))
    metric.update(list(elements[1:]))
    return metric.compute()


def test_shares_and_log_loss_are_those_of_each_data_set() -> None:
    values = computed(NameAccuracy(), SURE, WRONG, RIGHT, HALF)
    assert values == pytest.approx(
        {
            "phantom accuracy": 2 / 3,
            "phantom L5/S1": 1 / 2,
            "phantom log loss": (-log(0.8) - log(0.25)) / 3,
            "phantom count": 3,
            "pictures accuracy": 0,
            "pictures log loss": -log(0.499),
            "pictures count": 1,
        },
        abs=1e-6,
    )


def test_a_name_that_was_ruled_out_costs_a_finite_loss() -> None:
    assert computed(NameAccuracy(), element("L1/L2", {"L2/L3": 1.0}))["phantom log loss"] == pytest.approx(log(1e6), rel=1e-5)


def test_the_number_to_choose_by_weighs_data_sets_alike() -> None:
    expected = ((-log(0.8) - log(0.25)) / 3 - log(0.499)) / 2
    assert computed(NamingLogLoss(), SURE, WRONG, RIGHT, HALF) == pytest.approx(expected, abs=1e-6)
    assert computed(NamingLogLoss(), RIGHT) == pytest.approx(0.0, abs=1e-6)


def test_a_metric_begins_anew() -> None:
    metric = NameAccuracy()
    computed(metric, WRONG, WRONG)
    assert computed(metric, RIGHT)["phantom count"] == 1


def test_the_loss_is_the_cross_entropy_and_smoothing_spreads_a_share_over_all() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = log(9.0)
    answer = {"label": torch.tensor([3, 0]), "study": ["a", "b"]}
    first, second = -log(9 / 16), -log(1 / 8)
    assert float(NameLoss()(logits, answer)) == pytest.approx((first + second) / 2)
    smoothed = 0.9 * first + 0.1 * (first + 7 * -log(1 / 16)) / 8
    assert float(NameLoss(label_smoothing=0.1)(logits, answer)) == pytest.approx((smoothed + second) / 2)


def test_a_batch_brings_its_answers_along() -> None:
    images = torch.zeros(2, 1, 4, 5, 6)
    image, answer = prepare_batch({"image": images, "label": torch.tensor([3, 7]), "study": ["a", "b"], "other": 1}, "cpu")
    assert image.shape == images.shape
    assert answer["label"].tolist() == [3, 7]
    assert answer["study"] == ["a", "b"]
    assert set(answer) == {"label", "study"}


def test_the_table_prints_one_line_per_data_set(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(lambda *_: None)
    engine.state.metrics = {"names": computed(NameAccuracy(), SURE, WRONG, RIGHT, HALF)}
    with caplog.at_level("INFO"):
        NameTable()(engine)
    _, phantom, pictures = caplog.records[-1].getMessage().strip().splitlines()
    assert phantom.split() == ["phantom", "3", "66.7%", "50.0%", f"{(-log(0.8) - log(0.25)) / 3:.3f}"]
    assert pictures.split() == ["pictures", "1", "0.0%", "nan%", f"{-log(0.499):.3f}"]


@pytest.mark.parametrize("said", [0.0, 1.0])
def test_a_picture_frames_the_box_of_the_true_name(said: float) -> None:
    pictures: list[np.ndarray] = []

    class Writer:
        def add_image(self, tag: str, picture: np.ndarray, epoch: int) -> None:
            pictures.append(picture)

    probabilities = torch.zeros(len(CLASSES))
    probabilities[3], probabilities[6] = 0.5, said
    output = {"image": torch.full((1, 3, 64, 80), 0.25), "pred": probabilities, "label": {"label": torch.tensor(6)}}
    engine = Engine(lambda engine, batch: [output])
    NamePictures(Writer(), count=1).attach(engine)
    engine.run([0, 1])
    (picture,) = pictures
    assert picture.shape == (3, 80 + 8, 64)
    assert picture[:, -4, 6 * 8].tolist() == [1.0, 0.0, 0.0]
    assert picture[:, -4, 6 * 8 + 4].tolist() == [said] * 3
    assert picture[:, -4, 3 * 8 + 4].tolist() == [0.5, 0.5, 0.5]
