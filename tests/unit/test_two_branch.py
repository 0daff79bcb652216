"""Two trunks, one answer: either crop may be missing, whatever stands in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet

from monai_spine.anatomy import LEVELS
from monai_spine.branches import Views, crop_specs, stacked
from monai_spine.crops import Crop
from monai_spine.errors import TableError, WeightsError
from monai_spine.networks.two_branch import BranchDropout, TwoBranchDenseNet
from monai_spine.training.branch_crops import BranchCrops
from monai_spine.training.branch_starting import start_branches

SHAPES = ((4, 6, 8), (6, 8, 4))
CROP = {
    "role": ["sagittal_t2", "axial_t2"],
    "size_mm": [[28, 40, 40], [40, 40, 20]],
    "shape": [[16, 56, 56], [56, 56, 16]],
    "mirror_right": False,
    "offset_mm": {level.label: [0, 0, 0] for level in LEVELS},
}


def network(**changes: object) -> TwoBranchDenseNet:
    torch.manual_seed(0)
    settings = {"init_features": 4, "growth_rate": 4, "block_config": [1, 1], "norm": ["group", {"num_groups": 2}], **changes}
    return TwoBranchDenseNet(3, 2, 3, **settings)


def crops(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 2, 8, 16, 16, generator=torch.Generator().manual_seed(1))


def without(image: torch.Tensor, branch: int) -> torch.Tensor:
    image = image.clone()
    image[:, branch] = torch.nan
    return image


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_target_gets_one_answer(dimensions: int) -> None:
    torch.manual_seed(0)
    plain = TwoBranchDenseNet(dimensions, 2, 5, init_features=4, growth_rate=4, block_config=[1, 1], norm="instance")
    assert plain.eval()(torch.randn(4, 2, *[16] * dimensions)).shape == (4, 5)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_missing_crop_changes_nothing_whatever_stands_in_it(branch: int) -> None:
    net = network().eval()
    net.stand_ins.data.normal_()
    expected, other = net(without(crops(), branch)), crops()
    other[:, branch] = 1000 * torch.randn_like(other[:, branch])
    other[:, branch, 0, 0, 0] = torch.nan
    torch.testing.assert_close(net(other), expected, atol=0, rtol=0)
    assert not torch.allclose(net(crops()), expected)
    assert not torch.allclose(net(without(crops(), 1 - branch)), expected)


def test_without_any_crop_the_answer_is_one_for_all() -> None:
    answers = network().eval()(torch.full((3, 2, 8, 16, 16), torch.nan))
    assert torch.isfinite(answers).all()
    torch.testing.assert_close(answers, answers[:1].expand(3, 3))


def test_gradients_flow_to_both_trunks_and_to_what_stands_in() -> None:
    net = network(branch_dropout=0.0).train()
    image = crops()
    image[0, 1] = torch.nan
    net(image).square().sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters())
    assert all(float(trunk.features.conv0.weight.grad.norm()) > 0 for trunk in net.trunks)
    assert [float(row.abs().sum()) > 0 for row in net.stand_ins.grad] == [False, True]
    alone = network(branch_dropout=0.0).train()
    alone(without(crops(), 0)).square().sum().backward()
    assert [float(trunk.features.conv0.weight.grad.norm()) > 0 for trunk in alone.trunks] == [False, True]


def test_branches_are_hidden_in_training_only_and_never_all_of_them() -> None:
    torch.manual_seed(0)
    hide, present = BranchDropout(0.4), torch.ones(4000, 2, dtype=torch.bool)
    seen = hide.train()(present)
    assert seen.any(dim=1).all()
    shares = (~seen).float().mean(dim=0)
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2]), atol=0.03, rtol=0)
    one = torch.tensor([[True, False], [False, True], [False, False]]).repeat(50, 1)
    assert torch.equal(hide(one), one)
    assert torch.equal(hide.eval()(present), present)


@pytest.mark.parametrize("prob", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(prob: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        network(branch_dropout=prob)


def test_one_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two branches, got 1"):
        TwoBranchDenseNet(3, 1, 3)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda net: torch.jit.trace(net, crops())], ids=["script", "trace"])
def test_scripted_and_traced_it_answers_the_same(compiled: object) -> None:
    net = network().eval()
    image = torch.cat([crops(2), without(crops(), 0), without(crops(), 1)])
    torch.testing.assert_close(compiled(net)(image), net(image))  # type: ignore[operator]


def test_it_trains_in_mixed_precision() -> None:
    net = network().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = net(without(crops(), 1))
    assert answer.dtype == torch.bfloat16
    answer.float().sum().backward()
    assert torch.isfinite(net.trunks[0].features.conv0.weight.grad).all()


def test_crops_are_stacked_slices_first_and_what_is_blank_is_missing() -> None:
    sagittal, axial = (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1 for shape in SHAPES)
    both = stacked([sagittal, axial], SHAPES)
    assert (both.shape, both.dtype) == ((2, 4, 6, 8), np.float32)
    np.testing.assert_array_equal(both[0], sagittal)
    assert both[1, 3, 1, 2] == axial[1, 2, 3]
    for nothing in (None, np.zeros(SHAPES[1], np.float32)):
        one = stacked([sagittal, nothing], SHAPES)
        np.testing.assert_array_equal(one[0], sagittal)
        assert np.isnan(one[1]).all()


def test_mirrored_views_keep_what_is_missing() -> None:
    crop = Crop(np.arange(192, dtype=np.float32).reshape(SHAPES[0]), np.eye(4), 1.0)
    views = Views((crop, None), SHAPES).mirrored()
    np.testing.assert_array_equal(views.image[0], crop.array[::-1])
    assert np.isnan(views.image[1]).all()


def test_a_crop_section_names_one_role_or_several() -> None:
    first, second = crop_specs(CROP)
    assert (first.role, first.size_mm, first.shape) == ("sagittal_t2", (28, 40, 40), (16, 56, 56))
    assert (second.role, second.size_mm, second.shape) == ("axial_t2", (40, 40, 20), (56, 56, 16))
    assert (first,) == crop_specs({**CROP, "role": "sagittal_t2", "size_mm": [28, 40, 40], "shape": [16, 56, 56]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [[16, 56, 56]]}, "an entry for each"),
        ({"size_mm": 3}, "an entry for each"),
        ({"role": ["axial_t2", "axial_t2"]}, "named once"),
        ({"shape": [[16, 56, 56], [48, 48, 16]]}, "16 × 56 × 56, 48 × 48 × 16 voxels cannot be the channels"),
    ],
)
def test_a_crop_section_that_cannot_be_stacked_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        crop_specs({**CROP, **changes})


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(TableError, match="None of 0 graded targets lies inside a sagittal_t2 or axial_t2 scan"):
        BranchCrops([], CROP)


def test_a_branch_begins_with_what_a_grader_sees_in_the_same_crop(tmp_path: Path) -> None:
    torch.manual_seed(3)
    settings = {"init_features": 4, "growth_rate": 4, "block_config": [1, 1], "norm": ["group", {"num_groups": 2}]}
    grader = DenseNet(3, 1, 3, **settings).eval()
    torch.save(grader.state_dict(), tmp_path / "axial.pt")
    two, untouched = network().eval(), network()
    start_branches(two, [None, tmp_path / "axial.pt"], [(8, 16, 16), (16, 16, 8)])
    axial = torch.randn(16, 16, 8)
    fed = torch.from_numpy(stacked([None, axial.numpy()], [(8, 16, 16), (16, 16, 8)]))[1:]
    seen = grader.class_layers[:-1](grader.features(axial[None, None]))
    torch.testing.assert_close(two.trunks[1](fed[None]), seen, atol=1e-5, rtol=1e-4)
    for one, other in zip(two.trunks[0].parameters(), untouched.trunks[0].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("weights", [[None], [None, None, None]])
def test_each_branch_has_its_own_start(weights: list[None]) -> None:
    with pytest.raises(WeightsError, match=f"{len(weights)} entries for 2 branches"):
        start_branches(network(), weights, [(8, 16, 16), (16, 16, 8)])


@pytest.mark.parametrize("shapes", [[16, 32, 32], [(8, 16, 16)]])
def test_each_branch_has_its_own_shape(shapes: list[object]) -> None:
    with pytest.raises(WeightsError, match=r"crop#shape is .*: give one shape for each of the 2 branches"):
        start_branches(network(), [None, None], shapes)  # type: ignore[arg-type]


def test_a_trunk_of_another_size_is_refused(tmp_path: Path) -> None:
    torch.save(DenseNet(3, 1, 3, init_features=8, growth_rate=4, block_config=[1, 1]).state_dict(), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="is no trunk for a branch"):
        start_branches(network(), [tmp_path / "other.pt", None], [(8, 16, 16), (16, 16, 8)])
