"""An image and its negative get one answer."""

from __future__ import annotations

import torch

from monai_spine.inverted_inferer import InvertedInferer, inverted
from monai_spine.mirrored_inferer import MirroredInferer


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(240, 3)
    ).eval()


def test_the_brightest_is_the_darkest_and_air_stays_black() -> None:
    torch.testing.assert_close(inverted(torch.tensor([0.0, 0.02, 0.05, 0.54, 1.0])), torch.tensor([0.0, 0.02, 0.99, 0.5, 0.04]))


def test_an_image_and_its_negative_get_the_same_answer() -> None:
    looks, image = InvertedInferer(), torch.rand(3, 1, 5, 4, 6) * 0.9 + 0.05
    with torch.inference_mode():
        answer, of_negative, plain = looks(image, network()), looks(inverted(image), network()), network()(image)
    assert answer.shape == (3, 3)
    torch.testing.assert_close(of_negative, answer)
    assert not torch.allclose(plain, answer, atol=1e-3)


def test_each_look_can_be_a_mirrored_one_too() -> None:
    looks, image = InvertedInferer(MirroredInferer(mirror_back=False)), torch.rand(2, 1, 5, 4, 6)
    with torch.inference_mode():
        torch.testing.assert_close(looks(image.flip(2), network()), looks(image, network()))
