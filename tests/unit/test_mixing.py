"""A mixed crop's label says what the crop shows; what has no label is not mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_spine.training.losses import MISSING, GradeLoss, OrdinalLoss
from monai_spine.training.mixing import BoxMix, MixedBatch, WholeMix, mix

MIXERS = [WholeMix(1, alpha=1.0), BoxMix(1, alpha=1.0)]


def crops_of(labels: torch.Tensor) -> torch.Tensor:
    """(B, 1, 6, 8, 10): every voxel holds its crop's label, so that a crop's mean tells what it was mixed from."""
    return labels.float()[:, None, None, None, None].expand(-1, 1, 6, 8, 10).clone()


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixed_label_is_the_share_of_voxels_that_show_it(mixer: WholeMix | BoxMix) -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 1, 2])
    mixer.set_random_state(seed=3)
    images, shares = mix(crops_of(labels), labels, mixer)
    torch.testing.assert_close(images.mean(dim=(1, 2, 3, 4)), shares @ torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
    assert (shares.max(dim=1).values < 0.99).any()


@pytest.mark.parametrize("mixer", MIXERS)
def test_crops_without_a_label_are_neither_mixed_nor_mixed_in(mixer: WholeMix | BoxMix) -> None:
    labels = torch.tensor([0, MISSING, 2, MISSING, 1, 2])
    images = crops_of(labels)
    images[labels == MISSING] = 1000.0
    mixer.set_random_state(seed=0)
    mixed, shares = mix(images, labels, mixer)
    assert (mixed[labels == MISSING] == 1000.0).all()
    assert mixed[labels != MISSING].max() <= 2.0
    assert shares.sum(dim=1).tolist() == pytest.approx([1, 0, 1, 0, 1, 1])


@pytest.mark.parametrize("labels", [[1], [MISSING, MISSING], [2, MISSING]])
def test_a_batch_with_nothing_to_mix_stays_as_it_is(labels: list[int]) -> None:
    images = torch.randn(len(labels), 1, 6, 8, 10)
    for mixer in MIXERS:
        mixed, _ = mix(images, torch.tensor(labels), mixer)
        assert torch.equal(mixed, images)


@pytest.mark.parametrize("loss", [GradeLoss((1, 2, 4)), OrdinalLoss((1, 2, 4), label_smoothing=0.1)])
def test_mixed_labels_go_through_every_loss(loss: GradeLoss) -> None:
    labels = torch.tensor([0, MISSING, 2, 1])
    logits = torch.randn(4, 3, requires_grad=True)
    _, shares = mix(torch.randn(4, 1, 6, 8, 10), labels, MIXERS[1])
    loss(logits, shares).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True, True]


def test_the_box_takes_the_share_that_was_drawn_until_it_meets_the_border() -> None:
    mixer = BoxMix(2, alpha=1.0)
    mixer._params = (torch.tensor([0.488, 1.0]), np.array([1, 0]), [torch.tensor([0])] * 3)
    mixed = mixer.apply(crops_of(torch.tensor([0, 2]))[:, :, :5, :5, :5])
    assert float((mixed[0] == 2).float().mean()) == pytest.approx(4**3 / 5**3)
    assert (mixed[1] == 2).all()
    assert (mixed[0, 0, 4] == 0).all()


def test_each_epoch_s_seed_decides_what_is_mixed() -> None:
    batch = {"image": torch.randn(4, 1, 6, 8, 10), "label": torch.tensor([0, 1, 2, 1])}
    prepare = MixedBatch(MIXERS, prob=0.7, seed=5)
    first = [prepare(batch)[0] for _ in range(6)]
    prepare.set_random_state(seed=5)
    assert all(torch.equal(prepare(batch)[0], image) for image in first)
    untouched = sum(torch.equal(image, batch["image"]) for image in first)
    assert 0 < untouched < 6


def test_what_is_not_mixed_keeps_its_labels() -> None:
    batch = {"image": torch.randn(2, 1, 6, 8, 10), "label": torch.tensor([0, 1])}
    images, labels = MixedBatch(MIXERS, prob=0.0)(batch)
    assert torch.equal(images, batch["image"])
    assert labels.tolist() == [0, 1]


def test_no_mixer_or_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a mixer and prob must be in \[0, 1\], got 0 mixers and 0.5"):
        MixedBatch([])
    with pytest.raises(ValueError, match=r"got 2 mixers and 1.5"):
        MixedBatch(MIXERS, prob=1.5)
