"""Grades of discs and vertebrae: crops that follow the column's own scale, heads that do not mix, rare grades that are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import SqueezeDimd

from monai_spine.anatomy import DISCS, Level, Vertebra
from monai_spine.crops import CropSpec
from monai_spine.degeneration import HEADS, DegenerationGrader, probabilities_of, split_heads
from monai_spine.errors import WeightsError
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.levels import LevelPoint, Levels, VertebraPoint
from monai_spine.training.degeneration import DegenerationLoss, answers
from monai_spine.training.losses import MISSING
from monai_spine.volume import Volume, picture_volume

CROP = {"role": "sagittal_t2", "size_mm": [4.5, 64, 64], "shape": [1, 32, 32], "mirror_right": False, "offset_mm": {}}


@dataclass
class StandIn:
    """A bundle whose network is the tests' own; it keeps what it was shown."""

    decision: dict[str, list[float]] | None = None
    seen: list[torch.Tensor] = field(default_factory=list)
    preprocessing: Any = field(default_factory=lambda: SqueezeDimd(keys="image", dim=1))

    def option(self, key: str) -> Any:
        return {"decision": self.decision}.get(key)

    def inferer(self, images: torch.Tensor, network: Any) -> torch.Tensor:
        self.seen.append(images)
        return network(images)

    @staticmethod
    def postprocessing(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"pred": probabilities_of(data["pred"])}


def ruled_picture(zoom: float) -> tuple[Volume, Levels]:
    """A picture of stripes with a period of a quarter of the disc spacing; discs lie `zoom` times as far apart as an adult's."""
    spacing_px = DISC_SPACING_MM * zoom
    rows = np.arange(round(7 * spacing_px))
    picture = np.repeat(np.sin(2 * np.pi * rows / (spacing_px / 4))[:, None], 160, axis=1).astype(np.float32)
    volume = picture_volume(picture, 1.0)
    top = (len(rows) - 1) / 2
    places = {level: (0.0, 0.0, top - spacing_px * (at + 1)) for at, level in enumerate(DISCS)}
    bodies = {Vertebra(f"L{at + 1}"): (0.0, 0.0, places[DISCS[at]][2] - spacing_px / 2) for at in range(5)}
    return volume, Levels(
        tuple(LevelPoint(level, place, None, 1.0) for level, place in places.items()),
        tuple(VertebraPoint(body, place, 1.0) for body, place in {Vertebra.T12: (0.0, 0.0, top), **bodies}.items()),
    )


def constant(*logits: float) -> Any:
    return lambda images: torch.tensor([logits]).expand(len(images), -1)


def grader(bundle: StandIn, network: Any) -> DegenerationGrader:
    return DegenerationGrader(bundle, CropSpec.from_config(CROP), network)  # type: ignore[arg-type]


def test_discs_and_the_five_lumbar_bodies_are_graded_from_the_head_down() -> None:
    found = grader(StandIn(), constant(0, 0, 9, 0, 9, 0, 0, 9))(*ruled_picture(1.0))
    assert [one.structure for one in found] == [*DISCS, *(Vertebra(f"L{number}") for number in range(1, 6))]
    assert [one.grade for one in found] == ["protrusion"] * 6 + ["degenerative"] * 5
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in found)
    assert all((one.schmorl_node is None) != isinstance(one.structure, Level) for one in found)
    assert found[0].schmorl_node == pytest.approx(1 / (1 + np.exp(9)))


def test_a_crop_shows_the_same_share_of_the_column_whatever_its_scale() -> None:
    """The stripes have the same period in each crop: a quarter of the spacing."""
    bundle = StandIn()
    for zoom in (0.6, 1.0, 1.7):
        grader(bundle, constant(*[0.0] * 8))(*ruled_picture(zoom))
    for images in bundle.seen:
        assert images.shape == (11, 1, 32, 32)
        spectrum = np.abs(np.fft.rfft(images[2, 0, 16] - images[2, 0, 16].mean(), n=512))
        assert spectrum.argmax() / 512 * 32 == pytest.approx(64 / (DISC_SPACING_MM / 4), rel=0.05)


