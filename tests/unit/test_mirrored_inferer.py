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


def classifier(image: torch.Tensor) -> torch.Tensor:
    """Logits (B, 3) that are not the same for both sides of the image, nor for all of its halves."""
    right = image[:, 0, image.shape[2] // 2 :].mean((1, 2, 3))
    return torch.stack([right, 2 * right, image[:, 0, 0].mean((1, 2))], dim=1)


def test_an_answer_without_places_is_averaged_and_not_mirrored_back() -> None:
    image = torch.rand(4, 1, 6, 4, 5)
    answer = MirroredInferer(mirror_back=False)(image, classifier)
    torch.testing.assert_close(answer, (classifier(image) + classifier(image.flip(2))) / 2)
    torch.testing.assert_close(MirroredInferer(mirror_back=False)(image.flip(2), classifier), answer)
    assert not torch.allclose(classifier(image.flip(2)), classifier(image), atol=1e-3)


def test_answers_with_places_need_to_be_mirrored_back() -> None:
    image = torch.rand(1, 1, 5, 4, 6)
    back, not_back = (MirroredInferer(mirror_back=mirror_back)(image, torch.sigmoid) for mirror_back in (True, False))
    torch.testing.assert_close(back, torch.sigmoid(image))
    assert not torch.allclose(not_back, back, atol=1e-3)


def test_an_image_that_is_its_own_mirror_is_looked_at_once_with_the_same_answer() -> None:
    convolution, flat = network(), torch.rand(2, 1, 1, 4, 6).expand(2, 1, 5, 4, 6)
    seen: list[int] = []

    def counted(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return convolution(images)

    with torch.inference_mode():
        answer = MirroredInferer()(flat, counted)
        both = (convolution(flat) + convolution(flat.flip(2)).flip(2)) / 2
    assert seen == [2]
    torch.testing.assert_close(answer, both)
