"""Lesions on images: what the sac loses is measured, 2D and 3D agree, and sides are the patient's own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from monai_spine.anatomy import Level, Severity, Side
from monai_spine.errors import AnatomyError, LevelsNotFoundError
from monai_spine.geometry import Affine, Point, flip_axis
from monai_spine.phantom.lesions import (
    Bulge,
    EpiduralFat,
    Extrusion,
    FacetOvergrowth,
    FlavumThickening,
    Lesion,
    LevelLesions,
    LevelSite,
    Listhesis,
    Protrusion,
    apply_lesions,
    find_canals,
    find_sites,
    severity_of_share,
    simulate_lesions,
)
from monai_spine.phantom.lesions.fields import Local
from monai_spine.phantom.lesions.plans import carried, from_local, pull_points, to_local
from monai_spine.phantom.readers import narrowing
from monai_spine.training.simulated_lesions import RandSimulateLesiond

DISCS: dict[Level, Point] = {Level.L3_L4: (0.0, 24.0, 35.0), Level.L4_L5: (0.0, 24.0, 0.0), Level.L5_S1: (0.0, 24.0, -35.0)}
CANALS: dict[Level, Point] = {level: (r, 0.0, s) for level, (r, _, s) in DISCS.items()}


def column(*, slices: int = 9, step_mm: float = 4.0, in_plane_mm: float = 0.8) -> tuple[torch.Tensor, Affine]:
    """A straight T2 column (R, A, S): bodies 0.45, discs 0.3 with dark margins, a sac 14 mm deep, fat behind."""
    shape = (slices, 130, 140)
    affine = np.diag([step_mm, in_plane_mm, in_plane_mm, 1.0])
    affine[:3, 3] = -affine[:3, :3].diagonal() * (np.array(shape) - 1) / 2
    r, a, s = (affine[axis, axis] * np.arange(size) + affine[axis, 3] for axis, size in enumerate(shape))
    r, a, s = r[:, None, None], a[None, :, None], s[None, None]
    from_disc = np.abs((s + 17.5) % 35.0 - 17.5)
    image = np.where(from_disc < 5, 0.3, 0.45) * np.ones(shape)
    image = np.where((a < 9.5) & (a > 7), 0.05, image)
    image = np.where((np.abs(from_disc - 5) < 0.8) & (a > 7), 0.05, image)
    image = np.where(a < -7, 0.05, image)
    image = np.where(a < -10, 0.5, image)
    image = np.where(a < -35, 0.9, image)
    image = np.where(np.abs(a) < 7, np.where(np.abs(r) < 11, 1.0, 0.3), image)
    return torch.from_numpy(image.astype(np.float32)), affine


def site_of(level: Level = Level.L4_L5) -> LevelSite:
    return find_sites(*column(), DISCS, CANALS)[level]


def example(image: torch.Tensor, affine: Affine) -> dict[str, Any]:
    return {
        "image": MetaTensor(image[None], affine=torch.as_tensor(affine)),
        "discs": {level.label: point for level, point in DISCS.items()},
        "canals": {level.label: point for level, point in CANALS.items()},
        "level": "L4/L5",
    }


def test_the_sac_is_measured_to_half_a_millimetre() -> None:
    here = site_of()
    front, back = here.borders_at(torch.tensor(0.0))
    assert (float(front), float(back)) == pytest.approx((-7.0, 7.0), abs=0.5)
    assert here.base_share < 0.1


def test_a_canal_is_found_behind_discs() -> None:
    image, affine = column()
    found = find_canals(image, affine, DISCS)
    for level, point in found.items():
        assert point == pytest.approx(CANALS[level], abs=2.0)


@pytest.mark.parametrize("kind", [Bulge, Protrusion, FlavumThickening, EpiduralFat])
def test_the_measured_share_grows_with_the_asked_depth(kind: type[Lesion]) -> None:
    image, affine = column()
    here = site_of()
    depths = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
    losses = [simulate_lesions(image, affine, [LevelLesions(here, (kind(depth),))]).losses[here.level] for depth in depths]  # type: ignore[call-arg]
    for shares in ([loss.share for loss in losses], [loss.midline_share for loss in losses]):
        assert shares[0] == 0
        assert all(low < high for low, high in itertools.pairwise(shares)), shares
    expected = 8.0 * (0.78 if kind is FlavumThickening else 1.0) / 14.0
    assert losses[4].midline_share == pytest.approx(expected, abs=0.12)


def test_a_broad_bulge_takes_more_of_the_section_than_a_focal_protrusion() -> None:
    image, affine = column()
    here = site_of()
    broad, focal = (
        simulate_lesions(image, affine, [LevelLesions(here, (lesion,))]).losses[here.level]
        for lesion in (Bulge(7.0), Protrusion(7.0))
    )
    assert broad.share > focal.share + 0.1
    assert broad.planes == focal.planes == 5


def test_what_is_behind_the_canal_and_far_away_keeps_every_voxel() -> None:
    image, affine = column()
    here = site_of()
    moved = simulate_lesions(image, affine, [LevelLesions(here, (Extrusion(9.0, migration_mm=-5.0),))]).image
    a = affine[1, 1] * np.arange(image.shape[1]) + affine[1, 3]
    s = affine[2, 2] * np.arange(image.shape[2]) + affine[2, 3]
    assert torch.allclose(moved[:, a < -8.5], image[:, a < -8.5], atol=1e-3)
    assert torch.allclose(moved[:, :, np.abs(s) > 32], image[:, :, np.abs(s) > 32], atol=1e-3)
    assert torch.allclose(moved[:, a > 32], image[:, a > 32], atol=1e-3)
    assert (moved - image).abs().max() > 0.5


def test_the_argument_is_not_changed() -> None:
    image, affine = column()
    before = image.clone()
    simulate_lesions(image, affine, [LevelLesions(site_of(), (Bulge(6.0),))])
    assert torch.equal(image, before)


def test_one_slice_shows_what_the_middle_slice_of_the_volume_shows() -> None:
    image, affine = column()
    here = site_of()
    plan = [LevelLesions(here, (Protrusion(7.0, aside_mm=2.0), FlavumThickening(2.0)))]
    middle = affine.copy()
    middle[0, 3] = 0.0
    single = simulate_lesions(image[4:5], middle, plan)
    whole = simulate_lesions(image, affine, plan)
    assert torch.allclose(single.image[0], whole.image[4], atol=1e-4)
    assert single.losses[here.level].planes == 1
    assert single.losses[here.level].midline_share == pytest.approx(whole.losses[here.level].midline_share, abs=0.01)


@pytest.mark.parametrize("lesion", [Bulge(6.0), Protrusion(7.0), Protrusion(7.0, aside_mm=7.0), Extrusion(8.0, aside_mm=-10.0)])
def test_of_one_slice_what_is_lost_beside_it_counts_as_in_the_volume(lesion: Lesion) -> None:
    image, affine = column()
    here = site_of()
    middle = affine.copy()
    middle[0, 3] = 0.0
    plan = [LevelLesions(here, (lesion,))]
    single, whole = (simulate_lesions(*scan, plan).losses[here.level] for scan in ((image[4:5], middle), (image, affine)))
    assert single.share == pytest.approx(whole.share, abs=0.05)
    assert abs(single.share - single.midline_share) > 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("lesion", [Protrusion(6.0, aside_mm=-7.0), FacetOvergrowth(5.0, side=Side.LEFT)])
def test_left_stays_left_in_any_storage_order(lesion: Lesion, axis: int) -> None:
    """Mirrored storage gives the same voxels in space; the change lies on the patient's left."""
    image, affine = column()
    here = site_of()
    plain = apply_lesions(image, affine, [LevelLesions(here, (lesion,))])
    turned, turned_affine = flip_axis(image.numpy(), affine, axis)
    other = apply_lesions(torch.from_numpy(turned.copy()), turned_affine, [LevelLesions(here, (lesion,))])
    assert torch.allclose(other.flip(axis), plain, atol=1e-4)
    change = (plain - image).abs().sum((1, 2))
    assert change[:4].sum() > 5 * change[5:].sum()


