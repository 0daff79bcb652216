"""Numbering the column and finding levels on a volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundles import BrightDiscs

from monai_spine.anatomy import DISCS, LEVELS, Level, Vertebra
from monai_spine.errors import LevelsNotFoundError, WeightsError
from monai_spine.geometry import affine_from_spacing, apply_affine, flip_axis, invert_affine
from monai_spine.level_candidates import LocalizerMaps, find_candidates
from monai_spine.level_confidence import Calibration
from monai_spine.level_decoding import decode_levels
from monai_spine.level_doubts import SURE, Doubt
from monai_spine.level_inference import LevelLocalizer, localize_levels, maps_of
from monai_spine.levels import in_percent
from monai_spine.training.localizer_transforms import heatmaps
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle

SHAPE = (12, 80, 128)
AFFINE = affine_from_spacing((4.0, 2.0, 2.0), center_ras_mm=(3.0, -20.0, 8.0), shape=SHAPE)
CENTRES = np.array([[3.0, -5.0 + 6 * np.cos(step - 3), 95.0 - 35.0 * step] for step in range(6)])
_DOWN = np.gradient(CENTRES, axis=0) / np.linalg.norm(np.gradient(CENTRES, axis=0), axis=1, keepdims=True)
CANALS = CENTRES + 22.0 * np.cross([1.0, 0.0, 0.0], _DOWN) * np.sign(_DOWN[:, 2:])
"""Behind each disc at its own height: square to the column there."""
LESS_20_MM = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 10], [0, 0, 0, 1]])
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def drawn(points: np.ndarray, heights: list[float] | None = None) -> np.ndarray:
    """One map per point, a Gaussian of 5 mm and of the given height."""
    maps = heatmaps(apply_affine(invert_affine(AFFINE), points), SHAPE, sigma=(1.25, 2.5, 2.5)).numpy()
    return maps * np.array(heights or [0.9] * len(points))[:, None, None, None]


def maps_with(discs: np.ndarray, *, canals: np.ndarray | None = None) -> LocalizerMaps:
    bodies = np.zeros((6, *SHAPE), np.float32)
    half = np.array([0, 0, 17.5])
    centers = np.concatenate([(CENTRES[1:] + CENTRES[:-1]) / 2, CENTRES[-1:] - half])
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), -1)
    places = apply_affine(AFFINE, voxels)
    for position, center in enumerate(centers):
        bodies[position] = 0.95 * (np.abs(places - center) < [20, 16, 13]).all(-1)
    return LocalizerMaps(discs, drawn(CANALS) if canals is None else canals, bodies, AFFINE)


def test_every_level_is_found_within_a_millimetre():
    levels = decode_levels(maps_with(drawn(CENTRES)), series_instance_uid="1.2.3")
    assert [found.level for found in levels.levels] == list(DISCS)
    for found, disc, canal in zip(levels.levels, CENTRES, CANALS, strict=True):
        np.testing.assert_allclose(found.disc_ras_mm, disc, atol=1.0)
        np.testing.assert_allclose(found.canal_ras_mm, canal, atol=1.0)
        assert found.confidence > 0.9
        assert found.series_instance_uid == "1.2.3"
    assert levels.flags == ()
    assert all(level.confidence > SURE for level in levels.levels)


def test_bodies_are_labelled_as_the_column_is_numbered():
    levels = decode_levels(maps_with(drawn(CENTRES)))
    assert [body.vertebra for body in levels.vertebrae] == [Vertebra(name) for name in ("L1", "L2", "L3", "L4", "L5", "S1")]
    np.testing.assert_allclose(levels.vertebrae[2].point_ras_mm, (CENTRES[2] + CENTRES[3]) / 2, atol=2.5)
    assert set(np.unique(levels.bodies.array)) == {0, 1, 2, 3, 4, 5, 6}


def test_one_channel_that_is_wrong_does_not_break_the_numbering():
    discs = drawn(CENTRES)
    discs[1] = drawn(CENTRES[2:3], [0.7])[0]
    discs[2] = drawn(CENTRES[1:2], [0.6])[0]
    levels = decode_levels(maps_with(discs))
    assert [found.level for found in levels.levels] == list(DISCS)
    heights = [found.disc_ras_mm[2] for found in levels.levels]
    assert heights == sorted(heights, reverse=True)


def test_a_weak_disc_between_sure_ones_keeps_the_names_of_the_others():
    levels = decode_levels(maps_with(drawn(CENTRES, [0.9, 0.9, 0.9, 0.02, 0.9, 0.9])))
    assert [found.level for found in levels.levels] == [level for level in DISCS if level is not Level.L3_L4]


def test_what_is_not_seen_is_absent_and_the_missing_sacrum_is_said():
    levels = decode_levels(maps_with(drawn(CENTRES, [0.9, 0.9, 0.9, 0.9, 0.9, 0.0])))
    assert [found.level for found in levels.levels] == list(DISCS[:5])
    assert "sacrum_not_seen" in levels.flags
    above_mm = CENTRES[4, 2] - (AFFINE[2, 3] - 1.0)
    seen = f"the lowest disc that was named is L4/L5, {above_mm:.0f} mm above the scan's lower end"
    assert levels.column_doubts == (Doubt("sacrum_not_seen", seen),)


def test_how_much_is_left_below_counts_to_the_end_of_the_scan_and_not_of_the_grid_laid_over_it():
    shorter = replace(maps_with(drawn(CENTRES, [0.9, 0.9, 0.9, 0.9, 0.9, 0.0])), scan=(AFFINE @ LESS_20_MM, (12, 80, 118)))
    end = AFFINE[2, 3] - 1.0 + 20.0
    assert f"L4/L5, {CENTRES[4, 2] - end:.0f} mm above" in decode_levels(shorter).doubts[0].seen


def test_a_sacrum_that_is_not_surely_named_is_not_called_seen():
    """Four discs that could bear their names in three ways, the lowest names a little more likely than the others."""
    discs = np.zeros((6, *SHAPE), np.float32)
    for first, height in enumerate((0.28, 0.28, 0.32)):
        discs[first : first + 4] = np.maximum(discs[first : first + 4], drawn(CENTRES[1:5], [height] * 4))
    maps = maps_with(discs)
    levels = decode_levels(replace(maps, bodies=np.zeros_like(maps.bodies)))
    assert levels.levels[-1].level is Level.L5_S1
    confidence = levels.levels[-1].confidence
    assert confidence < SURE
    assert levels.column_doubts[0].seen == f"L5/S1 was named with a confidence of {confidence:.2f} only"
    assert levels.flags[0] == "sacrum_not_seen"


def test_a_scan_that_begins_below_t12_l1_is_no_worse_for_it():
    levels = decode_levels(maps_with(drawn(CENTRES, [0.0, 0.9, 0.9, 0.9, 0.9, 0.9])))
    assert [found.level for found in levels.levels] == list(LEVELS)
    assert levels.vertebrae[0].vertebra is Vertebra.L1
    assert levels.flags == ()


def test_two_names_that_are_as_likely_are_called_ambiguous():
    shifted = drawn(CENTRES, [0.45, 0.45, 0.45, 0.45, 0.45, 0.0])
    shifted[1:] = np.maximum(shifted[1:], drawn(CENTRES[:5], [0.45] * 5))
    maps = maps_with(shifted)
    blind = LocalizerMaps(maps.discs, maps.canals, np.zeros_like(maps.bodies), AFFINE)
    levels = decode_levels(blind)
    assert "numbering_ambiguous" in levels.flags
    assert min(found.confidence for found in levels.levels) < 0.8


def test_a_disc_that_peaks_twice_is_one_disc():
    twice = drawn(CENTRES)
    twice[2] = np.maximum(twice[2], drawn(np.add(CENTRES[2:3], [0.0, 13.0, 0.0]), [0.88])[0])
    levels = decode_levels(maps_with(twice))
    assert [found.level for found in levels.levels] == list(DISCS)
    assert min(found.confidence for found in levels.levels) > 0.9
    assert levels.flags == ()


def test_a_canal_that_is_not_seen_is_none_and_flagged():
    levels = decode_levels(maps_with(drawn(CENTRES), canals=np.zeros((6, *SHAPE), np.float32)))
    assert all(found.canal_ras_mm is None and found.flags == ("canal_not_seen",) for found in levels.levels)
    assert {doubt.level for doubt in levels.doubts} == set(DISCS)
    assert levels.doubts[0].seen == "0.00 at the strongest place near where it should be, less than 0.15"


def test_noise_has_no_levels():
    noise = np.random.default_rng(0).uniform(0, 0.07, (6, *SHAPE)).astype(np.float32)
    with pytest.raises(LevelsNotFoundError, match="at least 2 are needed"):
        decode_levels(maps_with(noise))


def test_one_disc_alone_is_no_column():
    with pytest.raises(LevelsNotFoundError, match="surely seen: 1 "):
        decode_levels(maps_with(drawn(CENTRES, [0, 0, 0, 0.9, 0, 0])))


def test_candidates_come_from_the_head_down_with_evidence_for_each_name():
    candidates = find_candidates(maps_with(drawn(CENTRES)))
    assert len(candidates) == 6
    assert np.argmax([candidate.evidence for candidate in candidates], axis=1).tolist() == [0, 1, 2, 3, 4, 5]


def test_discs_that_several_names_compete_for_are_all_candidates():
    discs = np.stack([drawn(CENTRES).max(0)] * 6)
    found = np.array([candidate.point_ras_mm for candidate in find_candidates(maps_with(discs))])
    np.testing.assert_allclose(found, CENTRES, atol=1.0)


def test_an_answer_with_other_channels_is_refused():
    with pytest.raises(WeightsError, match=r"\(18, i, j, k\) is needed"):
        maps_of(np.zeros((3, 4, 4, 4)), np.eye(4))


def test_maps_are_zero_outside_the_scan():
    grid, scan = np.diag([4.0, 2.0, 2.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0])
    grid[:3, 3], scan[:3, 3] = (-8.0, -4.0, 0.0), (3.5, -2.5, 0.5)
    maps = maps_of(np.ones((18, 5, 6, 8), np.float32), grid, scan=(scan, (8, 6, 11)))
    inside = np.argwhere(maps.discs[0])
    np.testing.assert_array_equal(apply_affine(grid, inside.min(0)), [-4, -2, 0])
    np.testing.assert_array_equal(apply_affine(grid, inside.max(0)), [4, 2, 10])
    assert maps_of(np.ones((18, 5, 6, 8), np.float32), grid).discs.all()


@pytest.fixture(scope="module")
def localizer() -> LevelLocalizer:
    return LevelLocalizer(find_bundle("lumbar_level_localization", BUNDLES), network=BrightDiscs())


def bright_volume() -> Volume:
    shape = (13, 150, 240)
    affine = affine_from_spacing((4.4, 1.1, 1.1), center_ras_mm=(5.0, -10.0, 8.0), shape=shape)
    places = apply_affine(affine, np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1))
    array = sum(np.exp(-((places - disc) ** 2).sum(-1) / (2 * 5.0**2)) for disc in CENTRES)
    return Volume(np.asarray(1000 * array, np.float32), affine, slice_axis=0)


def points_of(localizer: LevelLocalizer, volume: Volume) -> np.ndarray:
    return np.array([found.disc_ras_mm for found in localizer(volume).levels])


def test_points_on_a_volume_are_in_ras_millimetres(localizer):
    np.testing.assert_allclose(points_of(localizer, bright_volume()), CENTRES, atol=1.0)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (0, 1), (0, 1, 2), (2,)])
def test_copies_stored_in_other_orders_give_the_same_points(localizer, axes, flips):
    volume = bright_volume()
    array, affine = volume.array, volume.affine
    for axis in flips:
        array, affine = flip_axis(array, affine, axis)
    turn = np.zeros((4, 4))
    turn[[*axes, 3], [0, 1, 2, 3]] = 1
    copy = Volume(np.ascontiguousarray(np.transpose(array, axes)), affine @ turn)
    np.testing.assert_allclose(points_of(localizer, copy), points_of(localizer, volume), atol=1e-2)


def test_no_level_is_named_outside_the_scan(localizer):
    volume = bright_volume()
    cut = 60
    affine = volume.affine.copy()
    affine[:3, 3] = apply_affine(volume.affine, (0, 0, cut))
    levels = localizer(Volume(np.ascontiguousarray(volume.array[:, :, cut:]), affine, slice_axis=0))
    floor = apply_affine(affine, (0, 0, -0.5))[2]
    assert all(found.disc_ras_mm[2] > floor for found in levels.levels)
    assert len(levels.levels) == 5


def untrained() -> torch.nn.Module:
    torch.manual_seed(0)
    return find_bundle("lumbar_level_localization", BUNDLES).network_definition().eval()


@pytest.mark.parametrize(("shape", "spacing_mm"), [((2, 2, 2), (1.0, 1.0, 1.0)), ((8, 90, 90), (4.0, 1.0, 1.0))])
def test_a_scan_of_nine_centimetres_or_less_is_looked_at_like_any_other(shape, spacing_mm):
    affine = affine_from_spacing(spacing_mm, center_ras_mm=(0.0, 0.0, 0.0), shape=shape)
    noise = np.random.default_rng(0).random(shape, np.float32)
    localizer = LevelLocalizer(find_bundle("lumbar_level_localization", BUNDLES), network=untrained())
    maps = localizer.maps(Volume(noise, affine, slice_axis=0))
    assert np.isfinite(maps.discs).all()


def test_without_a_volume_there_are_no_levels(localizer):
    with pytest.raises(LevelsNotFoundError, match="no sagittal volume"):
        localize_levels([], localizer)


def test_the_surer_of_two_columns_is_taken_whole_and_looked_at_again_on_its_own_volume(localizer, monkeypatch):
    columns = {
        "1": decode_levels(maps_with(drawn(CENTRES, [0.4] * 6)), series_instance_uid="1"),
        "2": decode_levels(maps_with(drawn(CENTRES, [0.9] * 6)), series_instance_uid="2"),
    }
    refined = []
    monkeypatch.setattr(LevelLocalizer, "find", lambda self, volume: columns[volume.series_instance_uid])
    monkeypatch.setattr(localizer, "refiner", lambda volume, levels: refined.append(volume.series_instance_uid) or levels)
    volumes = [Volume(np.zeros((2, 2, 2)), np.eye(4), series_instance_uid=uid) for uid in columns]
    for order in (volumes, volumes[::-1]):
        levels = localize_levels(order, localizer)
        assert {level.series_instance_uid for level in levels.levels} == {"2"}
    assert refined == ["2", "2"]


def test_a_second_volume_is_asked_when_the_first_shows_nothing(localizer):
    empty = Volume(np.zeros((13, 150, 240), np.float32), bright_volume().affine, series_instance_uid="1")
    levels = localize_levels([empty, bright_volume()], localizer)
    assert len(levels.levels) == 6
    with pytest.raises(LevelsNotFoundError, match="series 1"):
        localize_levels([empty], localizer)


def test_confidences_are_corrected_and_the_rest_goes_to_the_other_names():
    maps = maps_with(drawn(CENTRES))
    said, corrected = (decode_levels(maps, calibration=Calibration(slope, 0.0)) for slope in (1.0, 0.5))
    for one, other in zip(said.levels, corrected.levels, strict=True):
        assert (other.level, other.disc_ras_mm) == (one.level, one.disc_ras_mm)
        assert other.confidence == pytest.approx(float(Calibration(0.5, 0.0)(one.confidence)), abs=2e-3)
    assert corrected.levels[0].confidence < said.levels[0].confidence


@pytest.mark.parametrize(
    ("confidence", "said"), [(0.412, "41 %"), (0.996, "> 99 %"), (1.0, "> 99 %"), (0.0, "< 1 %"), (0.99, "99 %")]
)
def test_nothing_is_certain_in_percent(confidence, said):
    assert in_percent(confidence) == said
