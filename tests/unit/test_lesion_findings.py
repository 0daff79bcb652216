"""What recesses and foramina keep under lesions, and the grades that follow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from monai_spine.anatomy import LEVELS, Condition, Level, Severity, Side, Target
from monai_spine.geometry import Point
from monai_spine.phantom.lesions import DiscSignalLoss, Extrusion, FacetOvergrowth, Lesion, LevelLesions, LevelSite
from monai_spine.phantom.lesions.findings import graded, kept_space
from monai_spine.phantom.lesions.sites import frames_of
from monai_spine.phantom.readers import latent_of_narrowing, latent_of_shares, narrowing, reader_shares
from monai_spine.studies.prepared import PreparedTarget

DISCS = {level: (0.0, 20.0, -36.0 * at) for at, level in enumerate(LEVELS)}
CANALS = {level: (0.0, 0.0, -36.0 * at) for at, level in enumerate(LEVELS)}
FRAMES = frames_of(DISCS, CANALS)
RECESS = Target(Condition.SUBARTICULAR_STENOSIS, Side.RIGHT, Level.L3_L4)
FORAMEN = Target(Condition.NEURAL_FORAMINAL_NARROWING, Side.RIGHT, Level.L3_L4)
CANAL = Target(Condition.SPINAL_CANAL_STENOSIS, None, Level.L3_L4)
PLACES = {
    RECESS: FRAMES[Level.L3_L4].point((9.0, 4.5, 0.0), Side.RIGHT),
    FORAMEN: FRAMES[Level.L3_L4].point((17.0, 5.0, 8.0), Side.RIGHT),
}


def plan(*lesions: Lesion, level: Level = Level.L3_L4) -> list[LevelLesions]:
    """Lesions in a straight canal of 14 mm."""
    site = LevelSite(FRAMES[level], (-7.0, 0.0, 0.0), (7.0, 0.0, 0.0), -20.0, 0.0, 4.7, 0.1, 1.0)
    return [LevelLesions(site, lesions)]


def kept(target: Target, *lesions: Lesion, level: Level = Level.L3_L4, point: Point | None = None) -> float:
    return kept_space(target, point or PLACES[target], FRAMES, plan(*lesions, level=level))


@pytest.mark.parametrize("target", [RECESS, FORAMEN])
def test_what_moves_nothing_near_a_space_leaves_all_of_it(target: Target) -> None:
    assert kept(target) == 1
    assert kept(target, DiscSignalLoss(0.7)) == pytest.approx(1, abs=1e-3)
    assert kept(target, Extrusion(8.0), level=Level.L1_L2) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("target", [RECESS, FORAMEN])
def test_a_facet_narrows_its_own_side_the_more_the_larger_it_is(target: Target) -> None:
    shares = [kept(target, FacetOvergrowth(depth, half_height_mm=12.0, side=Side.RIGHT)) for depth in (1.0, 3.0, 5.0, 7.0)]
    assert all(after < before - 0.02 for before, after in itertools.pairwise(shares))
    assert shares[0] < 0.98
    assert shares[-1] < 0.75
    assert kept(target, FacetOvergrowth(7.0, half_height_mm=12.0, side=Side.LEFT)) > 0.95


def test_a_herniation_beside_the_sac_takes_the_recess_and_one_that_migrates_far_aside_the_foramen() -> None:
    beside, far = Extrusion(5.0, aside_mm=9.0), Extrusion(5.0, aside_mm=18.0, migration_mm=8.0)
    assert kept(RECESS, beside) < 0.6 < kept(FORAMEN, beside)
    assert kept(FORAMEN, far) < 0.8
    assert kept(RECESS, far) > kept(RECESS, beside) + 0.2


@pytest.mark.parametrize("target", [RECESS, FORAMEN, CANAL])
@pytest.mark.parametrize("latent", [-2.0, -0.4, 0.7, 1.6])
def test_what_readers_said_tells_how_narrow_a_space_was_and_a_loss_adds_to_it(target: Target, latent: float) -> None:
    before = PreparedTarget((0.0, 0.0, 0.0), Severity.NORMAL_MILD, shares=reader_shares(target, latent))
    assert latent_of_shares(target, reader_shares(target, latent)) == pytest.approx(latent, abs=1e-6)
    unchanged, worse = graded(target, before, 1.0), graded(target, before, 0.3)
    assert unchanged is not None
    assert worse is not None
    np.testing.assert_allclose(unchanged[1], reader_shares(target, latent), atol=1e-6)
    lost = float(narrowing(latent_of_shares(target, worse[1])))
    if target is FORAMEN:
        opening = [(1 - 0.92 * share) * (1 - 0.42 * share) for share in (float(narrowing(latent)), lost)]
        assert opening[1] == pytest.approx(0.3 * opening[0], abs=0.002)
    else:
        assert 1 - lost == pytest.approx(0.3 * (1 - narrowing(latent)), abs=1e-6)
    assert worse[0] is (Severity.SEVERE if lost > 2 / 3 else Severity.MODERATE)


def test_without_shares_a_mild_finding_was_wide_and_a_worse_one_is_not_guessed() -> None:
    mild, severe = (PreparedTarget((0.0, 0.0, 0.0), severity) for severity in (Severity.NORMAL_MILD, Severity.SEVERE))
    assert graded(RECESS, mild, 0.5) == graded(RECESS, None, 0.5) == (Severity.MODERATE, reader_shares(RECESS, 0.5))
    assert graded(RECESS, severe, 0.5) is None


def test_the_latent_of_a_narrowing_is_the_one_that_narrows_so_much() -> None:
    assert latent_of_narrowing(1 / 3) == pytest.approx(0)
    assert latent_of_narrowing(2 / 3) == pytest.approx(1)
    assert latent_of_narrowing(0.0) == -np.inf
    assert latent_of_narrowing(1.0) == np.inf
