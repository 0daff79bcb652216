"""Every target gets probabilities, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prepared import SHAPES, affine_of, canal_points

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Severity, Side
from monai_spine.crops import CropSpec
from monai_spine.errors import WeightsError
from monai_spine.grades import Grade, Grader, grade_targets, referred
from monai_spine.levels import LevelPoint, Levels
from monai_spine.referral import Referral
from monai_spine.series import Role
from monai_spine.volume import Volume

LEVELS_FOUND = Levels(
    tuple(LevelPoint(level, (r, a + 24, s), (r, a, s), 0.9) for level, (r, a, s) in canal_points().items()), vertebrae=()
)
SPECS = {
    Condition.SPINAL_CANAL_STENOSIS: ("sagittal_t2", (24.0, 40.0, 40.0), 0.0),
    Condition.NEURAL_FORAMINAL_NARROWING: ("sagittal_t1", (20.0, 40.0, 40.0), 15.0),
    Condition.SUBARTICULAR_STENOSIS: ("axial_t2", (40.0, 40.0, 16.0), 9.0),
}


@dataclass
class StandIn:
    """A bundle and network whose first logit is the crop's mean on its low side of axis 0, and which counts its passes."""

    name: str = "stand_in"
    passes: list[int] = field(default_factory=list)
    softmax: bool = True

    def preprocessing(self, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def postprocessing(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"pred": torch.softmax(data["pred"], dim=0)} if self.softmax else data

    def inferer(self, images: torch.Tensor, network: Any) -> torch.Tensor:
        self.passes.append(len(images))
        low = images[:, 0, : images.shape[2] // 2].mean(dim=(1, 2, 3)) / 100
        return torch.stack([low, torch.zeros_like(low), torch.zeros_like(low)], dim=1)


def graders(**changes: Any) -> dict[Condition, Grader]:
    made = {}
    for condition, (role, size, outwards) in SPECS.items():
        mirror = condition is not Condition.SPINAL_CANAL_STENOSIS
        spec = CropSpec(role, size, (8, 10, 12), mirror, dict.fromkeys(LEVELS, (outwards, 0.0, 0.0)), on_slice=role == "axial_t2")
        made[condition] = Grader(StandIn(**changes), condition, spec, network=None)
    return made


def volumes(*roles: Role, value: float = 100.0) -> dict[Role, tuple[Volume, ...]]:
    arrays = {role: np.full(SHAPES[role.value], value, np.float32) for role in roles}
    return {role: (Volume(array, affine_of(role.value), f"uid-{role.value}"),) for role, array in arrays.items()}


ALL = (Role.SAGITTAL_T1, Role.SAGITTAL_T2, Role.AXIAL_T2)


def test_all_targets_are_graded_in_the_official_order_in_one_pass_per_bundle() -> None:
    ready = graders()
    grades = grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL), ready)
    assert [grade.target for grade in grades] == list(TARGETS)
    assert {grade.status for grade in grades} == {"graded"}
    assert all(sum(grade.probabilities or ()) == pytest.approx(1) for grade in grades)
    assert [grader.bundle.passes for grader in ready.values()] == [[5], [10], [10]]


def test_a_study_without_a_role_leaves_its_targets_with_the_reason() -> None:
    grades = grade_targets(TARGETS, LEVELS_FOUND, volumes(Role.SAGITTAL_T1), graders())
    for grade in grades:
        graded = grade.target.condition is Condition.NEURAL_FORAMINAL_NARROWING
        assert grade.status == ("graded" if graded else "not_assessable")
        if not graded:
            assert "the study has no" in (grade.reason or "")
            assert grade.probabilities is None
            assert grade.severity is None
    assert grades[-1].reason == "the study has no sagittal T2 series"


def test_a_level_that_was_not_found_is_named() -> None:
    few = Levels(LEVELS_FOUND.levels[:4], vertebrae=())
    grades = grade_targets(TARGETS, few, volumes(*ALL), graders())
    missing = [grade for grade in grades if grade.status == "not_assessable"]
    assert {grade.target.level for grade in missing} == {Level.L5_S1}
    assert all("L5/S1, or the canal beside it, was not found" in (grade.reason or "") for grade in missing)


