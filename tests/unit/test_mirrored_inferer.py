"""A mirrored scan gets the mirrored answer."""

from __future__ import annotations

import torch
from monai.inferers import SimpleInferer

from monai_spine.mirrored_inferer import MirroredInferer


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv3d(1, 2, 3, padding=1).eval()


def test_a_mirrored_scan_gets_the_mirrored_answer() -> None:
    convolution, image = network(), torch.rand(3, 1, 5, 4, 6)
    with torch.inference_mode():
        answer, of_mirrored = MirroredInferer()(image, convolution), MirroredInferer()(image.flip(2), convolution)
        single, of_mirrored_single = SimpleInferer()(image, convolution), SimpleInferer()(image.flip(2), convolution)
    assert answer.shape == (3, 2, 5, 4, 6)
    torch.testing.assert_close(of_mirrored.flip(2), answer)
    assert not torch.allclose(of_mirrored_single.flip(2), single, atol=1e-3)


def test_a_network_without_sides_answers_as_at_one_look() -> None:
    image = torch.rand(1, 1, 4, 4, 4)
    torch.testing.assert_close(MirroredInferer()(image, torch.sigmoid), torch.sigmoid(image))
