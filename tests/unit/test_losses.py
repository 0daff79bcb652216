"""Missing labels count for nothing; weights and frequencies are kept apart."""

from __future__ import annotations

import pytest
import torch

from monai_spine.training.losses import MISSING, GradeLoss, log_loss


def test_rows_without_a_label_change_nothing() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [5.0, 2.0, 0.0]], requires_grad=True)
    GradeLoss()(logits, torch.tensor([1, MISSING])).backward()
    assert GradeLoss()(logits, torch.tensor([1, MISSING])) == GradeLoss()(logits[:1], torch.tensor([1]))
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0


def test_a_batch_without_any_label_gives_zero_and_can_be_stepped() -> None:
    logits = torch.ones(2, 3, requires_grad=True)
    loss = GradeLoss()(logits, torch.tensor([MISSING, MISSING]))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None


def test_weights_are_those_of_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 4.0]))
    assert float(GradeLoss((1, 2, 4))(logits, labels)) == pytest.approx(float(expected))


def test_log_loss_of_certain_and_right_predictions_is_zero() -> None:
    assert float(log_loss(torch.eye(3), torch.arange(3))) == pytest.approx(0.0)
