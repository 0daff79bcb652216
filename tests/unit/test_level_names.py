"""Evidence for the names of discs: where the blocks lie, and what becomes of the network's answer."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_bundles import NAME_BLOCK, AnyName, NameByBrightness, brightness_of, write_bundles

from monai_spine.anatomy import DISCS
from monai_spine.errors import WeightsError
from monai_spine.geometry import affine_from_spacing, apply_affine, flip_axis
from monai_spine.level_candidates import Candidate
from monai_spine.level_names import CLASSES, LevelNamer, NameBlock, cut_name_blocks, upside_down
from monai_spine.models import NAMER
from monai_spine.volume import Volume
from monai_spine.weights import Bundle, find_bundle

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CROP = NameBlock.from_config(NAME_BLOCK)
SHAPE = (14, 110, 300)
AFFINE = affine_from_spacing((4.0, 1.5, 1.0), center_ras_mm=(2.0, -10.0, 5.0), shape=SHAPE)
CENTRES = [(2.0, -5.0, 95.0 - 35.0 * step) for step in range(len(DISCS))]


def brightening_volume() -> Volume:
    """A scan that grows brighter towards the feet, so that each disc's brightness says its name."""
    heights = apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))[..., 2]
    top, step = brightness_of(DISCS[0].label), brightness_of(DISCS[1].label) - brightness_of(DISCS[0].label)
    return Volume(np.asarray(top + step * (95.0 - heights) / 35.0, np.float32), AFFINE, slice_axis=0)


def uneven_volume() -> Volume:
    """A smooth scan that is alike along no axis."""
    r, a, s = np.moveaxis(apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0)
    return Volume(np.asarray(np.sin(r / 15 + s / 40) + np.cos(a / 30 - r / 20) + 0.01 * s + 0.02 * a, np.float32), AFFINE)


class Uneven(torch.nn.Module):
    """Logits (B, 8) that depend on every voxel of a block, each in another way."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = torch.randn(8, int(np.prod(shape)), generator=torch.Generator().manual_seed(0)) / 10

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) @ self.weight.T


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return find_bundle(NAMER, write_bundles(tmp_path_factory.mktemp("bundles")))


@pytest.fixture(scope="module")
def reading(bundle: Bundle) -> LevelNamer:
    """Reads each disc's name from the brightness of its block."""
    return LevelNamer(bundle, network=NameByBrightness().requires_grad_(False))


@pytest.fixture(scope="module")
def shipped() -> LevelNamer:
    """The bundle as it is shipped, but for its network."""
    found = find_bundle(NAMER, BUNDLES)
    return LevelNamer(found, network=Uneven(NameBlock.from_config(found.config("crop")).shape))


def seen(*strengths: float) -> list[Candidate]:
    """A candidate at each disc, its evidence all for one wrong name."""
    return [Candidate(point, (strength, *[0.0] * 5)) for point, strength in zip(CENTRES, strengths, strict=False)]


orders = st.permutations([0, 1, 2])
signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3)
small_turns = st.lists(st.floats(-25, 25), min_size=3, max_size=3)


@given(order=orders, sign=signs, degrees=small_turns)
def test_a_block_lies_along_the_scans_axes_behind_its_disc_however_the_scan_is_stored(order, sign, degrees) -> None:
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    scan = np.eye(4)
    scan[:3, :3] = (turn * [4.4, 0.7, 0.9])[:, order] * sign
    affine = CROP.affine(scan, (3.0, -20.0, 40.0))
    np.testing.assert_allclose(affine[:3, :3] / CROP.spacing_mm, turn, atol=1e-9, err_msg="right, front, up of the scan")
    middle = apply_affine(affine, (np.array(CROP.shape) - 1) / 2)
    np.testing.assert_allclose(middle, np.add((3.0, -20.0, 40.0), CROP.center_mm), atol=1e-9)


def test_the_network_says_the_names_and_the_localiser_how_sure_a_disc_is(reading) -> None:
    strengths = [0.9, 0.8, 0.3, 0.5, 1.0, 0.1]
    named = reading(brightening_volume(), seen(*strengths))
    assert [one.point_ras_mm for one in named] == CENTRES
    evidence = np.array([one.evidence for one in named])
    np.testing.assert_allclose(np.diag(evidence), strengths, rtol=0.02)
    np.testing.assert_allclose(evidence.sum(1), strengths, rtol=0.02)


def test_a_negative_is_named_at_the_second_look_where_that_makes_the_better_column(bundle) -> None:
    namer = LevelNamer(bundle, network=NameByBrightness().requires_grad_(False))
    volume, discs = brightening_volume(), seen(*[0.9] * 6)
    negative = replace(volume, array=np.asarray(upside_down(torch.from_numpy(volume.array))))
    names = {}
    for better_by in (None, 1.5, 1e6):
        namer.second_look = None if better_by is None else {"better_by": better_by}
        names[better_by] = [[int(np.argmax(one.evidence)) for one in namer(scan, discs)] for scan in (volume, negative)]
    assert names[1.5] == [[0, 1, 2, 3, 4, 5]] * 2
    assert names[None] == names[1e6]
    assert names[None][0] == names[1.5][0] != names[None][1]


def test_a_picture_is_looked_at_once(bundle) -> None:
    namer = LevelNamer(bundle, network=NameByBrightness().requires_grad_(False))
    picture = Volume(1.04 - brightening_volume().array[:1], AFFINE, slice_axis=0)
    namer.second_look = None
    once = namer(picture, seen(*[0.9] * 6))
    namer.second_look = {"better_by": 1.5}
    assert namer(picture, seen(*[0.9] * 6)) == once