def test_a_level_outside_the_scan_says_how_much_of_its_crop_is_inside() -> None:
    away = tuple(
        LevelPoint(point.level, point.disc_ras_mm, (0.0, 0.0, 300.0) if point.level is Level.L1_L2 else point.canal_ras_mm, 0.9)
        for point in LEVELS_FOUND.levels
    )
    grades = grade_targets(TARGETS, Levels(away, vertebrae=()), volumes(*ALL), graders())
    canal = next(grade for grade in grades if grade.target.slug == "spinal_canal_stenosis_l1_l2")
    assert canal.status == "not_assessable"
    assert "L1/L2 was not graded on the sagittal T2 series: only 0 %" in (canal.reason or "")


def test_without_a_bundle_a_condition_is_not_assessable() -> None:
    grades = grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL), {})
    assert {grade.reason for grade in grades if grade.target.side is None} == {"no bundle for spinal canal stenosis was loaded"}


def test_the_right_side_is_shown_as_a_left_one() -> None:
    """What is bright on the outer side only looks the same on both sides once the right is mirrored."""
    scan = volumes(*ALL)
    block = scan[Role.AXIAL_T2][0]
    index = np.arange(block.array.shape[0])
    across = np.abs(block.affine[0, 0] * index + block.affine[0, 3])
    outer = Volume(np.broadcast_to(across[:, None, None] * 10, block.array.shape).astype(np.float32), block.affine)
    grades = grade_targets(TARGETS, LEVELS_FOUND, {**scan, Role.AXIAL_T2: (outer,)}, graders())
    found = {grade.target.slug: grade.probabilities for grade in grades}
    assert found["left_subarticular_stenosis_l3_l4"] == pytest.approx(found["right_subarticular_stenosis_l3_l4"], abs=1e-4)
    crops = {grade.target.side: grade.crop for grade in grades if grade.target.slug.endswith("subarticular_stenosis_l3_l4")}
    left, right = crops[Side.LEFT], crops[Side.RIGHT]
    assert left is not None
    assert right is not None
    assert float(np.abs(left.array - right.array).max()) > 50


def test_axial_crops_are_centred_on_a_slice() -> None:
    grades = grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL), graders())
    heights = [grade.point_ras_mm[2] for grade in grades if grade.point_ras_mm and "subarticular" in grade.target.slug]
    np.testing.assert_allclose((np.array(heights) + 86) % 4, 0, atol=1e-6)


def test_outputs_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(WeightsError, match="has to end in a softmax"):
        grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL, value=300.0), graders(softmax=False))


def test_a_finding_above_the_bundle_s_threshold_is_graded_and_flagged() -> None:
    ready = graders()
    sure, unsure = (replace(ready[condition], referral=Referral(0.5)) for condition in list(SPECS)[:2])
    ready |= {sure.condition: sure, unsure.condition: replace(unsure, referral=Referral(0.2))}
    grades = referred(grade_targets(TARGETS, LEVELS_FOUND, volumes(*ALL), ready), ready)
    assert {grade.probabilities for grade in grades} == {grades[0].probabilities}
    assert max(grades[0].probabilities or ()) == pytest.approx(0.576, abs=1e-3)
    assert {grade.target.condition for grade in grades if grade.flags == ("referral",)} == {unsure.condition}
    assert {grade.status for grade in grades} == {"graded"}


def test_the_milder_of_two_equal_severities_is_taken() -> None:
    grade = Grade(TARGETS[0], "graded", probabilities=(0.2, 0.4, 0.4))
    assert grade.severity is Severity.MODERATE


