"""What a network takes from weights of its own kind, and from those of a 2D network."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet

from monai_spine.errors import WeightsError
from monai_spine.training.starting import start_network
from monai_spine.training.transfer import inflated, read_weights, transfer_weights

TRUNK = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2)}
SHORTER = {**TRUNK, "block_config": (2,)}
GROUPS = ("group", {"num_groups": 4})


def densenet(dims: int, *, channels: int = 1, classes: int = 3, trunk: dict = TRUNK, norm: object = "batch") -> DenseNet:
    """A network whose norms have seen something, so that none of its numbers is a default."""
    network = DenseNet(dims, channels, classes, norm=norm, **trunk)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, (torch.nn.GroupNorm, torch.nn.modules.batchnorm._BatchNorm)):
                part.weight.uniform_(0.5, 1.5)
                part.bias.uniform_(-0.5, 0.5)
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 1.5)
    return network.eval()


def saved(path: Path, network: torch.nn.Module, rename: str = "monai") -> Path:
    """A file as MONAI, or a release of torchvision, writes it: `norm1`, or `norm.1`."""
    state = network.state_dict()
    if rename != "monai":
        state = {name.replace("class_layers.out", "classifier").replace(".layers.", "."): value for name, value in state.items()}
    if rename == "old torchvision":
        state = {
            name.replace("norm1", "norm.1")
            .replace("norm2", "norm.2")
            .replace("conv1", "conv.1")
            .replace("conv2", "conv.2"): value
            for name, value in state.items()
            if "num_batches" not in name
        }
    torch.save(state, path)
    return path


@pytest.mark.parametrize("through_axis", [0, 1, 2])
@pytest.mark.parametrize("norm", ["batch", GROUPS])
def test_on_a_crop_with_equal_slices_an_inflated_network_has_the_2d_network_s_features(
    tmp_path: Path, through_axis: int, norm: object
) -> None:
    flat, network = densenet(2, norm=norm), densenet(3, norm=norm)
    start_network(network, saved(tmp_path / "flat.pt", flat), through_axis=through_axis)
    picture = torch.randn(2, 1, 40, 56)
    axis = 2 + through_axis
    crop = picture.unsqueeze(axis).repeat_interleave(16, dim=axis)
    with torch.no_grad():
        expected, found = flat.features(picture), network.features(crop)
    assert expected.std() > 0.1
    for features in found.unbind(axis):
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_a_network_of_coloured_pictures_sees_a_grey_crop_as_a_grey_picture(tmp_path: Path) -> None:
    flat, network = densenet(2, channels=3, classes=10), densenet(3)
    start_network(network, saved(tmp_path / "flat.pt", flat), through_axis=0)
    picture = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected, found = (
            flat.features(picture.expand(-1, 3, -1, -1)),
            network.features(picture[:, :, None].repeat(1, 1, 8, 1, 1)),
        )
    torch.testing.assert_close(found[:, :, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rename", ["torchvision", "old torchvision"])
def test_names_of_torchvision_are_understood(tmp_path: Path, rename: str) -> None:
    flat = densenet(2, channels=3, classes=1000)
    one, other = densenet(3), densenet(3)
    start_network(one, saved(tmp_path / "monai.pt", flat), through_axis=0)
    start_network(other, saved(tmp_path / "vision.pth", flat, rename), through_axis=0)
    for (name, value), found in zip(one.features.state_dict().items(), other.features.state_dict().values(), strict=True):
        assert torch.equal(value, found), name


def test_the_head_begins_anew_and_the_report_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = densenet(3)
    head = network.class_layers.out.weight.clone()
    with caplog.at_level(logging.INFO):
        start_network(network, saved(tmp_path / "flat.pt", densenet(2, classes=7)), through_axis=0)
    assert torch.equal(network.class_layers.out.weight, head)
    assert "65 tensors taken, 10 of them 2D kernels made 3D: 100 % of the trunk" in caplog.text
    assert "begins anew: class_layers.out (2); not used: class_layers.out (2)" in caplog.text


def test_a_shorter_network_takes_the_beginning_of_a_longer_one_without_its_last_norm() -> None:
    longer = densenet(2, trunk={**TRUNK, "block_config": (2, 4, 4)})
    network = densenet(3, trunk={**TRUNK, "block_config": (2, 4)})
    transfer = transfer_weights(network, longer.state_dict(), through_axis=0)
    assert {name.split(".")[1] for name in transfer.new} == {"norm5", "out"}
    assert {name.split(".")[1] for name in transfer.unused} == {"transition2", "denseblock3", "norm5", "out"}
    assert 0.9 < transfer.share < 1


def test_group_norms_take_scale_and_shift_of_batch_norms_and_no_statistics() -> None:
    flat = densenet(2)
    transfer = transfer_weights(densenet(3, norm=GROUPS), flat.state_dict(), through_axis=0)
    assert torch.equal(transfer.taken["features.norm0.weight"], flat.features.norm0.weight)
    assert all("running" in name or "class_layers" in name for name in transfer.unused)
    assert transfer.share == 1


def test_a_kernel_of_another_size_does_not_fit() -> None:
    assert inflated(torch.ones(4, 3, 7, 7), (4, 3, 5, 7, 7), 0).sum() == 4 * 3 * 49
    assert inflated(torch.ones(4, 2, 3, 3), (4, 2, 3, 5, 5), 0) is None
    assert inflated(torch.ones(4, 3, 7, 7), (4, 1, 7, 7, 7), 0) is None


def test_too_little_of_a_2d_network_is_refused_by_name(tmp_path: Path) -> None:
    wider = saved(tmp_path / "wider.pt", densenet(2, trunk={**TRUNK, "growth_rate": 8}))
    expected = (
        r"wider.pt: The weights do not fit the network: \d+ % of its trunk .*denseblock1.*"
        r"\(32 × 8 × 1 × 1 in the file, 16 × 8 × 1 × 1 × 1 in the network\).* and \d+ more"
    )
    with pytest.raises(WeightsError, match=expected):
        start_network(densenet(3), wider, through_axis=0)
    with pytest.raises(WeightsError, match="0 % of its trunk"):
        start_network(densenet(3), saved(tmp_path / "linear.pt", torch.nn.Linear(3, 3)), through_axis=0)


def test_2d_weights_need_to_know_the_axis_across_the_slices(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="`through_axis` does not say"):
        start_network(densenet(3), saved(tmp_path / "flat.pt", densenet(2)))


@pytest.mark.parametrize("kind", ["last", "wrapped", "state_dict"])
def test_a_checkpoint_that_holds_the_network_is_as_good_as_its_state_dict(tmp_path: Path, kind: str) -> None:
    source, network = densenet(3), densenet(3)
    state = source.state_dict()
    content = {
        "last": {"trainer": {"epoch": 3}, "network": state, "optimizer": {"state": {}}},
        "wrapped": {f"module.{name}": value for name, value in state.items()},
        "state_dict": {"state_dict": {f"net.encoder.{name}": value for name, value in state.items()}, "epoch": 1},
    }[kind]
    torch.save(content, tmp_path / "any.pt")
    start_network(network, tmp_path / "any.pt")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_weights_of_other_classes_leave_the_head_new_and_nothing_else(tmp_path: Path) -> None:
    source, network = densenet(3, classes=5), densenet(3, classes=3)
    transfer = transfer_weights(network, source.state_dict())
    assert set(transfer.new) == set(transfer.unused) == {"class_layers.out.weight", "class_layers.out.bias"}
    start_network(network, saved(tmp_path / "five.pt", source))
    assert torch.equal(network.features.conv0.weight, source.features.conv0.weight)
    assert network.class_layers.out.weight.shape == (3, 16)


class Branches(torch.nn.Module):
    """Two DenseNets and a head of their own, as larger networks are built."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunks = torch.nn.ModuleList(densenet(3, classes=8) for _ in range(2))
        self.out = torch.nn.Linear(16, classes)


