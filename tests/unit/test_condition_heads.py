"""Both heads: what they answer, what they learn from, and how they are judged."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.metrics import ConfusionMatrix, Loss, MetricsLambda
from ignite.metrics.confusion_matrix import cmAccuracy
from monai.networks.nets import DenseNet
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from monai_spine.anatomy import KINDS, Condition, Severity, Side
from monai_spine.networks.architectures import build_network
from monai_spine.networks.two_heads import TwoHeads
from monai_spine.training.condition_heads import (
    CLASSES,
    ConditionLoss,
    answers,
    labelled,
    macro_f1,
    mean_log_loss,
    probabilities_of,
    split_heads,
)
from monai_spine.training.condition_pictures import KIND_NAMES, gallery
from monai_spine.training.condition_table import COLUMNS, SaveConditions
from monai_spine.training.grading_pictures import confusion_figure
from monai_spine.training.losses import MISSING, GradeLoss


def densenet(features: int = 12) -> TwoHeads:
    torch.manual_seed(0)
    trunk = DenseNet(3, 1, features, init_features=8, growth_rate=4, block_config=(1, 1), norm=("group", {"num_groups": 2}))
    return TwoHeads(trunk, features=features, classes=CLASSES)


def rows(count: int = 40) -> list[dict[str, torch.Tensor]]:
    """A decollated batch of random answers; every fifth severity is missing."""
    generator = torch.Generator().manual_seed(1)
    labels = [
        torch.tensor([int(torch.randint(5, (), generator=generator)), -1 if at % 5 == 0 else at % 3]) for at in range(count)
    ]
    return [{"pred": probabilities_of(2 * torch.randn(8, generator=generator)), "label": label} for label in labels]


def test_the_five_conditions_are_the_canal_and_two_with_sides() -> None:
    assert [kind.slug for kind in KINDS] == [
        "spinal_canal_stenosis",
        "left_neural_foraminal_narrowing",
        "right_neural_foraminal_narrowing",
        "left_subarticular_stenosis",
        "right_subarticular_stenosis",
    ]
    assert {kind.mirrored for kind in KINDS} == set(KINDS)


def test_the_network_gives_eight_logits_and_can_be_scripted() -> None:
    network, crops = densenet().eval(), torch.rand(2, 1, 20, 22, 20)
    logits = network(crops)
    assert logits.shape == (2, 8)
    torch.testing.assert_close(torch.jit.script(network)(crops), logits)


def test_each_head_has_weights_of_its_own() -> None:
    network, crops = densenet().eval(), torch.rand(2, 1, 20, 22, 20)
    before = split_heads(network(crops))
    with torch.no_grad():
        network.heads[1][2].bias += 1.0
    after = split_heads(network(crops))
    assert torch.equal(before["condition"], after["condition"])
    torch.testing.assert_close(after["severity"], before["severity"] + 1.0)


def test_a_network_without_heads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 classes, got \[5, 1\]"):
        TwoHeads(torch.nn.Flatten(), features=8, classes=(5, 1))


def test_each_head_s_probabilities_sum_to_one() -> None:
    heads = split_heads(probabilities_of(torch.randn(6, 8, generator=torch.Generator().manual_seed(0))))
    assert {name: tuple(values.shape) for name, values in heads.items()} == {"condition": (6, 5), "severity": (6, 3)}
    for values in heads.values():
        torch.testing.assert_close(values.sum(dim=1), torch.ones(6))


def test_logits_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give 8 values, got shape \(2, 3\)"):
        probabilities_of(torch.zeros(2, 3))


def test_the_loss_is_that_of_each_head_by_its_share() -> None:
    logits, labels = torch.randn(4, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([[0, 0], [2, 1], [3, 2], [4, 0]])
    condition = torch.nn.functional.cross_entropy(logits[:, :5], labels[:, 0])
    severity = GradeLoss((1, 2, 4))(logits[:, 5:], labels[:, 1])
    expected = 0.25 * condition + 0.75 * severity
    torch.testing.assert_close(ConditionLoss((1, 2, 4), severity_share=0.75)(logits, labels), expected)


def test_a_missing_grade_teaches_the_condition_and_not_the_severity() -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss = ConditionLoss()(logits, torch.tensor([[0, MISSING], [1, 2], [4, MISSING]]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[:, :5].abs().sum(dim=1) > 0).all()
    assert gradient[[0, 2], 5:].abs().sum() == 0
    assert gradient[1, 5:].abs().sum() > 0


def test_a_batch_without_any_grade_has_a_finite_loss() -> None:
    logits = torch.zeros(2, 8, requires_grad=True)
    loss = ConditionLoss(severity_share=0.5)(logits, torch.tensor([[0, MISSING], [1, MISSING]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * np.log(5))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"severity_share must be in \[0, 1\], got 1.5"):
        ConditionLoss(severity_share=1.5)


@pytest.mark.parametrize(("head", "at"), [("condition", 0), ("severity", 1)])
def test_accuracy_and_macro_f1_are_scikit_learn_s_over_the_labelled_rows(head: str, at: int) -> None:
    output = rows()
    confusion = ConfusionMatrix(CLASSES[at])
    accuracy, f1 = cmAccuracy(confusion), MetricsLambda(macro_f1, confusion)
    for start in range(0, 40, 5):
        confusion.update(answers(output[start : start + 5], head))
    true = np.array([int(row["label"][at]) for row in output])
    called = np.array([int(split_heads(row["pred"])[head].argmax()) for row in output])
    known = true >= 0
    assert known.sum() == (40 if head == "condition" else 32)
    assert float(accuracy.compute()) == pytest.approx(accuracy_score(true[known], called[known]))
    assert float(f1.compute()) == pytest.approx(f1_score(true[known], called[known], average="macro"))


def test_the_log_loss_leaves_out_rows_without_a_grade() -> None:
    output = rows()
    loss = Loss(mean_log_loss, batch_size=labelled)
    for start in range(0, 40, 5):
        loss.update(answers(output[start : start + 5], "severity"))
    loss.update(answers(output[:1], "severity"))
    expected = [-float(row["pred"][5 + int(row["label"][1])].log()) for row in output if int(row["label"][1]) >= 0]
    assert len(expected) == 32
    assert loss.compute() == pytest.approx(np.mean(expected))


def test_the_table_says_condition_and_severity_with_all_probabilities(tmp_path: Path) -> None:
    output = rows(2)
    examples = [
        {"case": "7", "target": f"left_subarticular_stenosis_l{at + 1}_l{at + 2}", "label": row["label"]}
        for at, row in enumerate(output)
    ]
    saver = SaveConditions(tmp_path / "new" / "predictions.csv")
    engine = SimpleNamespace(state=SimpleNamespace(batch=examples, output=output))
    saver._start(engine)  # type: ignore[arg-type]
    saver._collect(engine)  # type: ignore[arg-type]
    saver._write(engine)  # type: ignore[arg-type]
    written = list(csv.DictReader((tmp_path / "new" / "predictions.csv").read_text().splitlines()))
    assert tuple(written[0]) == COLUMNS
    for line, row in zip(written, output, strict=True):
        conditions = {kind.slug: float(line[kind.slug]) for kind in KINDS}
        severities = {severity.slug: float(line[severity.slug]) for severity in Severity}
        assert (sum(conditions.values()), sum(severities.values())) == pytest.approx((1, 1), abs=1e-5)
        assert (max(conditions, key=conditions.__getitem__), max(severities, key=severities.__getitem__)) == (
            line["condition"],
            line["severity"],
        )
        assert line["true_condition"] == KINDS[int(row["label"][0])].slug
    assert [line["true_severity"] for line in written] == ["", "moderate"]


def test_pictures_show_every_class_by_its_name() -> None:
    counts = np.arange(25).reshape(5, 5)
    (axes,) = confusion_figure(counts, KIND_NAMES).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(KIND_NAMES)
    assert KIND_NAMES[KINDS.index(next(kind for kind in KINDS if kind.side is Side.RIGHT))] == "right foraminal"
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(25)]


@pytest.mark.parametrize(
    ("condition", "role", "front", "marks"),
    [
        pytest.param(4, "axial_t2", (0, -1), "RLAP", id="axial: the rightmost sheet"),
        pytest.param(0, "sagittal_t2", (0, slice(None), -1), "APSI", id="sagittal: the frontmost sheet"),
    ],
)
def test_a_crop_is_drawn_as_it_is_read(condition: int, role: str, front: tuple[int | slice, ...], marks: str) -> None:
    image = torch.zeros(1, 6, 8, 6)
    image[front] = 1.0
    roles = {one.slug: role for one in Condition}
    (axes,) = gallery({(condition, 2): {"image": image, "pred": torch.eye(8)[condition]}}, roles, (6.0, 8.0, 6.0)).axes
    drawn = np.asarray(axes.images[0].get_array())
    assert drawn.shape == {"axial_t2": (8, 6), "sagittal_t2": (6, 8)}[role]
    assert (drawn[:, 0].min(), drawn[:, 1:].max()) == (1, 0)
    assert [text.get_text() for text in axes.texts] == [*marks, "10 mm"]


def test_heads_on_features_as_they_are_see_those_below_zero_too() -> None:
    features = -torch.rand(4, 3) - 0.1
    for activated, seen in ((True, 1), (False, 4)):
        network = TwoHeads(nn.Identity(), features=3, classes=(5, 3), activated=activated).eval()
        assert len(network(features).unique(dim=0)) == seen


def test_several_heads_of_an_architecture_see_what_one_head_sees() -> None:
    network = build_network("vit", shape=(32, 32), spatial_dims=2, out_channels=(5, 3)).eval()
    features = -torch.rand(4, network.class_layers.heads[0][-1].in_features) - 0.1
    assert len(network.class_layers(features).unique(dim=0)) == 4
