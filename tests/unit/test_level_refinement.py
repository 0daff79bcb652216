"""The second look at each disc: where its block lies, and what becomes of what is seen there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_bundles import BLOCK, DrawnLevel, write_bundles

from monai_spine.anatomy import DISCS, Level, Side, Vertebra
from monai_spine.errors import WeightsError
from monai_spine.geometry import affine_from_spacing, apply_affine, flip_axis, invert_affine, spacing_of, to_ras_axes
from monai_spine.level_doubts import Doubt
from monai_spine.level_refinement import DiscBlock, LevelRefiner, block_affine, column_direction, locate, refine_levels
from monai_spine.levels import BODY_VALUES, LevelPoint, Levels
from monai_spine.models import REFINER
from monai_spine.volume import Volume
from monai_spine.weights import Bundle, find_bundle

CROP = DiscBlock.from_config(BLOCK)
SHAPE = (16, 90, 280)
AFFINE = affine_from_spacing((4.0, 1.0, 1.0), center_ras_mm=(2.0, -10.0, 5.0), shape=SHAPE)
SACRUM = Doubt("sacrum_not_seen", "L5/S1 was named with a confidence of 0.31 only")
CENTRES = np.array([[2.0, -4.0 + 0.1 * step, 92.0 - 36.0 * step] for step in range(6)])


def column(levels: tuple[Level, ...] = DISCS, *, aside_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Levels:
    """The levels named, as a localiser finds them that is off by `aside_mm` everywhere."""
    found = {
        level: tuple(float(value) for value in np.add(centre, aside_mm)) for level, centre in zip(DISCS, CENTRES, strict=True)
    }
    points = tuple(LevelPoint(level, found[level], None, 0.9, "1.2", (Doubt("canal_not_seen", "", level),)) for level in levels)
    return Levels(points, (), (SACRUM,))


def bright_volume() -> Volume:
    """Discs as bright spots, so that a network that answers with brightness finds them."""
    places = apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    array = sum(np.exp(-((places - centre) ** 2).sum(-1) / (2 * 5.0**2)) for centre in CENTRES)
    return Volume(np.asarray(1000 * array, np.float32), AFFINE, slice_axis=0)


class BrightIsDisc(torch.nn.Module):
    """Calls whatever is bright a disc and the darkest nothing; sees nothing else."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image / 100 - 4, torch.full_like(image, -10.0).expand(-1, 4, -1, -1, -1)], dim=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return find_bundle(REFINER, write_bundles(tmp_path_factory.mktemp("bundles")))


@pytest.fixture(scope="module")
def drawn(bundle: Bundle) -> LevelRefiner:
    """Draws each disc where its block expects it, with all that is beside it."""
    return LevelRefiner(bundle)


@pytest.fixture(scope="module")
def bright(bundle: Bundle) -> LevelRefiner:
    return LevelRefiner(bundle, network=BrightIsDisc())


def maps_of(network: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.zeros(1, 1, *CROP.shape))[0].sigmoid().numpy()


orders = st.permutations([0, 1, 2])
signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3)
small_turns = st.lists(st.floats(-25, 25), min_size=3, max_size=3)
directions = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.8, 0.8)).map(lambda tilt: np.array([*tilt, 1.0]))


@given(order=orders, sign=signs, degrees=small_turns, up=directions)
def test_a_block_keeps_the_scans_slices_and_follows_the_column_however_the_scan_is_stored(order, sign, degrees, up) -> None:
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    scan = np.eye(4)
    scan[:3, :3] = (turn * [4.4, 0.7, 0.7])[:, order] * sign
    up = up / np.linalg.norm(up)
    affine = block_affine(scan, (3.0, -20.0, 40.0), up, CROP)
    axes = affine[:3, :3] / CROP.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) > 0
    assert axes[0, 0] > 0.5, "the first axis grows to the patient's right"
    np.testing.assert_allclose(axes[:, 0], turn[:, 0], atol=1e-9, err_msg="it is the scan's own, across its slices")
    assert axes[:, 2] @ up == pytest.approx(np.linalg.norm(up - (up @ axes[:, 0]) * axes[:, 0])), "the third goes up the column"
    middle = apply_affine(affine, (np.array(CROP.shape) - 1) / 2)
    np.testing.assert_allclose(axes.T @ (middle - [3.0, -20.0, 40.0]), CROP.center_mm, atol=1e-9)