def test_the_brightest_is_the_darkest_upside_down_and_air_stays_black() -> None:
    image = torch.tensor([0.0, 0.02, 0.05, 0.54, 1.0])
    torch.testing.assert_close(upside_down(image), torch.tensor([0.0, 0.02, 0.99, 0.5, 0.04]))


def test_evidence_for_several_names_adds_up_to_one_disc_at_most(reading) -> None:
    (named,) = reading(brightening_volume(), [Candidate(CENTRES[3], (0.9, 0.8, 0.7, 0.6, 0.5, 0.4))])
    assert sum(named.evidence) == pytest.approx(1.0, abs=1e-3)
    assert max(named.evidence) == named.evidence[3]


def test_a_disc_above_or_below_the_named_ones_keeps_little_evidence(reading) -> None:
    beyond = [(2.0, -5.0, 130.0), (2.0, -5.0, -115.0)]
    probabilities = reading.probabilities(brightening_volume(), beyond)
    assert [CLASSES[at] for at in probabilities.argmax(1)] == ["above", "below"]
    for named in reading(brightening_volume(), [Candidate(point, (0.9,) * 6) for point in beyond]):
        assert sum(named.evidence) < 0.05


def test_names_that_are_as_likely_share_the_evidence_evenly(bundle) -> None:
    (named,) = LevelNamer(bundle)(brightening_volume(), seen(0.6))
    assert named.evidence == pytest.approx([0.1] * 6, abs=1e-4)
    (without_first,) = LevelNamer(bundle, network=AnyName(first=1))(brightening_volume(), seen(0.6))
    assert without_first.evidence == pytest.approx([0.0, *[0.12] * 5], abs=1e-4)


def test_without_a_candidate_nothing_is_asked(bundle) -> None:
    def never(image: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the network was asked")

    assert LevelNamer(bundle, network=never)(brightening_volume(), []) == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(), (0, 1), (2,)], ids=["RAS", "LPS", "feet_first"])
def test_copies_of_a_scan_stored_in_any_order_get_the_same_answer(shipped, order, flips) -> None:
    volume = uneven_volume()
    array, affine = volume.array, volume.affine
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
    turn = np.zeros((4, 4))
    turn[[*order, 3], [0, 1, 2, 3]] = 1
    copy = Volume(np.ascontiguousarray(np.transpose(array, order)), affine @ turn)
    expected = shipped.probabilities(volume, CENTRES)
    assert np.abs(expected[0] - expected[-1]).max() > 0.05, "the answer depends on what is seen"
    np.testing.assert_allclose(shipped.probabilities(copy, CENTRES), expected, atol=1e-2)


def test_a_mirrored_patient_has_the_same_names(shipped) -> None:
    volume = uneven_volume()
    mirrored = Volume(volume.array, np.diag([-1.0, 1.0, 1.0, 1.0]) @ volume.affine)
    places = [(-r, a, s) for r, a, s in CENTRES]
    expected = shipped.probabilities(volume, CENTRES)
    np.testing.assert_allclose(shipped.probabilities(mirrored, places), expected, atol=1e-3)
    blocks = cut_name_blocks(volume, CENTRES, shipped.block, shipped.preprocessing)
    one, other = (torch.softmax(shipped.network(look), 1) for look in (blocks, blocks.flip(2)))
    assert (one - other).abs().max() > 0.05, "one look alone has a side"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [6, 64]}, "ValueError"),
        ({"spacing_mm": None}, "TypeError"),
        ({"center_mm": ["a", "b", "c"]}, "could not convert"),
        ({"shape": [0, 64, 64]}, r"shape .*1 to 512"),
        ({"shape": [64, 64, 10**6]}, r"shape .*1 to 512"),
        ({"spacing_mm": [1.0, 0.0, 1.0]}, "spacing_mm .*above 0"),
        ({"spacing_mm": [1.0, -1.0, 1.0]}, "spacing_mm .*above 0"),
        ({"center_mm": [float("nan"), 0.0, 0.0]}, "center_mm .*finite"),
    ],
)
def test_a_crop_section_that_says_too_little_is_refused(change: dict, said: str) -> None:
    with pytest.raises(WeightsError, match=rf"naming bundle cannot be used \(.*{said}.*three numbers each"):
        NameBlock.from_config({**NAME_BLOCK, **change})
    with pytest.raises(WeightsError, match="KeyError: 'shape'"):
        NameBlock.from_config({"spacing_mm": [1, 1, 1], "center_mm": [0, 0, 0]})


def test_an_answer_of_other_classes_is_refused(bundle: Bundle) -> None:
    namer = LevelNamer(bundle, network=lambda blocks: torch.zeros(len(blocks), 4))
    with pytest.raises(WeightsError, match=r"shape \(2, 4\); \(2, 8\) is needed"):
        namer.probabilities(Volume(np.zeros((8, 90, 90), np.float32), np.diag([4.0, 2.0, 2.0, 1.0])), CENTRES[:2])


def test_a_bundle_without_a_crop_section_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    root = shutil.copytree(bundle.root, tmp_path / NAMER)
    config = root / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"crop"', '"cut"'))
    with pytest.raises(WeightsError, match="has no 'crop'"):
        LevelNamer(find_bundle(NAMER, tmp_path))
