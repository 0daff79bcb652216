"""The 2.5D network: shapes, attention, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DenseNet121
from torch import nn

from monai_spine.networks.sliced import SlicedClassifier
from monai_spine.training.losses import GradeLoss

SHAPES = [(6, 40, 44), (40, 6, 44), (40, 44, 6)]
GROUPS = ("group", {"num_groups": 4})


def sliced(axis: int = 0, *, neighbours: int = 1, channels: int = 1) -> SlicedClassifier:
    torch.manual_seed(0)
    encoder = DenseNet121(2, channels * (2 * neighbours + 1), 16, block_config=(1, 1, 1, 1), norm=GROUPS)
    return SlicedClassifier(encoder, features=16, out_channels=3, axis=axis, neighbours=neighbours).eval()


def crops(shape: tuple[int, ...] = SHAPES[0], count: int = 3) -> torch.Tensor:
    return torch.randn(count, 1, *shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("axis", "shape"), list(enumerate(SHAPES)))
def test_it_gives_three_logits_and_a_weight_per_slice_along_any_axis(axis: int, shape: tuple[int, ...]) -> None:
    network = sliced(axis)
    with torch.inference_mode():
        assert network(crops(shape)).shape == (3, 3)
        weights = network.attention(crops(shape))
    assert weights.shape == (3, 6)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_a_crop_taken_apart_along_another_axis_is_seen_as_the_same_slices() -> None:
    first, last, image = sliced(0), sliced(2), crops()
    last.load_state_dict(first.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(last(image.permute(0, 1, 3, 4, 2)), first(image))


def test_slices_stand_beside_their_neighbours_and_the_outermost_are_repeated() -> None:
    numbered = torch.arange(4.0)[None, None, :, None, None].expand(1, 1, 4, 2, 2)
    seen = sliced(0, neighbours=1).slices(numbered)[0, :, :, 0, 0]
    assert seen.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


def test_channels_stay_together_beside_the_neighbours() -> None:
    numbered = torch.arange(3.0)[None, None, :, None, None] + torch.tensor([0.0, 10.0])[None, :, None, None, None]
    seen = sliced(0, neighbours=1, channels=2).slices(numbered.expand(1, 2, 3, 2, 2))[0, :, :, 0, 0]
    assert seen[1].tolist() == [0, 10, 1, 11, 2, 12]


def test_without_neighbours_the_order_and_the_number_of_equal_slices_have_no_say() -> None:
    network, image = sliced(neighbours=0), crops()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.inference_mode():
        torch.testing.assert_close(network(image[:, :, order]), network(image))
        torch.testing.assert_close(network.attention(image[:, :, order]), network.attention(image)[:, order])
        torch.testing.assert_close(network(image.repeat_interleave(2, dim=2)), network(image))


def test_with_neighbours_their_order_has_a_say() -> None:
    network, image = sliced(neighbours=1), crops()
    with torch.inference_mode():
        assert not torch.allclose(network(image.flip(2)), network(image), atol=1e-5)


def test_a_crop_s_answer_does_not_depend_on_the_others_of_its_batch() -> None:
    network, image = sliced().train(), crops()
    with torch.inference_mode():
        torch.testing.assert_close(network(image)[1:2], network(image[1:2]))


def test_attention_decides_which_slice_counts() -> None:
    """An encoder that tells the slice's mean, and a score that looks for the brightest: the pooled feature becomes its own."""
    network = SlicedClassifier(_Mean(), features=1, out_channels=2, axis=0, neighbours=0, hidden=1)
    with torch.no_grad():
        network.score[0].weight.fill_(1.0), network.score[0].bias.fill_(-2.0), network.score[2].weight.fill_(50.0)
        network.class_layers[1].weight.fill_(1.0), network.class_layers[1].bias.zero_()
    levels = torch.tensor([0.5, 3.0, 1.0])
    image = levels[None, None, :, None, None].expand(1, 1, 3, 4, 4)
    with torch.inference_mode():
        assert float(network.attention(image)[0, 1]) > 0.99
        assert network(image)[0].tolist() == pytest.approx([3.0, 3.0], abs=0.05)


class _Mean(nn.Module):
    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return slices.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda network: torch.jit.trace(network, crops())])
def test_scripted_and_traced_it_answers_the_same(compiled: object) -> None:
    network = sliced()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(network)(crops()), network(crops()))  # type: ignore[operator]


def test_the_scripted_network_still_tells_its_attention() -> None:
    network = sliced()
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.script(network).attention(crops()), network.attention(crops()))


def test_it_learns_one_batch_by_heart() -> None:
    network, image, labels = sliced().train(), crops((4, 32, 32), count=4), torch.tensor([0, 1, 2, 0])
    optimizer, loss = torch.optim.AdamW(network.parameters(), lr=0.01), GradeLoss()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(network(image), labels)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]  # the shares of the labels alone would leave 0.9 of it
    assert network.score[0].weight.grad is not None
    assert network.score[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("axis", "neighbours"), [(3, 1), (0, -1)])
def test_an_axis_or_a_number_of_neighbours_that_cannot_be_is_refused(axis: int, neighbours: int) -> None:
    with pytest.raises(ValueError, match=rf"got {axis} and {neighbours}"):
        SlicedClassifier(nn.Identity(), features=4, out_channels=3, axis=axis, neighbours=neighbours)
