"""Checkpoints in torchvision's layout, which these tests write: into 2D networks as they are, into 3D ones by inflation."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_spine.errors import WeightsError
from monai_spine.networks.architectures import ARCHITECTURES, build_network
from monai_spine.training.starting import start_network

HEADS = {"vgg11": "classifier.6", "mnasnet0_75": "classifier.1", "resnet18": "fc", "densenet121": "classifier"}
TENSORS = {"vgg11": 22, "mnasnet0_75": 314, "resnet18": 122, "densenet121": 727}
"""How many torchvision's files hold."""
SOME = {
    "vgg11": ["features.0.weight", "features.18.bias", "classifier.0.weight", "classifier.3.bias"],
    "mnasnet0_75": ["layers.0.weight", "layers.8.0.layers.3.weight", "layers.12.3.layers.7.running_var", "layers.15.bias"],
    "resnet18": ["conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight"],
    "densenet121": ["features.conv0.weight", "features.denseblock4.denselayer16.norm2.weight", "features.norm5.running_var"],
}
CROP = (3, 32, 34)


@pytest.fixture(autouse=True)
def _narrow_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    one = ARCHITECTURES["vgg11"]
    monkeypatch.setitem(ARCHITECTURES, "vgg11", replace(one, trunk=partial(one.trunk, hidden=32)))


def trained(name: str, classes: int = 10) -> nn.Module:
    """A 2D network for coloured pictures whose statistics are no defaults."""
    network = build_network(name, shape=CROP[1:], spatial_dims=2, in_channels=3, out_channels=classes)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1), part.running_var.uniform_(0.8, 1.2)
    return network.eval()


def saved(path: Path, network: nn.Module, name: str) -> Path:
    """Its weights under torchvision's names."""
    state = {key.removeprefix("trunk."): value for key, value in network.state_dict().items()}
    state = {key.replace("class_layers.out", HEADS[name]).replace(".layers.", "." if name == "densenet121" else ".layers."): value
             for key, value in state.items()}  # fmt: skip
    assert len(state) == TENSORS[name]
    assert set(SOME[name]) <= set(state)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", HEADS)
def test_a_2d_network_takes_all_of_the_trunk_and_sees_a_grey_picture_as_a_coloured_one(name: str, tmp_path: Path) -> None:
    source = trained(name)
    network = build_network(name, shape=CROP, spatial_dims=2, out_channels=(5, 3)).eval()
    start_network(network, saved(tmp_path / "weights.pth", source, name), through_axis=0)
    picture = torch.randn(2, 1, *CROP[1:])
    with torch.no_grad():
        expected, found = source.trunk(picture.expand(-1, 3, -1, -1)), network.trunk(picture)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "axis"), [*((name, 0) for name in HEADS), ("vgg11", 2)])
def test_an_inflated_network_has_the_2d_network_s_features_on_equal_slices(name: str, axis: int, tmp_path: Path) -> None:
    source = trained(name)
    shape = CROP if axis == 0 else (*CROP[1:], CROP[0])
    network = build_network(name, shape=shape, spatial_dims=3).eval()
    start_network(network, saved(tmp_path / "weights.pth", source, name), through_axis=axis)
    picture = torch.randn(2, 1, *CROP[1:])
    with torch.no_grad():
        expected = source.trunk(picture.expand(-1, 3, -1, -1))
        found = network.trunk(picture.unsqueeze(axis + 2).repeat_interleave(CROP[0], dim=axis + 2))
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_with_the_same_classes_is_taken_too(name: str, tmp_path: Path) -> None:
    source, network = trained(name, classes=3), build_network(name, shape=CROP, spatial_dims=2)
    start_network(network, saved(tmp_path / "weights.pth", source, name))
    assert torch.equal(network.class_layers.out.weight, source.class_layers.out.weight)


def test_weights_of_another_architecture_are_refused_with_the_first_five_that_differ(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", trained("resnet18"), "resnet18")
    network = build_network("mnasnet0_75", shape=CROP, spatial_dims=2)
    entry = r"trunk\.layers\.[\w.]+ \(nothing in the file, [\d × ]+ in the network\)"
    with pytest.raises(WeightsError, match=rf"What does not fit: {entry}(, {entry}){{4}} and \d+ more\. Give weights") as caught:
        start_network(network, path)
    assert len(re.findall("nothing in the file", str(caught.value))) == 5


def test_a_deeper_network_of_the_same_kind_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", trained("resnet18"), "resnet18")
    with torch.device("meta"):
        network = build_network("resnet50", shape=CROP, spatial_dims=2)
    with pytest.raises(WeightsError, match=r"trunk\.layer1\.0\.conv1\.weight \(64 × 64 × 3 × 3 in the file, 64 × 64 × 1 × 1 in"):
        start_network(network, path)


def test_a_trained_network_of_the_registry_goes_on_from_its_own_weights(tmp_path: Path) -> None:
    source, network = (build_network("resnet18", shape=CROP, spatial_dims=3) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    start_network(network, tmp_path / "model.pt")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())