def test_each_densenet_within_a_network_takes_the_weights_of_one(tmp_path: Path) -> None:
    network, source = Branches(3), densenet(2, channels=3)
    head = network.out.weight.clone()
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "wrapped.pt")
    start_network(network, tmp_path / "wrapped.pt", through_axis=1)
    for trunk in network.trunks:
        assert torch.equal(trunk.features.conv0.weight[:, :, :, 3], source.features.conv0.weight.sum(dim=1, keepdim=True))
        assert torch.equal(trunk.features.norm5.running_mean, source.features.norm5.running_mean)
    assert torch.equal(network.out.weight, head)
    with pytest.raises(WeightsError, match=r"trunks.0.features.transition1.*nothing in the file"):
        transfer_weights(network, densenet(3, trunk=SHORTER).state_dict())


def test_a_network_of_several_densenets_goes_on_from_its_own_weights(tmp_path: Path) -> None:
    source, network = Branches(3), Branches(3)
    start_network(network, saved(tmp_path / "own.pt", source))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_weights_of_the_same_kind_must_fit_all_of_the_trunk() -> None:
    with pytest.raises(WeightsError, match=r"transition1.*nothing in the file"):
        transfer_weights(densenet(3), densenet(3, trunk=SHORTER).state_dict())
    with pytest.raises(WeightsError, match=r"transition1.*in the file, nothing in the network\) and 20 more"):
        transfer_weights(densenet(3, trunk=SHORTER), densenet(3).state_dict())


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "network": {}}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match=r"empty.pt .* holds no state dict, neither itself nor as network, state_dict"):
        read_weights(tmp_path / "empty.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "tensor.pt")
