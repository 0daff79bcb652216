"""Every architecture: against its definition, on the crops and pictures that it is to see, in training and as TorchScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from monai_spine.errors import ArchitectureError
from monai_spine.networks import monai_trunks
from monai_spine.networks.architectures import ARCHITECTURES, architecture, build_network
from monai_spine.networks.field import field_of
from monai_spine.networks.middle_slice import MiddleSlice
from monai_spine.networks.mnasnet import mnasnet
from monai_spine.networks.small import Inception
from monai_spine.networks.vgg import vgg

PUBLISHED = {
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "mnasnet0_75": 3_170_208,
    "mnasnet1_0": 4_383_312,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "efficientnet": 5_288_548,
    "vit": 22_050_664 - 384,  # MONAI's class token has no position
}
"""Weights at 1,000 classes and three colours in 2D, as published."""

KINDS = [*[name for name, one in ARCHITECTURES.items() if one.steps < 5 and name != "vit"], "vgg11", "mnasnet0_75", "resnet18"]
KINDS += ["resnet50", "vit", "densenet121", "efficientnet"]
"""One of each kind."""
CROPS = ((16, 56, 56), (9, 45, 51))
"""A grader's, and one whose edges are odd at every step."""
ROOT = Path(__file__).resolve().parents[2]