def test_another_series_gets_the_same_lesion_in_space() -> None:
    """On a series with another grid the new margin lies where it does on the first."""
    image, affine = column()
    here = site_of()
    plan = [LevelLesions(here, (Protrusion(6.0),))]
    fine, fine_affine = column(in_plane_mm=0.6)
    fine[:, 110:] = 0.3
    a = affine[1, 1] * np.arange(130) + affine[1, 3]
    fine_a = fine_affine[1, 1] * np.arange(130) + fine_affine[1, 3]

    def margin(picture: torch.Tensor, places: np.ndarray) -> float:
        row = picture[4, :, 70]
        return float(max(place for place, value in zip(places, row.tolist(), strict=True) if value > 0.5 and place < 7))

    first, second = margin(apply_lesions(image, affine, plan), a), margin(apply_lesions(fine, fine_affine, plan), fine_a)
    assert second == pytest.approx(first, abs=0.9)
    assert first == pytest.approx(1.0, abs=1.2)


def test_grades_follow_thirds_and_latents_those_of_the_phantom() -> None:
    assert [severity_of_share(share) for share in (0.0, 0.33, 0.34, 0.66, 0.67, 1.0)] == [
        Severity.NORMAL_MILD, Severity.NORMAL_MILD, Severity.MODERATE, Severity.MODERATE, Severity.SEVERE, Severity.SEVERE,
    ]  # fmt: skip
    image, affine = column()
    here = site_of()
    loss = simulate_lesions(image, affine, [LevelLesions(here, (Bulge(7.0),))]).losses[here.level]
    assert float(narrowing(loss.latent)) == pytest.approx(loss.share, abs=1e-6)
    with pytest.raises(ValueError, match=r"A lost share must be in \[0, 1\], got 1.3"):
        severity_of_share(1.3)