def test_what_lies_outside_of_the_picture_is_left_out() -> None:
    volume, levels = ruled_picture(1.0)
    short = Volume(volume.array[:, :, : volume.array.shape[2] // 2], volume.affine, slice_axis=0)
    found = grader(StandIn(), constant(*[0.0] * 8))(short, levels)
    assert 0 < len(found) < 11
    assert Level.L5_S1 not in [one.structure for one in found]


def test_where_no_level_was_found_nothing_is_graded() -> None:
    assert grader(StandIn(), constant(*[0.0] * 8))(ruled_picture(1.0)[0], Levels((), ())) == ()


def test_a_rare_grade_is_called_where_the_bundle_weighs_it() -> None:
    logits = np.log([0.3, 0.3, 0.25, 0.15, 0.5, 0.5, 0.5, 0.5]).tolist()
    bare = grader(StandIn(), constant(*logits))(*ruled_picture(1.0))[0]
    weighed = grader(StandIn(decision={"grade": [1, 1, 1, 3]}), constant(*logits))(*ruled_picture(1.0))[0]
    assert (bare.grade, weighed.grade) == ("normal", "extrusion")
    assert bare.probabilities == weighed.probabilities


def test_each_head_sums_to_one_at_its_own_temperature() -> None:
    logits = torch.tensor([2.0, 0, 0, 0, 2.0, 0, 2.0, 0])
    heads = split_heads(probabilities_of(logits, {"schmorl_node": 2.0}))
    assert {name: len(head) for name, head in heads.items()} == {name: len(names) for name, names in HEADS.items()}
    assert all(float(head.sum()) == pytest.approx(1) for head in heads.values())
    assert float(heads["schmorl_node"][0]) == pytest.approx(1 / (1 + np.exp(-1)))
    assert float(heads["vertebra"][0]) == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: DegenerationLoss({"grades": [1.0] * 4}),
        lambda: DegenerationLoss(shares={"grades": 2.0}),
        lambda: probabilities_of(torch.zeros(8), {"grades": 2.0}),
        lambda: probabilities_of(torch.zeros(8), offsets={"grades": [0.0] * 4}),
    ],
)
def test_a_head_that_is_not_there_is_refused_with_the_nearest(ask: Callable[[], object]) -> None:
    with pytest.raises(WeightsError, match=r"no head 'grades'\. Did you mean 'grade'\?"):
        ask()


def test_a_missing_label_costs_nothing_and_teaches_nothing() -> None:
    logits = torch.randn(2, 8, requires_grad=True)
    loss = DegenerationLoss()(logits, torch.tensor([[1, 0, MISSING], [MISSING, MISSING, 1]]))
    loss.backward()
    assert logits.grad is not None
    taught = logits.grad.abs() > 0
    assert taught.tolist() == [[True] * 6 + [False] * 2, [False] * 6 + [True] * 2]
    assert float(DegenerationLoss()(logits, torch.full((2, 3), MISSING))) == 0.0


def test_weights_leave_the_softmax_the_frequencies() -> None:
    """Where 1 of 4 of the same discs is an extrusion, the best constant logits say 25 %, however much the loss weighs it."""
    labels = torch.tensor([[0, MISSING, MISSING]] * 3 + [[3, MISSING, MISSING]])
    logits = torch.zeros(1, 8, requires_grad=True)
    loss = DegenerationLoss({"grade": [1.0, 1.0, 1.0, 5.0]})
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss(logits.expand(4, -1), labels).backward()
        optimizer.step()
    assert float(logits.detach()[0, :4].softmax(0)[3]) == pytest.approx(0.25, abs=0.02)


def test_metrics_are_fed_one_head() -> None:
    output = [{"pred": torch.arange(8.0), "label": torch.tensor([2, 0, MISSING])}]
    probabilities, labels = answers(output, "schmorl_node")
    assert (probabilities.tolist(), labels.tolist()) == ([[4.0, 5.0]], [0])
