"""A crop is looked at as it is, moved, turned and mirrored, in millimetres."""

from __future__ import annotations

import pytest
import torch

from monai_spine.augmented_inferer import AugmentedInferer, Look
from monai_spine.branches import stacked

SAGITTAL = {"size_mm": [16.0, 40.0, 20.0], "shape": [4, 40, 40]}
"""Voxels of 4, 1 and 0.5 mm."""


def crops() -> torch.Tensor:
    """Two crops with a bright voxel each."""
    images = torch.zeros(2, 1, 4, 40, 40)
    images[0, 0, 1, 20, 20] = 1.0
    images[1, 0, 2, 5, 30] = 1.0
    return images


def brightest(image: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(index) for index in torch.unravel_index(image.argmax(), image.shape))


def test_without_moves_the_answer_is_that_of_one_look() -> None:
    network = lambda images: images.flatten(1)[:, :3]  # noqa: E731
    images = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    one = AugmentedInferer({"size_mm": [4, 4, 4], "shape": [4, 4, 4]})(images, network)
    torch.testing.assert_close(torch.softmax(one, dim=1), torch.softmax(network(images), dim=1))


@pytest.mark.parametrize(
    ("shift_mm", "place"), [((4.0, 0.0, 0.0), (0, 20, 20)), ((0.0, 3.0, 0.0), (1, 17, 20)), ((0.0, 0.0, -1.0), (1, 20, 22))]
)
def test_a_crop_that_is_moved_over_the_scan_shows_things_as_far_the_other_way(
    shift_mm: tuple[float, float, float], place: tuple[int, int, int]
) -> None:
    shown = AugmentedInferer(SAGITTAL).shown(crops(), Look(shift_mm=shift_mm))
    assert brightest(shown[0, 0]) == place
    assert float(shown[0].max()) == pytest.approx(1.0, abs=1e-4)


def test_a_turn_stays_within_the_slice_and_is_one_in_millimetres() -> None:
    """A quarter turn, short of a hair: 8 mm to the front of the middle become 8 mm up or down, which are twice as many voxels."""
    image = torch.zeros(1, 1, 4, 40, 40)
    image[0, 0, 2, 27:29, 19:21] = 1.0
    inferer = AugmentedInferer(SAGITTAL, rotation_deg=89.9)
    places = {brightest(inferer.shown(image, look)[0, 0]) for look in inferer.looks if look.rotation_deg}
    assert {place[0] for place in places} == {2}
    assert all(19 <= place[1] <= 20 for place in places)
    assert sorted(round(abs(place[2] - 19.5)) for place in places) == [16, 16]
    assert len({place[2] > 20 for place in places}) == 2


def test_looks_go_both_ways_along_each_axis_and_are_mirrored_only_where_there_is_no_side() -> None:
    moves = {"shift_mm": (0.0, 2.0, 3.0), "rotation_deg": 5.0}
    looks = AugmentedInferer(SAGITTAL, **moves).looks
    assert looks[0] == Look()
    assert {look.shift_mm for look in looks} == {(0, 0, 0), (0, 2, 0), (0, -2, 0), (0, 0, 3), (0, 0, -3)}
    assert len(looks) == 7
    assert not any(look.mirrored for look in looks)
    both = AugmentedInferer(SAGITTAL, **moves, flip=True)
    assert len(both.looks) == 14
    torch.testing.assert_close(both.shown(crops(), Look(mirrored=True)), crops().flip(2))


def test_the_answer_is_the_mean_probability_over_all_looks() -> None:
    inferer = AugmentedInferer(SAGITTAL, shift_mm=(4.0, 0.0, 0.0), flip=True)
    network = lambda images: 5 * images[:, 0, :3, 20, 20]  # noqa: E731
    wanted = torch.stack([torch.softmax(network(inferer.shown(crops(), look)), dim=1) for look in inferer.looks]).mean(dim=0)
    torch.testing.assert_close(torch.softmax(inferer(crops(), network), dim=1), wanted)
    assert float(wanted.std(dim=0).max()) > 0.01


@pytest.mark.parametrize("look", [Look((0.0, 3.0, 0.0)), Look((4.0, 0.0, -2.0), mirrored=True), Look(rotation_deg=20)])
def test_crops_of_several_series_are_each_moved_in_their_own_millimetres(look: Look) -> None:
    """Put together and shown is shown and put together."""
    axial = {"size_mm": [40.0, 20.0, 16.0], "shape": [40, 40, 4]}
    together = {key: [SAGITTAL[key], axial[key]] for key in SAGITTAL}
    one, other = torch.rand(2, 1, 1, 4, 40, 40), torch.rand(2, 1, 1, 40, 40, 4)
    pair = lambda first, second: torch.tensor(stacked([first[0, 0].numpy(), second[0, 0].numpy()], together["shape"]))[None]  # noqa: E731
    shown = AugmentedInferer(together).shown(pair(one[0], other[0]), look)
    each = [AugmentedInferer(crop).shown(crops[0], look) for crop, crops in ((SAGITTAL, one), (axial, other))]
    torch.testing.assert_close(shown, pair(*each))


def test_a_missing_crop_of_several_stays_missing() -> None:
    together = {"size_mm": [SAGITTAL["size_mm"]] * 2, "shape": [SAGITTAL["shape"]] * 2}
    images = torch.rand(1, 2, 4, 40, 40)
    images[0, 1] = torch.nan
    shown = AugmentedInferer(together).shown(images, Look(shift_mm=(1.0, 1.0, 1.0), rotation_deg=5.0))
    assert shown[0, 1].isnan().all()
    assert not shown[0, 0].isnan().any()


@pytest.mark.parametrize(
    "wrong", [{"shift_mm": (8.0, 0.0, 0.0)}, {"shift_mm": (1.0, 1.0)}, {"shift_mm": (-1, 0, 0)}, {"rotation_deg": 90}]
)
def test_moves_beyond_the_crop_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="less than half the crop along R, A, S"):
        AugmentedInferer(SAGITTAL, **wrong)