def test_a_random_lesion_is_the_seeds() -> None:
    """The same seed gives the same voxels and words; another gives others."""
    data = example(*column())
    first, again, other = (RandSimulateLesiond(seed=seed)(data) for seed in (3, 3, 4))
    assert torch.equal(first["image"], again["image"])
    assert first["lesion"] == again["lesion"]
    assert first["lesion"] != other["lesion"]


def test_a_random_lesion_says_what_it_did_and_what_was_measured() -> None:
    data = example(*column())
    transform = RandSimulateLesiond(shares=(0.5, 0.5), weights={"protrusion": 1.0}, seed=1)
    result = transform(data)
    lesion = result["lesion"]
    assert lesion["level"] == "L4/L5"
    assert lesion["family"] == "protrusion"
    assert lesion["asked_share"] == pytest.approx(0.5)
    assert lesion["lesions"][0]["kind"] == "Protrusion"
    assert lesion["severity"] == severity_of_share(lesion["share"]).index
    assert result["image"].shape == data["image"].shape
    assert torch.equal(result["image"].affine, data["image"].affine)
    assert "lesion" not in data
    assert set(RandSimulateLesiond(prob=0.0)(data)["lesion"]) == {"level"}


def test_points_that_are_missing_and_names_that_are_none_are_refused() -> None:
    data = example(*column())
    transform = RandSimulateLesiond()
    with pytest.raises(LevelsNotFoundError, match="L1/L2 has no disc or no canal point"):
        transform({**data, "level": "L1/L2"})
    with pytest.raises(LevelsNotFoundError, match=r"No level has both a disc and a canal point \(3 discs, 0 canals\)"):
        transform({**data, "canals": {}})
    with pytest.raises(AnatomyError, match="Unknown level 'L9/S1'"):
        transform({**data, "level": "L9/S1"})
    with pytest.raises(ValueError, match=r"got Tensor \(1, 9, 130, 140\)"):
        transform({**data, "image": data["image"].as_tensor()})
    with pytest.raises(ValueError, match=r"shares rise within what the families take, \[0, 0.92\]"):
        RandSimulateLesiond(shares=(0.0, 1.2))


