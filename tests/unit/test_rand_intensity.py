"""Intensities change at random, each image of a batch by itself, and again in the same way from the same seed."""

from __future__ import annotations

import torch

from monai_spine.training.intensities import RandIntensityd


def changed(images: torch.Tensor, *, seed: int, **limits: float) -> torch.Tensor:
    change = RandIntensityd(**limits)
    change.set_random_state(seed=seed)
    return change({"image": images})["image"]


def test_each_image_of_a_batch_is_changed_by_itself_and_stays_within_the_limits() -> None:
    images = torch.linspace(-2, 2, 4 * 5 * 6).reshape(1, 1, 4, 5, 6).repeat(8, 1, 1, 1, 1)
    found = changed(images, seed=1, contrast=0.2, brightness=0.1, gamma=0.0, noise=0.0)
    slopes = (found[:, 0, -1, -1, -1] - found[:, 0, 0, 0, 0]) / 4
    shifts = found.mean(dim=(1, 2, 3, 4))
    assert len(set(slopes.tolist())) == len(set(shifts.tolist())) == 8
    assert float((slopes - 1).abs().max()) <= 0.2 + 1e-5
    assert float(shifts.abs().max()) <= 0.1 + 1e-5
    torch.testing.assert_close(found, images * slopes.reshape(8, 1, 1, 1, 1) + shifts.reshape(8, 1, 1, 1, 1), atol=1e-5, rtol=0)


def test_a_batch_s_noise_has_the_drawn_deviation_and_comes_again_from_the_same_seed() -> None:
    quiet = {"contrast": 0.0, "brightness": 0.0, "gamma": 0.0}
    images = torch.zeros(6, 1, 12, 12, 12)
    first, again, other = (changed(images, seed=seed, noise=0.1, **quiet) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    deviations = first.std(dim=(1, 2, 3, 4))
    assert 0 < float(deviations.min()) < float(deviations.max()) <= 0.11


def test_no_limits_change_nothing() -> None:
    images = torch.randn(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed(images, seed=0, contrast=0.0, brightness=0.0, gamma=0.0, noise=0.0), images)