def needs(name: str) -> None:
    if name == "vit":
        pytest.importorskip("einops")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow VGG, a short ResNet-50 and a small ViT: what is tested of them does not depend on their size."""
    for name, changed in {"vgg11": {"hidden": 32}, "resnet50": {"layers": (2, 2, 2, 2)}}.items():
        one = ARCHITECTURES[name]
        monkeypatch.setitem(ARCHITECTURES, name, replace(one, trunk=partial(one.trunk, **changed)))
    monkeypatch.setattr("monai_spine.networks.vgg._WIDTHS", (16, 32, 32, 64, 64))
    for key, value in {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 3}.items():
        monkeypatch.setitem(monai_trunks.VISION_TRANSFORMER, key, value)


@pytest.fixture
def on_meta() -> Iterator[None]:
    """Networks without memory: shapes, no numbers."""
    with torch.device("meta"):
        yield


def weights_of(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_as_many_weights_as_were_published(name: str, on_meta: None) -> None:
    needs(name)
    network = build_network(name, shape=(224, 224), spatial_dims=2, in_channels=3, out_channels=1000)
    assert weights_of(network) == PUBLISHED[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_statistics_follow_a_training_of_a_few_hundred_steps(name: str, on_meta: None) -> None:
    needs(name)
    network = build_network(name, shape=CROPS[0], spatial_dims=2)
    kept = [part.momentum for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(one == 0.1 for one in kept)
    assert kept or name in {"vit", "vgg11", "vgg16", "ckan", "cnn", "mcnn", "simple_cnn", "inception_cnn"}


def test_an_inception_module_has_the_weights_of_googlenet_s_first() -> None:
    assert weights_of(Inception(2, 192)) == 163_696
    assert Inception(3, 192)(torch.zeros(1, 192, 3, 4, 5)).shape == (1, 256, 3, 4, 5)


def test_the_layers_of_vgg_and_mnasnet_have_the_published_shapes(on_meta: None) -> None:
    field, pictures = field_of((224, 224), 5, axes=("height", "width")), torch.zeros(1, 3, 224, 224)
    network = vgg(field, 3, 0.0, stages=(2, 2, 3, 3, 3)).module
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [part.out_channels for part in network.features if isinstance(part, nn.Conv2d)] == widths
    assert network.features(pictures).shape == (1, 512, 7, 7)
    assert [part.weight.shape for part in network.classifier if isinstance(part, nn.Linear)] == [(4096, 25088), (4096, 4096)]
    maps, sizes = pictures, []
    for part in mnasnet(field, 3, 0.0, width=1.0).module.layers:
        maps = part(maps)
        sizes.append((maps.shape[1], maps.shape[2]))
    stacks = [(24, 56), (40, 28), (80, 14), (96, 14), (192, 7), (320, 7)]
    assert sizes[7:14] == [(16, 112), *stacks]
    assert sizes[-1] == (1280, 7)


@pytest.mark.parametrize(
    ("name", "stage", "maps"),
    [
        ("resnet50", "layer", [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]),
        ("densenet121", "features.denseblock", [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (1024, 7, 7)]),
    ],
)
def test_the_stages_of_resnet_and_densenet_give_maps_of_the_published_sizes(
    name: str, stage: str, maps: list[tuple[int, ...]], on_meta: None
) -> None:
    network = build_network(name, shape=(224, 224), spatial_dims=2, in_channels=3)
    found: list[tuple[int, ...]] = []
    for number in range(1, 5):
        part = network.trunk.get_submodule(f"{stage}{number}")
        part.register_forward_hook(lambda part, given, answer: found.append(tuple(answer.shape[1:])))
    network(torch.zeros(1, 3, 224, 224))
    assert found == maps


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_takes_a_crop_as_a_volume_and_as_a_slice_with_the_weights_that_the_docs_say(
    name: str, on_meta: None
) -> None:
    needs(name)
    row = re.search(rf"^\| `{name}` .*", (ROOT / "docs" / "architectures.md").read_text(), flags=re.MULTILINE)
    stated = [float(cell) for cell in row[0].split("|")[-3:-1]] if row else []
    for crop in CROPS if name in KINDS else CROPS[:1]:
        networks = {dims: build_network(name, shape=crop, spatial_dims=dims).eval() for dims in (2, 3)}
        for dims, network in networks.items():
            assert network(torch.zeros(2, 1, *crop)).shape == (2, 3)
            kernels = {part.weight.dim() for part in network.modules() if isinstance(part, (nn.Conv2d, nn.Conv3d))}
            assert kernels == {dims + 2}
        if crop == CROPS[0]:
            assert [round(weights_of(networks[dims]) / 1e6, 2) for dims in (2, 3)] == stated


@pytest.mark.parametrize("crop", [(56, 56, 16), (40, 44, 40), (1, 9, 8)])
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_a_crop_may_be_thin_along_any_axis_or_none(name: str, crop: tuple[int, int, int], on_meta: None) -> None:
    needs(name)
    for dims in (2, 3):
        assert build_network(name, shape=crop, spatial_dims=dims).eval()(torch.zeros(2, 1, *crop)).shape == (2, 3)


@pytest.mark.parametrize("name", KINDS)
def test_every_architecture_answers_two_questions_about_a_picture(name: str, on_meta: None) -> None:
    needs(name)
    network = build_network(name, shape=(100, 90), spatial_dims=2, in_channels=3, out_channels=[5, 3]).eval()
    assert network(torch.zeros(2, 3, 100, 90)).shape == (2, 8)
    assert [name for name, _ in network.named_children()] == ["trunk", "class_layers"]


def test_deep_networks_come_down_to_few_voxels_along_all_axes() -> None:
    assert field_of((16, 56, 56), 5, axes="RAS").strides == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert field_of((16, 56, 56), 5, axes="RAS").last == (2, 2, 2)
    assert field_of((1, 100, 100), 5, axes="RAS").last == (1, 4, 4)
    assert field_of((224, 224), 5, axes="RA").strides == ((2, 2),) * 5


@pytest.mark.parametrize(("axis", "slices"), [(0, 4), (1, 4), (2, 4), (0, 5)])
def test_a_2d_network_sees_the_slice_through_the_middle_of_a_crop(axis: int, slices: int) -> None:
    size = [7, 8, 9]
    size[axis] = slices
    crop = torch.randn(2, 1, *size)
    middle = [1, 2] if slices == 4 else [2]
    expected = torch.stack([crop.select(axis + 2, at) for at in middle]).mean(dim=0)
    assert torch.equal(MiddleSlice(axis)(crop), expected)


def test_the_thinnest_axis_is_the_one_across_the_slices_unless_it_is_given(on_meta: None) -> None:
    assert build_network("cnn", shape=(56, 56, 16), spatial_dims=2).view.axis == 2
    assert build_network("cnn", shape=(40, 44, 40), spatial_dims=2).view.axis == 0
    assert build_network("cnn", shape=(40, 44, 40), spatial_dims=2, slice_axis=2).view.axis == 2
    assert build_network("vgg11", shape=(40, 44, 40), spatial_dims=3, slice_axis=2).trunk.avgpool.output_size == (7, 7, 1)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_weight_learns_and_one_batch_can_be_learnt_by_heart(name: str, dims: int, small: None) -> None:
    needs(name)
    torch.manual_seed(3)
    shape = (3, 32, 34)
    network = build_network(name, shape=shape, spatial_dims=dims)
    crops, labels = torch.randn(3, 1, *shape), torch.tensor([0, 1, 2])
    cross_entropy(network.eval()(crops), labels).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    optimizer = torch.optim.Adam(network.train().parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 60 and (not losses or losses[-1] > 0.1 * losses[0]):
        optimizer.zero_grad()
        loss = cross_entropy(network(crops), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= 0.1 * losses[0]


@pytest.mark.parametrize("name", KINDS)
def test_torchscript_answers_as_the_network_does(name: str, small: None) -> None:
    needs(name)
    shape = (3, 32, 34)
    dims = 2 if name in ("cnn", "vgg11", "resnet18") else 3
    network = build_network(name, shape=shape, spatial_dims=dims, out_channels=(5, 3), dropout_prob=0).eval()
    crops = torch.randn(2, 1, *shape)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        torch.testing.assert_close(torch.jit.script(network)(crops), network(crops))


def test_each_question_has_a_head_of_its_own() -> None:
    network = build_network("cnn", shape=(16, 16), spatial_dims=2, out_channels=(5, 3))
    network(torch.randn(2, 1, 16, 16))[:, :5].sum().backward()
    first, second = network.class_layers.heads
    assert first[-1].weight.grad is not None
    assert not second[-1].weight.grad.any()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ArchitectureError, match=r"no architecture 'resnet-50'\. Did you mean 'resnet50'\? Choose from: cnn, mcnn,"
    ):
        architecture("resnet-50")
    with pytest.raises(ArchitectureError, match=r"no architecture 'zzz'\. Choose from"):
        build_network("zzz", shape=(16, 16), spatial_dims=2)
    assert architecture(" VGG16 ").name == "vgg16"


@pytest.mark.parametrize("dims", [2, 3])
def test_a_crop_with_too_few_voxels_is_refused_with_the_axis_and_the_least_size(dims: int) -> None:
    shown = "24 × 30 voxels \\(R × S\\)" if dims == 2 else "24 × 8 × 30 voxels \\(R × A × S\\)"
    expected = (
        "vgg16 does not fit: it halves what it is shown 5 times and needs at least 32 voxels along S, the longest axis, "
        f"where {shown} "
        r"have 30\. Give the crop more voxels \(crop#shape\), or choose an architecture that fits: cnn, .*residual_cnn, vit\.$"
    )
    with pytest.raises(ArchitectureError, match=expected):
        build_network("vgg16", shape=(24, 8, 30), spatial_dims=dims)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shape": (64, 64), "spatial_dims": 3}, r"spatial_dims must be 2, or 3 for a crop of 3 edges, got 3 for \[64, 64\]"),
        ({"shape": (64, 64, 64), "spatial_dims": 4}, "spatial_dims must be 2, or 3"),
        ({"shape": (64,), "spatial_dims": 2}, r"3 edges or a picture of 2, in voxels, got \[64\]"),
        ({"shape": (64, 0, 64), "spatial_dims": 2}, r"in voxels, got \[64, 0, 64\]"),
        ({"shape": ((64, 64, 64), (64, 64, 64)), "spatial_dims": 3}, "in voxels, got"),
        (
            {"shape": (64, 64, 64), "spatial_dims": 2, "slice_axis": 3},
            "slice_axis must be 0, 1 or 2, of a crop of 3 edges, got 3",
        ),
        ({"shape": (64, 64), "spatial_dims": 2, "slice_axis": 0}, "slice_axis must be 0, 1 or 2, of a crop of 3 edges, got 0"),
    ],
)
def test_shapes_that_cannot_be_seen_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_network("cnn", **given)


def test_a_slice_outside_of_the_three_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="axis must be 0, 1 or 2, got 3"):
        MiddleSlice(3)