def test_a_scan_without_a_sac_is_left_as_it_is() -> None:
    """Inverted, as T1 is to T2: nothing bright lies where the canal should be."""
    image, affine = column()
    result = RandSimulateLesiond()(example(1 - image, affine))
    assert "shows no thecal sac" in result["lesion"]["refused"]
    assert torch.equal(result["image"].as_tensor()[0], 1 - image)
    with pytest.raises(LevelsNotFoundError, match="No level shows a sac to narrow"):
        find_sites(1 - image, affine, DISCS, CANALS)


@pytest.mark.parametrize("value", [7.0, 7.3, 1000.5, 0.0])
def test_an_image_without_contrast_shows_no_sac(value: float) -> None:
    image, affine = column()
    result = RandSimulateLesiond(seed=1)(example(torch.full_like(image, value), affine))
    assert "no thecal sac" in result["lesion"]["refused"]


def test_an_image_that_is_not_finite_is_refused() -> None:
    image, affine = column()
    image[5, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="finite values"):
        RandSimulateLesiond()(example(image, affine))


def test_two_discs_at_one_place_are_refused() -> None:
    image, affine = column()
    discs = DISCS | {Level.L3_L4: DISCS[Level.L4_L5]}
    with pytest.raises(LevelsNotFoundError, match="no two discs"):
        find_sites(image, affine, discs, CANALS)
    with pytest.raises(LevelsNotFoundError, match="no two discs"):
        find_canals(image, affine, discs)
    with pytest.raises(LevelsNotFoundError, match="L3/L4 and L4/L5 are marked less than 8 mm apart"):
        find_sites(image, affine, DISCS, CANALS | {Level.L3_L4: CANALS[Level.L4_L5]})


@pytest.mark.parametrize("beyond", [float("nan"), float("inf")])
def test_a_point_that_is_no_place_is_refused_also_of_another_level(beyond: float) -> None:
    image, affine = column()
    discs = DISCS | {Level.L1_L2: (beyond, 2.0, 95.0)}
    for look in (lambda: find_sites(image, affine, discs, CANALS), lambda: find_canals(image, affine, discs)):
        with pytest.raises(LevelsNotFoundError, match=r"L1/L2 is marked at .* no place"):
            look()


def test_points_with_each_others_names_are_refused() -> None:
    swapped = DISCS | {Level.L3_L4: DISCS[Level.L5_S1], Level.L5_S1: DISCS[Level.L3_L4]}
    with pytest.raises(LevelsNotFoundError, match="L4/L5 is marked above L3/L4"):
        find_canals(*column(), swapped)


def test_lesions_outside_an_image_or_in_one_that_is_not_finite_are_refused() -> None:
    image, affine = column()
    plan = [LevelLesions(site_of(), (Bulge(5.0),))]
    with pytest.raises(ValueError, match="L4/L5 of the plan lies outside the image"):
        simulate_lesions(image[:, :50, :50], affine, plan)
    with pytest.raises(ValueError, match="finite values"):
        simulate_lesions(image * torch.nan, affine, plan)


def test_what_families_take_is_all_that_is_drawn() -> None:
    """Extrusions end at 0.8, and begin where degeneration has long ended; above L3/L4 nothing slips."""
    data = example(*column())
    for seed in range(20):
        found = RandSimulateLesiond(weights={"bulge": 1, "extrusion": 2}, seed=seed)(data)["lesion"]
        assert found["asked_share"] <= 0.8
    for weights, reason in (
        ({"degeneration": 1, "extrusion": 1}, "takes shares between 0.06 and 0.3"),
        ({"none_such": 1}, "Weights must be 0 or more, one above 0, of degeneration, bulge"),
        ({"bulge": 0}, "one above 0"),
    ):
        with pytest.raises(ValueError, match=reason):
            RandSimulateLesiond(weights=weights)
    names = dict(zip(("L1/L2", "L2/L3", "L3/L4"), data["discs"], strict=True))
    higher = {key: {name: data[key][old] for name, old in names.items()} for key in ("discs", "canals")}
    refused = RandSimulateLesiond(weights={"listhesis": 1})({**data, **higher, "level": "L2/L3"})["lesion"]["refused"]
    assert "no family with a weight" in refused