def test_the_column_goes_up_between_the_nearest_known_discs() -> None:
    slanted = np.array([[0.0, 30.0, 80.0], [0.0, 0.0, 40.0], [np.nan] * 3, [0.0, 0.0, -40.0], [0.0, 5.0, -75.0]])
    np.testing.assert_allclose(column_direction(slanted, 0), [0.0, 0.6, 0.8])
    np.testing.assert_allclose(column_direction(slanted, 1), np.array([0, 30, 120]) / np.hypot(30, 120))
    known = slanted[np.isfinite(slanted).all(1)]
    np.testing.assert_allclose(column_direction(known, 2), column_direction(slanted, 3), err_msg="gaps make no difference")
    np.testing.assert_allclose(column_direction(slanted[1:2], 0), [0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def plainly_found(bright: LevelRefiner) -> Levels:
    return bright(bright_volume(), column(aside_mm=(1.5, 4.0, -5.0)))


@settings(max_examples=8, deadline=None)
@given(order=orders, flips=st.sets(st.integers(0, 2)))
def test_copies_of_a_scan_stored_in_any_order_give_the_same_points(bright, plainly_found, order, flips) -> None:
    volume = bright_volume()
    array, affine = volume.array, volume.affine
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
    turn = np.zeros((4, 4))
    turn[[*order, 3], [0, 1, 2, 3]] = 1
    copy = Volume(np.ascontiguousarray(np.transpose(array, order)), affine @ turn)
    found = bright(copy, column(aside_mm=(1.5, 4.0, -5.0)))
    np.testing.assert_allclose([level.disc_ras_mm for level in found.levels], CENTRES, atol=0.7)
    differences = np.subtract([one.disc_ras_mm for one in found.levels], [one.disc_ras_mm for one in plainly_found.levels])
    assert np.abs(differences).max() < 0.2


def test_a_mirrored_patient_has_mirrored_points(bright) -> None:
    volume = bright_volume()
    aside = (2.0, 3.0, 2.0)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored = replace(volume, affine=mirror @ volume.affine)
    points = column(aside_mm=aside)
    seen = replace(
        points, levels=tuple(replace(one, disc_ras_mm=(-one.disc_ras_mm[0], *one.disc_ras_mm[1:])) for one in points.levels)
    )
    found, of_mirrored = bright(volume, points), bright(mirrored, seen)
    for one, other in zip(found.levels, of_mirrored.levels, strict=True):
        np.testing.assert_allclose(other.disc_ras_mm, one.disc_ras_mm * np.array([-1, 1, 1]), atol=0.1)


def test_points_move_to_where_they_are_seen(bundle) -> None:
    refiner = LevelRefiner(bundle, network=DrawnLevel((0.0, 3.0, -4.0)))
    for found, centre in zip(refiner(bright_volume(), column()).levels, CENTRES, strict=True):
        np.testing.assert_allclose(found.disc_ras_mm - centre, [0.0, 3.0, -4.0], atol=0.5)
        np.testing.assert_allclose(found.canal_ras_mm - centre, [0.0, 3.0 - 24.0, -4.0], atol=0.7)


def test_names_confidences_and_doubts_stay_but_for_a_canal_that_is_seen_now(drawn) -> None:
    before = column()
    levels = drawn(bright_volume(), before)
    assert [(one.level, one.confidence, one.series_instance_uid) for one in levels.levels] == [
        (level, 0.9, "1.2") for level in DISCS
    ]
    assert levels.doubts == (SACRUM,)
    unsure = Doubt("low_confidence", "0.41", DISCS[0])
    doubtful = replace(before.levels[0], doubts=(unsure, *before.levels[0].doubts))
    assert drawn(bright_volume(), replace(before, levels=(doubtful, *before.levels[1:]))).levels[0].doubts == (unsure,)


def test_a_canal_that_is_not_seen_is_said_with_its_strongest_place(bundle) -> None:
    faint = LevelRefiner(bundle, network=lambda image: DrawnLevel()(image).clamp(max=-2.0))
    found = faint(bright_volume(), column()).levels[3]
    assert found.canal_ras_mm is None
    (doubt,) = found.doubts
    assert (doubt.flag, doubt.level) == ("canal_not_seen", DISCS[3])
    assert doubt.seen == "0.12 at the strongest place near where it should be, less than 0.2"


def test_a_point_that_is_not_seen_stays_where_it_was(bundle) -> None:
    blind = LevelRefiner(bundle, network=lambda image: torch.full((len(image), 5, *image.shape[2:]), -9.0))
    levels = column()
    canal = replace(levels.levels[2], canal_ras_mm=(2.0, -28.0, 20.0), doubts=())
    found = blind(bright_volume(), replace(levels, levels=(*levels.levels[:2], canal, *levels.levels[3:])))
    assert found.levels[0].disc_ras_mm == levels.levels[0].disc_ras_mm
    assert found.levels[0].flags == ("canal_not_seen",)
    assert found.levels[2] == replace(canal, slices=found.levels[2].slices)
    assert found.vertebrae == ()
    assert not found.bodies.array.any()


def test_points_stay_on_the_slice_of_a_scan_of_one_slice(bundle) -> None:
    refiner = LevelRefiner(bundle, network=DrawnLevel((6.0, 3.0, 0.0)))
    single = replace(bright_volume(), array=bright_volume().array[8:9])
    plane = apply_affine(single.affine, (0, 0, 0))[0]
    for found in refiner(single, column(aside_mm=(plane - 2.0, 0.0, 0.0))).levels:
        assert found.disc_ras_mm[0] == pytest.approx(plane)
        assert found.canal_ras_mm[0] == pytest.approx(plane)


def test_a_point_beyond_reach_is_not_taken_for_the_disc() -> None:
    affine = block_affine(AFFINE, CENTRES[2], np.array([0.0, 0.0, 1.0]), CROP)
    maps = maps_of(DrawnLevel((0.0, 0.0, 20.0)))
    found = locate(maps, affine, tuple(CENTRES[2]))
    assert (found.disc, found.canal, found.foramina) == (None, None, {})


@pytest.mark.parametrize("turned_deg", [-20.0, 0.0, 20.0])
def test_foramina_are_found_on_their_own_sides(turned_deg: float) -> None:
    scan = np.eye(4)
    scan[:3, :3] = Rotation.from_euler("z", turned_deg, degrees=True).as_matrix()
    affine = block_affine(scan, CENTRES[2], np.array([0.0, 0.0, 1.0]), CROP)
    axes = affine[:3, :3] / CROP.spacing_mm
    found = locate(maps_of(DrawnLevel((2.0, -3.0, 4.0))), affine, tuple(CENTRES[2]))
    assert set(found.foramina) == set(Side)
    for side, outwards in ((Side.LEFT, -17.0), (Side.RIGHT, 17.0)):
        away = axes.T @ (np.array(found.foramina[side]) - CENTRES[2])
        np.testing.assert_allclose(away, [2.0 + outwards, -3.0 - 19.0, 4.0 + 8.0], atol=1.0, err_msg=side.value)
    assert found.foramina[Side.LEFT][0] < found.canal[0] < found.foramina[Side.RIGHT][0]


@pytest.mark.parametrize("side", list(Side))
def test_a_foramen_that_is_not_seen_is_not_given(side: Side) -> None:
    affine = block_affine(AFFINE, CENTRES[2], np.array([0.0, 0.0, 1.0]), CROP)
    maps, middle = maps_of(DrawnLevel()), CROP.shape[0] // 2
    maps[2, slice(None, middle) if side is Side.LEFT else slice(middle, None)] = 0.0
    assert set(locate(maps, affine, tuple(CENTRES[2])).foramina) == {side.mirrored}


def test_foramina_go_with_the_levels_that_are_graded(drawn) -> None:
    levels = drawn(bright_volume(), column()).levels
    assert levels[0].level is Level.T12_L1
    assert levels[0].foramina_ras_mm == {}
    for found, centre in zip(levels[1:], CENTRES[1:], strict=True):
        for side, outwards in ((Side.LEFT, -17.0), (Side.RIGHT, 17.0)):
            np.testing.assert_allclose(found.foramina_ras_mm[side] - centre, [outwards, -19.0, 8.0], atol=1.5)


def test_a_foramen_outside_the_scan_is_not_given(drawn) -> None:
    whole, affine = bright_volume(), AFFINE.copy()
    affine[:3, 3] = apply_affine(AFFINE, (7, 0, 0))
    right_half = replace(whole, array=whole.array[7:], affine=affine)
    assert [set(found.foramina_ras_mm) for found in drawn(right_half, column()).levels[1:]] == 5 * [{Side.RIGHT}]


def test_bodies_bear_the_names_that_their_discs_give_them(drawn) -> None:
    levels = drawn(bright_volume(), column())
    expected = [Vertebra.T12, *(Vertebra(f"L{number}") for number in range(1, 6)), Vertebra.S1]
    assert [body.vertebra for body in levels.vertebrae] == expected
    heights = [CENTRES[0, 2] + 18, *(CENTRES[:, 2] - 18)]
    np.testing.assert_allclose([body.point_ras_mm[2] for body in levels.vertebrae], heights, atol=1.5)
    assert set(np.unique(levels.bodies.array)) == {0, *BODY_VALUES.values()}
    few = drawn(bright_volume(), column(DISCS[2:4]))
    assert [body.vertebra for body in few.vertebrae] == [Vertebra.L2, Vertebra.L3, Vertebra.L4]


def test_a_body_is_as_sure_as_the_surer_of_its_discs_and_its_voxels(drawn) -> None:
    levels = column(DISCS[2:4])
    unsure = replace(levels, levels=(replace(levels.levels[0], confidence=0.4), levels.levels[1]))
    inside = 1 / (1 + np.exp(-6.0))
    expected = {Vertebra.L2: 0.4 * inside, Vertebra.L3: 0.9 * inside, Vertebra.L4: 0.9 * inside}
    found = {body.vertebra: body.confidence for body in drawn(bright_volume(), unsure).vertebrae}
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_the_body_map_lies_on_the_scans_own_grid_at_most_a_millimetre_fine(drawn, flips) -> None:
    shape = (16, 181, 300)
    array, affine = (
        np.zeros(shape, np.float32),
        affine_from_spacing((4.0, 0.5, 0.9), center_ras_mm=(2.0, -10.0, 5.0), shape=shape),
    )
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
    bodies = drawn(Volume(array, affine, slice_axis=0), column()).bodies
    assert spacing_of(bodies.affine) == pytest.approx((4.0, 1.0, 0.9))
    assert bodies.array.shape == (16, 91, 300)
    _, ras = to_ras_axes(array, affine)
    np.testing.assert_allclose(apply_affine(bodies.affine, (0, 0, 0)), apply_affine(ras, (0, 0.5, 0)), err_msg="corners agree")
    places = apply_affine(bodies.affine, np.argwhere(bodies.array == BODY_VALUES[Vertebra.L3]))
    middle = (CENTRES[2] + CENTRES[3]) / 2
    np.testing.assert_allclose(places.mean(0), middle, atol=1.0)
    assert (np.abs(places - middle) < [22, 18, 15]).all(), "nothing of it lies elsewhere"


def test_a_voxel_that_two_blocks_see_goes_to_the_surer_one() -> None:
    volume, levels = bright_volume(), column(DISCS[2:4])
    affines = [block_affine(AFFINE, one.disc_ras_mm, np.array([0.0, 0.0, 1.0]), CROP) for one in levels.levels]
    upper, lower = (np.zeros((5, *CROP.shape), np.float32) for _ in range(2))
    upper[4], lower[4] = 0.6, 0.8
    bodies = refine_levels(volume, levels, affines=affines, maps=[upper, lower]).bodies
    shared = apply_affine(invert_affine(bodies.affine), (CENTRES[2] + CENTRES[3]) / 2 + [0, -6, 0]).round().astype(int)
    above = apply_affine(invert_affine(bodies.affine), CENTRES[2] + [0, -6, 30]).round().astype(int)
    assert bodies.array[tuple(shared)] == BODY_VALUES[Vertebra.L4]
    assert bodies.array[tuple(above)] == BODY_VALUES[Vertebra.L3]


def test_a_disc_at_the_edge_of_the_scan_leaves_the_map_inside_it(drawn) -> None:
    low = replace(bright_volume(), array=np.zeros((16, 90, 60), np.float32))
    levels = drawn(low, column())
    assert levels.bodies.array.shape == (16, 90, 60)
    assert len(levels.levels) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [16, 48]}, "ValueError"),
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
    with pytest.raises(WeightsError, match=rf"refining bundle cannot be used \(.*{said}.*three numbers each"):
        DiscBlock.from_config({**BLOCK, **change})
    with pytest.raises(WeightsError, match="KeyError: 'shape'"):
        DiscBlock.from_config({"spacing_mm": [1, 1, 1], "center_mm": [0, 0, 0]})


def test_an_answer_of_other_channels_is_refused(bundle: Bundle) -> None:
    refiner = LevelRefiner(bundle, network=lambda blocks: blocks)
    with pytest.raises(WeightsError, match=r"shape \(1, .*\); \(5, .*\) is needed"):
        refiner(bright_volume(), column())


def test_a_bundle_without_a_crop_section_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    root = shutil.copytree(bundle.root, tmp_path / REFINER)
    config = root / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"crop"', '"cut"'))
    with pytest.raises(WeightsError, match="has no 'crop'"):
        LevelRefiner(find_bundle(REFINER, tmp_path))
