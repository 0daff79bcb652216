"""Missing labels count for nothing; whatever the weights, frequencies are learnt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from monai_spine.anatomy import TARGETS
from monai_spine.report.tables import study_submission
from monai_spine.training.losses import MISSING, GradeLoss, OrdinalLoss, log_loss, soft_targets
from monai_spine.training.score import reweight

WEIGHTS = (1.0, 2.0, 4.0)
FREQUENCIES = (0.7, 0.2, 0.1)
LOSSES = [GradeLoss, OrdinalLoss, lambda weights=None, **more: OrdinalLoss(weights, share=1.0, **more)]
"""Everything that a grader can be trained with."""

Made = Callable[..., GradeLoss]


@pytest.mark.parametrize("made", LOSSES)
def test_rows_without_a_label_change_nothing(made: Made) -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [5.0, 2.0, 0.0]], requires_grad=True)
    loss = made(WEIGHTS, label_smoothing=0.1)
    loss(logits, torch.tensor([1, MISSING])).backward()
    assert loss(logits, torch.tensor([1, MISSING])) == loss(logits[:1], torch.tensor([1]))
    assert logits.grad is not None
    assert logits.grad[0].abs().max() > 0
    assert logits.grad[1].abs().max() == 0


@pytest.mark.parametrize("made", LOSSES)
@pytest.mark.parametrize("labels", [torch.tensor([MISSING, MISSING]), torch.zeros(2, 3)])
def test_a_batch_without_any_label_gives_zero_and_can_be_stepped(made: Made, labels: torch.Tensor) -> None:
    logits = torch.ones(2, 3, requires_grad=True)
    loss = made()(logits, labels)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_weights_are_those_of_cross_entropy_on_the_scored_prediction() -> None:
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor(WEIGHTS)
    expected = torch.nn.functional.cross_entropy(logits + weights.log(), labels, weight=weights)
    assert float(GradeLoss(WEIGHTS)(logits, labels)) == pytest.approx(float(expected))


def test_smoothing_is_that_of_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    assert float(GradeLoss(label_smoothing=0.2)(logits, labels)) == pytest.approx(float(expected))


@pytest.mark.parametrize("made", LOSSES)
def test_mixed_labels_cost_the_mean_of_what_they_are_mixed_from(made: Made) -> None:
    logits = torch.tensor([[0.3, -0.2, 0.5]])
    each = [float(made()(logits, torch.tensor([label]))) for label in range(3)]
    mixed = made()(logits, torch.tensor([FREQUENCIES]))
    assert float(mixed) == pytest.approx(float(np.dot(FREQUENCIES, each)), rel=1e-5)


@pytest.mark.parametrize("made", LOSSES)
def test_one_hot_shares_are_labels(made: Made) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, MISSING, 1])
    assert made(WEIGHTS)(logits, soft_targets(labels)) == made(WEIGHTS)(logits, labels)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_far_severity_costs_more_than_a_near_one(share: float) -> None:
    near, far = torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])
    mild = torch.tensor([0])
    assert OrdinalLoss(share=share)(far, mild) > OrdinalLoss(share=share)(near, mild)
    assert float(GradeLoss()(far, mild)) == pytest.approx(float(GradeLoss()(near, mild)))


@pytest.mark.parametrize("made", LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_frequencies_are_learnt_with_weights_and_without_and_submitted_by_one_rule(made: Made, weights: tuple | None) -> None:
    """What a bundle answers is p; report and submission take it so, and scale it by 1, 2, 4 once."""
    learnt = fitted(made(weights), counts=(70, 20, 10))
    assert learnt == pytest.approx(FREQUENCIES, abs=1e-3)
    submitted = submission_of(learnt)
    assert submitted == pytest.approx(reweight(np.array(FREQUENCIES)), abs=1e-3)
    assert weighted_log_loss(submitted) < min(weighted_log_loss(learnt), weighted_log_loss(reweight(np.array(submitted))))


def fitted(loss: GradeLoss, *, counts: tuple[int, int, int]) -> list[float]:
    """What a network that sees no difference between the cases answers after training."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.expand(len(labels), 3), labels)
        value.backward()
        return value

    optimizer.step(closure)
    return torch.softmax(logits[0].detach(), dim=0).tolist()


def submission_of(probabilities: list[float]) -> tuple[float, ...]:
    named = dict(zip(("normal_mild", "moderate", "severe"), probabilities, strict=True))
    target = TARGETS[0]
    grade = {
        "condition": target.condition.slug,
        "side": target.side.slug if target.side else None,
        "level": target.level.label,
        "status": "graded",
        "reason": None,
        "probabilities": named,
    }
    rows, _ = study_submission("1", {"grades": [grade]})
    return rows[0].probabilities


def weighted_log_loss(predicted: object) -> float:
    charged = np.multiply(FREQUENCIES, WEIGHTS)
    return float(-(charged * np.log(np.asarray(predicted))).sum() / charged.sum())


@pytest.mark.parametrize(("weights", "smoothing"), [((1.0, 2.0), 0.0), ((1.0, 0.0, 4.0), 0.0), (None, 1.0)])
def test_what_cannot_be_trained_with_is_refused(weights: tuple | None, smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"weights above 0, got|label_smoothing must be in \[0, 1\), got"):
        GradeLoss(weights, label_smoothing=smoothing)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        OrdinalLoss(share=2)


def test_log_loss_of_certain_and_right_predictions_is_zero() -> None:
    assert float(log_loss(torch.eye(3), torch.arange(3))) == pytest.approx(0.0)
