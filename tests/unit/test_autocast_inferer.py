"""Training in bfloat16 on a processor: near the plain answer, and in its type."""

from __future__ import annotations

import torch

from monai_spine.training.autocast_inferer import AutocastInferer

IMAGE = torch.rand(2, 1, 6, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 3, padding=1))


def test_the_answer_is_float32_and_near_the_plain_one() -> None:
    convolutions = network()
    answer, plain = AutocastInferer(enabled=True)(IMAGE, convolutions), convolutions(IMAGE)
    assert answer.dtype is torch.float32
    torch.testing.assert_close(answer, plain, atol=0.01, rtol=0.05)
    assert not torch.equal(answer, plain), "it was computed in fewer digits"


def test_without_it_the_answer_is_the_plain_one() -> None:
    convolutions = network()
    assert torch.equal(AutocastInferer(enabled=False)(IMAGE, convolutions), convolutions(IMAGE))


def test_weights_stay_float32_and_get_gradients_near_the_plain_ones() -> None:
    mixed, plain = network(), network()
    AutocastInferer(enabled=True)(IMAGE, mixed).square().mean().backward()
    plain(IMAGE).square().mean().backward()
    for one, other in zip(mixed.parameters(), plain.parameters(), strict=True):
        assert one.dtype is one.grad.dtype is torch.float32
        torch.testing.assert_close(one.grad, other.grad, atol=0.01, rtol=0.1)
        assert one.grad.abs().max() > 0


def test_further_arguments_reach_the_network() -> None:
    answer = AutocastInferer(enabled=True)(IMAGE, lambda image, factor, *, shift: factor * image + shift, 2.0, shift=1.0)
    torch.testing.assert_close(answer, 2 * IMAGE + 1)


def test_by_itself_it_follows_the_processor() -> None:
    assert AutocastInferer().enabled is bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


class WrongInFewDigits(torch.nn.Module):
    """A convolution whose gradient is three times as large in mixed precision."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = network()[0]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer = self.convolution(image)
        return 3 * answer - 2 * answer.detach() if torch.is_autocast_enabled("cpu") else answer


def test_where_gradients_are_wrong_it_is_given_up_before_the_first_step() -> None:
    wrong, inferer = WrongInFewDigits(), AutocastInferer(enabled=True)
    inferer(IMAGE, wrong).mean().backward()
    expected = torch.autograd.grad(wrong.convolution(IMAGE).mean(), wrong.convolution.weight)[0]
    torch.testing.assert_close(wrong.convolution.weight.grad, expected)
    assert not inferer.enabled
    assert wrong.training, "the check leaves the network as it was"


class WrongWeights(torch.nn.Conv3d):
    """A layer whose weights, and only they, get a gradient three times as large in mixed precision."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer = super().forward(image)
        if not torch.is_autocast_enabled("cpu"):
            return answer
        fixed = torch.nn.functional.conv3d(image.detach(), self.weight, self.bias, padding=1)
        return answer + 2 * (fixed - fixed.detach())


def test_a_layer_whose_gradients_are_wrong_stays_in_float32_and_the_others_do_not() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), WrongWeights(4, 2, 3, padding=1))
    plain = layers(IMAGE)
    expected = torch.autograd.grad(plain.square().mean(), list(layers.parameters()))
    inferer = AutocastInferer(enabled=True)
    mixed = inferer(IMAGE, layers)
    mixed.square().mean().backward()
    assert inferer.enabled
    assert not torch.equal(mixed, plain), "the first layer was computed in fewer digits"
    for one, other in zip(layers.parameters(), expected, strict=True):
        torch.testing.assert_close(one.grad, other, atol=0.01, rtol=0.1)
