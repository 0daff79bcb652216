"""Grad-CAM points at what an answer hangs on, in pictures and volumes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_spine.ensemble import Ensemble
from monai_spine.errors import ArchitectureError
from monai_spine.explain import class_activation, feature_maps, first_filters
from monai_spine.networks.architectures import build_network


class Corner(nn.Module):
    """Answers 1 as far as the second half of a crop is bright, 0 as far as the first half is."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv = (nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.conv(image)
        half = maps.shape[2] // 2
        dims = tuple(range(1, maps.dim()))
        return torch.stack([maps[:, :, :half].mean(dim=dims), maps[:, :, half:].mean(dim=dims)], dim=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_is_brightest_where_the_evidence_lies(dims: int) -> None:
    image = torch.zeros(1, 1, *[8] * dims)
    image[:, :, 6] = 1.0
    heat = class_activation(Corner(dims), image, 1)
    assert heat.shape == (8,) * dims
    assert heat.argmax() // heat[0].size == 6
    assert heat.max() == 1


@pytest.mark.parametrize(("name", "dims"), [("resnet18", 3), ("ckan", 2), ("vit", 3)])
def test_every_kind_of_network_can_be_looked_into_and_stays_as_it_is(name: str, dims: int) -> None:
    network = build_network(name, shape=(8, 32, 32), spatial_dims=dims).eval()
    image = torch.rand(1, 1, 8, 32, 32)
    before = network(image)
    assert class_activation(network, image, 2).shape == ((32, 32) if dims == 2 else (8, 32, 32))
    maps = feature_maps(network, image)
    assert 1 <= len(maps) <= 3
    assert all(values.ndim == dims + 1 for values in maps.values())
    assert first_filters(network)[1].ndim == dims + 1
    assert torch.equal(network(image), before)


def test_an_ensemble_points_where_all_of_its_members_point() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[:, :, 6] = 1.0
    image[:, :, 1] = 0.5
    second, both = Corner(2), nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ensemble = Ensemble([second, both]).eval()
    heats = [class_activation(member, image, 1) for member in ensemble.members]
    together = class_activation(ensemble, image, 1)
    assert torch.allclose(torch.as_tensor(together), torch.as_tensor(sum(heats) / sum(heats).max()))
    assert list(feature_maps(ensemble, image)) == ["conv"]


def test_a_network_without_maps_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ArchitectureError, match="no place to point at"):
        class_activation(flat, torch.rand(1, 1, 8, 8), 0)
    with pytest.raises(ArchitectureError, match="no convolution"):
        first_filters(flat)