def test_what_was_done_to_an_image_before_can_be_inverted_after_a_lesion() -> None:
    data = example(*column())
    turn = Orientationd("image", axcodes="LPS", labels=None)
    result = RandSimulateLesiond(seed=2)(turn(data))
    assert "share" in result["lesion"]
    back = turn.inverse(result)["image"]
    assert torch.equal(back.affine, data["image"].affine)
    assert back.shape == data["image"].shape


@pytest.mark.parametrize("slip_mm", [8.0, -4.0, 10.0])
def test_points_go_where_a_vertebra_slips(slip_mm: float) -> None:
    """What lies above goes along; tissue at the point's new place came from its old one."""
    here = site_of()
    plan = [LevelLesions(here, (Listhesis(slip_mm), Bulge(5.0)))]
    slip = [LevelLesions(here, (Listhesis(slip_mm),))]
    for points in (DISCS, CANALS):
        for level, there in carried(points, plan).items():
            point = points[level]
            local = to_local(here.frame) @ [*there, 1.0]
            back = pull_points(Local(*torch.from_numpy(local[:3])), slip, frame=here.frame)
            source = from_local(here.frame) @ [float(back.aside), float(back.behind), float(back.up), 1.0]
            assert source[:3] == pytest.approx(point, abs=1e-3)
            if level is Level.L5_S1:
                assert there == pytest.approx(point)
            else:
                assert (there[1] - point[1]) / slip_mm > 0.1
    assert carried(DISCS, [LevelLesions(here, (Bulge(5.0),))]) == DISCS
    moved = RandSimulateLesiond(weights={"listhesis": 1}, shares=(0.3, 0.3), seed=1)(example(*column()))
    assert moved["canals"]["L3/L4"] != CANALS[Level.L3_L4]


def test_a_canal_lies_behind_its_disc() -> None:
    image, affine = column()
    with pytest.raises(LevelsNotFoundError, match="0 mm behind its disc"):
        find_sites(image, affine, DISCS, DISCS)


def test_a_side_is_one_of_two_also_where_it_is_given_as_text() -> None:
    assert FacetOvergrowth(3.0, side="right").side is Side.RIGHT  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nonsense"):
        FacetOvergrowth(3.0, side="nonsense")  # type: ignore[arg-type]


@pytest.mark.parametrize("off_mm", [0.0, 1.7, 1.9, -1.9])
def test_a_single_slice_is_one_plane_wherever_its_points_lie(off_mm: float) -> None:
    image, affine = column()
    middle = image.shape[0] // 2
    slice_affine = affine.copy()
    slice_affine[:3, 3] += slice_affine[:3, 0] * middle
    slice_affine[:3, 0] *= 4.5 / np.linalg.norm(slice_affine[:3, 0])
    moved = [{level: (point[0] + off_mm, *point[1:]) for level, point in points.items()} for points in (DISCS, CANALS)]
    one = image[middle : middle + 1]
    here = find_sites(one, slice_affine, *moved)[Level.L4_L5]
    loss = simulate_lesions(one, slice_affine, [LevelLesions(here, (Protrusion(6.0),))]).losses[Level.L4_L5]
    assert loss.planes == 1


def test_a_narrow_sac_is_no_normal_base() -> None:
    image, affine = column()
    narrowed = simulate_lesions(image, affine, [LevelLesions(site_of(), (Bulge(6.0),))]).image
    result = RandSimulateLesiond()(example(narrowed, affine))
    assert "already" in result["lesion"]["refused"] or "mm deep" in result["lesion"]["refused"]