@pytest.mark.parametrize("at_foramen", [True, False])
def test_a_foramen_that_was_seen_says_how_far_outwards_its_crop_lies(at_foramen: bool) -> None:
    moved = replace(LEVELS_FOUND.levels[2], foramina_ras_mm={Side.LEFT: (-21.0, -30.0, 4.0)})
    found = replace(LEVELS_FOUND, levels=(*LEVELS_FOUND.levels[:2], moved, *LEVELS_FOUND.levels[3:]))
    ready = graders()
    foraminal = ready[Condition.NEURAL_FORAMINAL_NARROWING]
    ready[foraminal.condition] = replace(foraminal, spec=replace(foraminal.spec, at_foramen=at_foramen))
    targets = [target for target in TARGETS if target.condition is foraminal.condition and target.level is moved.level]
    left, right = (grade.point_ras_mm for grade in grade_targets(targets, found, volumes(*ALL), ready))
    outwards = -21.0 if at_foramen else moved.canal_ras_mm[0] - 15.0
    assert left == pytest.approx((outwards, *moved.canal_ras_mm[1:]), abs=1.5)
    assert right == pytest.approx(np.add(moved.canal_ras_mm, (15.0, 0.0, 0.0)), abs=1.5)


def test_a_finding_on_a_single_slice_says_so_beside_its_referral() -> None:
    whole = volumes(Role.SAGITTAL_T2)
    (scan,) = whole[Role.SAGITTAL_T2]
    slices = scan.array.shape[scan.slice_axis]
    middle = replace(scan, array=scan.array.take([slices // 2], axis=scan.slice_axis), affine=moved_to_slice(scan, slices // 2))
    ready = {condition: replace(grader, referral=Referral(0.2)) for condition, grader in graders().items()}
    canal = [target for target in TARGETS if target.condition is Condition.SPINAL_CANAL_STENOSIS]
    for given, flags in ((whole, ("referral",)), ({Role.SAGITTAL_T2: (middle,)}, ("single_slice", "referral"))):
        assert {grade.flags for grade in referred(grade_targets(canal, LEVELS_FOUND, given, ready), ready)} == {flags}


def moved_to_slice(volume: Volume, index: int) -> np.ndarray:
    affine = volume.affine.copy()
    affine[:3, 3] += index * affine[:3, volume.slice_axis]
    return affine


def canal_on_two_series() -> dict[Condition, Grader]:
    ready = graders()
    canal = ready[Condition.SPINAL_CANAL_STENOSIS]
    axial = replace(canal.spec, role="axial_t2", size_mm=(40.0, 40.0, 20.0))
    return {canal.condition: replace(canal, beside=(axial,))}


CANALS = [target for target in TARGETS if target.condition is Condition.SPINAL_CANAL_STENOSIS]


def test_a_target_on_two_series_needs_one_of_them_and_says_which_was_lacking() -> None:
    axial = volumes(Role.AXIAL_T2)[Role.AXIAL_T2][0]
    short = replace(axial, array=axial.array[:, :, :30])
    scans = {**volumes(Role.SAGITTAL_T2), Role.AXIAL_T2: (short,)}
    first, *others = grade_targets(CANALS, LEVELS_FOUND, scans, canal_on_two_series())
    assert first.status == "graded"
    assert (first.reason or "").startswith(
        "graded on sagittal T2 alone: L1/L2 was not graded on the axial T2 series: only 0 % of its 40 × 40 × 20 mm block"
    )
    assert first.views is not None
    assert [crop is None for crop in first.views.crops] == [False, True]
    assert {(grade.status, grade.reason) for grade in others[1:]} == {("graded", None)}


def test_a_series_that_cannot_be_read_is_named_where_the_other_was_graded() -> None:
    unread = {Role.AXIAL_T2: "the axial T2 series cannot be used (blank)"}
    grades = grade_targets(CANALS, LEVELS_FOUND, volumes(Role.SAGITTAL_T2), canal_on_two_series(), unread=unread)
    assert {grade.reason for grade in grades} == {"graded on sagittal T2 alone: the axial T2 series cannot be used (blank)"}


def test_a_level_that_no_series_shows_has_its_reason_once() -> None:
    few = Levels(LEVELS_FOUND.levels[:4], vertebrae=())
    scans = volumes(Role.SAGITTAL_T2, Role.AXIAL_T2)
    last = grade_targets(CANALS, few, scans, canal_on_two_series())[-1]
    assert (last.status, last.reason) == ("not_assessable", "L5/S1, or the canal beside it, was not found")
