"""Displacements of tissues: nothing is folded, and what should stay stays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from monai_spine.anatomy import Level, Side
from monai_spine.phantom.lesions.draw import FAMILIES, draw_lesions
from monai_spine.phantom.lesions.fields import Local, canal_walls, jacobian
from monai_spine.phantom.lesions.kinds import (
    Bulge,
    DiscHeightLoss,
    DiscSignalLoss,
    EpiduralFat,
    Extrusion,
    FacetOvergrowth,
    FlavumThickening,
    Lesion,
    Listhesis,
    Protrusion,
)
from monai_spine.phantom.lesions.plans import LevelLesions, pull_points
from monai_spine.phantom.lesions.simulate import REACH_MM, SLIP_REACH_MM
from monai_spine.phantom.lesions.sites import LevelSite
from monai_spine.placement import ColumnFrame


def site(level: Level = Level.L4_L5, *, depth_mm: float = 13.0, tilt: float = 0.05, disc_up_mm: float = 1.0) -> LevelSite:
    frame = ColumnFrame(level, (0.0, 0.0, 0.0), *(np.eye(3)[axis] for axis in (0, 1, 2)))
    front = (-depth_mm / 2, tilt, 0.002)
    return LevelSite(frame, front, (front[0] + depth_mm, tilt, 0.002), -24.0, disc_up_mm, 4.6, wall=0.0, csf=1.0)


def everywhere(*, count: int = 2000, seed: int = 0) -> Local:
    """Points of a box of 80 × 140 × 160 mm, half of them near the canal."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.tensor([40.0, 70.0, 80.0])[:, None] * torch.where(torch.arange(count) % 2 == 0, 1.0, 0.2)
    return Local(*((torch.rand(3, count, generator=random, dtype=torch.float64) * 2 - 1) * spread))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_random_lesion_folds_tissue(family: str) -> None:
    """Forty of each family, at depths from 8 to 20 mm: the Jacobian is positive at every point."""
    low, high = FAMILIES[family]
    at, least = everywhere(), []
    for seed in range(40):
        random = np.random.RandomState(seed)
        here = site(depth_mm=random.uniform(8, 20), tilt=random.uniform(-0.6, 0.6), disc_up_mm=random.uniform(-9, 9))
        _, lesions = draw_lesions(random, here, random.uniform(low, high), {family: 1.0})
        plan = [LevelLesions(here, lesions)]
        least.append(float(jacobian(lambda points, plan=plan, here=here: pull_points(points, plan, frame=here.frame), at).min()))
    assert min(least) > 0.01, least


EXTREMES = (
    Bulge(12.0),
    Bulge(20.0, aside_mm=20.0, half_width_mm=30.0),
    Protrusion(15.0, half_height_mm=2.0, half_width_mm=2.0),
    Extrusion(19.0, migration_mm=12.0),
    Extrusion(19.0, migration_mm=-12.0, aside_mm=6.0),
    FlavumThickening(12.0),
    FacetOvergrowth(10.0, side=Side.RIGHT),
    EpiduralFat(14.0),
    Listhesis(10.0),
    Listhesis(-10.0),
    DiscHeightLoss(0.7),
)


@pytest.mark.parametrize("lesion", EXTREMES)
@pytest.mark.parametrize("here", [site(), site(depth_mm=8.0, tilt=0.64, disc_up_mm=-8.0), site(depth_mm=9.0, tilt=-0.64)])
def test_the_most_extreme_lesions_do_not_fold_tissue(lesion: Lesion, here: LevelSite) -> None:
    at = everywhere(count=8000)
    assert float(jacobian(lambda points: lesion.move(points, here).source, at).min()) > 0


@pytest.mark.parametrize("lesion", EXTREMES)
def test_nothing_moves_at_the_ends_of_what_is_computed_so_that_no_tissue_is_torn_there(lesion: Lesion) -> None:
    here = site(disc_up_mm=-3.0)
    ends = SLIP_REACH_MM if lesion.order == 2 else REACH_MM
    inside = torch.rand(3, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = (torch.tensor(end, dtype=torch.float64)[:, None] for end in ends)
    for axis, end in itertools.product(range(3), (low, high)):
        face = low + inside * (high - low)
        face[axis] = end[axis]
        source = lesion.move(Local(*face), here).source
        moved = torch.stack([source.aside, source.behind, source.up]) - face
        assert float(moved.abs().max()) < 0.15, (axis, float(end[axis]))


def test_the_jacobian_of_a_fold_is_negative() -> None:
    """The check can fail."""
    folded = jacobian(lambda at: Local(at.aside, at.behind - 12 * torch.exp(-((at.behind / 3) ** 2)), at.up), everywhere())
    assert float(folded.min()) < 0


@pytest.mark.parametrize("lesion", [Bulge(6.0), Protrusion(8.0), Extrusion(10.0)])
def test_a_disc_moves_into_the_canal_and_the_back_wall_stays(lesion: Lesion) -> None:
    """The margin goes where it is told, the old margin lies behind; back wall and all behind it stay to the micrometre."""
    here = site()
    front, back = here.borders_at(torch.tensor(here.disc_up_mm))
    middle = Local(torch.zeros(1), front.reshape(1), torch.full((1,), here.disc_up_mm))
    taken = lesion.move(middle, here).taken_mm
    assert taken is not None
    assert float(taken) == pytest.approx(lesion.depth_mm, rel=0.1)  # type: ignore[attr-defined]
    source = lesion.move(Local(middle.aside, front + taken, middle.up), here).source
    assert float(source.behind) == pytest.approx(float(front), abs=1e-3)
    behind = Local(torch.zeros(50), back + torch.linspace(0.0, 60.0, 50), torch.full((50,), here.disc_up_mm))
    moved = lesion.move(behind, here).source
    assert torch.allclose(moved.behind, behind.behind, atol=1e-3)
    assert torch.allclose(moved.up, behind.up, atol=1e-3)


def test_far_anatomy_does_not_move() -> None:
    """What lies 45 mm above or below, 60 mm aside, or in front of the moved part of the disc is where it was."""
    here = site()
    front, _ = canal_walls(Local(*torch.zeros(3, 1)), here)
    places = [
        (0.0, 0.0, 45.0),
        (0.0, 0.0, -45.0),
        (60.0, float(front) + 1, 0.0),
        (-60.0, float(front) + 1, 0.0),
        (0.0, float(front) - 12, 1.0),
    ]
    at = Local(*torch.tensor(places).T)
    for lesion in (Bulge(6.0), Protrusion(8.0), Extrusion(9.0, migration_mm=8.0), FlavumThickening(5.0), EpiduralFat(6.0)):
        moved = lesion.move(at, here).source
        for name in ("aside", "behind", "up"):
            assert torch.allclose(getattr(moved, name), getattr(at, name), atol=0.02), (lesion, name)


def test_a_slip_carries_the_vertebra_above_and_leaves_the_one_below() -> None:
    here = site()
    at = Local(torch.zeros(2), torch.full((2,), -24.0), torch.tensor([here.disc_up_mm + 14, here.disc_up_mm - 14]))
    moved = Listhesis(6.0).move(at, here).source.behind - at.behind
    assert moved.tolist() == pytest.approx([6.0, 0.0], abs=0.05)


def test_facets_grow_on_their_own_side() -> None:
    here = site()
    at = Local(torch.tensor([-12.0, 12.0]), torch.full((2,), 2.0), torch.full((2,), here.disc_up_mm))
    moved = (FacetOvergrowth(4.0, side=Side.LEFT).move(at, here).source.behind - at.behind).abs()
    assert moved[0] > 1
    assert moved[1] < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Protrusion(25.0), r"Protrusion.depth_mm must be in \[0, 20\], got 25"),
        (lambda: Protrusion(float("nan")), r"Protrusion.depth_mm must be in \[0, 20\], got nan"),
        (lambda: Extrusion(5.0, migration_mm=20.0), r"Extrusion.migration_mm must be in \[-12, 12\], got 20"),
        (lambda: Listhesis(12.0), r"Listhesis.slip_mm must be in \[0, 10\], got 12"),
        (lambda: DiscHeightLoss(0.9), r"DiscHeightLoss.share must be in \[0, 0.7\], got 0.9"),
    ],
)
def test_impossible_sizes_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_shares_out_of_range_and_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 0.92\], got 1.2"):
        draw_lesions(np.random.RandomState(0), site(), 1.2)
    with pytest.raises(ValueError, match="Weights must be 0 or more, one above 0, of degeneration, bulge"):
        draw_lesions(np.random.RandomState(0), site(), 0.4, {"tumour": 1.0})
    with pytest.raises(ValueError, match=r"None of the families \['bulge'\] takes a share of 0.8 of the sac at L4/L5"):
        draw_lesions(np.random.RandomState(0), site(), 0.8, {"bulge": 1.0})


def test_discs_that_narrow_the_canal_are_nearly_all_worn_and_the_darker_the_more_they_narrow_it() -> None:
    random = np.random.RandomState(0)
    lost: dict[float, list[float]] = {0.1: [], 0.6: []}
    for share, losses in lost.items():
        for _ in range(200):
            _, lesions = draw_lesions(random, site(), share, {"protrusion": 1.0})
            losses.append(next((one.share for one in lesions if isinstance(one, DiscSignalLoss)), 0.0))
    often = {share: float(np.mean(np.array(losses) > 0)) for share, losses in lost.items()}
    assert 0.78 < often[0.1] < 0.92 < often[0.6]
    assert np.median(lost[0.6]) > np.median(lost[0.1]) + 0.05


def test_a_tilted_disc_herniates_where_its_plane_meets_the_sac_and_wears_where_it_lies() -> None:
    here = site(depth_mm=14.0, tilt=0.0, disc_up_mm=-6.0)
    assert here.margin_up_mm == pytest.approx(-6.0 * 7 / 24)
    up = torch.linspace(-14.0, 14.0, 561)
    pushed = Protrusion(5.0).move(Local(torch.zeros_like(up), torch.full_like(up, -6.5), up), here).taken_mm
    assert pushed is not None
    assert float(up[pushed.argmax()]) == pytest.approx(here.margin_up_mm, abs=0.06)
    for behind in (-24.0, -16.0):
        paint = DiscSignalLoss(0.5).move(Local(torch.zeros_like(up), torch.full_like(up, behind), up), here).paint
        assert paint is not None
        middle = float((up * paint.amount).sum() / paint.amount.sum())
        assert middle == pytest.approx(-6.0 * behind / -24, abs=0.1)
