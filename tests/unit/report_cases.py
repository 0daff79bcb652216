"""A result with images of a drawn spine, for the tests of what is written from results."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from monai_spine.anatomy import DISCS, LEVELS, TARGETS, Condition, Side, Target, Vertebra
from monai_spine.crops import Crop
from monai_spine.geometry import Point, affine_from_spacing, apply_affine, invert_affine
from monai_spine.grades import Grade
from monai_spine.level_doubts import Doubt
from monai_spine.level_slices import on_slices
from monai_spine.levels import BODY_VALUES, BodyMap, LevelPoint, Levels, VertebraPoint
from monai_spine.referral import Referral
from monai_spine.report.images import ReportImages, crops_of
from monai_spine.result import RESEARCH_NOTICE, StudyResult
from monai_spine.series import Role, SeriesRole
from monai_spine.volume import Volume

UIDS = {Role.SAGITTAL_T1: "1.2.826.0.1.1", Role.SAGITTAL_T2: "1.2.826.0.1.2", Role.AXIAL_T2: "1.2.826.0.1.3"}
HOSTILE = "SAG <script>alert('x')</script> & \"T2\" https://example.org"
SIMULATED = "Graders: trained on simulated images: shows the path, grades no patient."
MEANING = "On 10 findings of a test: 20.0 % are referred to a reader; 0.0 % of the rest are graded wrong, 10.0 % of all."
PROBABILITIES = {0: (0.88, 0.1, 0.02), 1: (0.2, 0.65, 0.15), 2: (0.03, 0.16, 0.81)}


def disc_point(index: int) -> Point:
    """Centre of the disc of LEVELS[index], of T12/L1 at -1: a gentle lordosis on the midline."""
    s = 70.0 - 35.0 * index
    return 1.0, 20.0 - 0.004 * (s + 10) ** 2, s


def canal_point(index: int) -> Point:
    r, a, s = disc_point(index)
    return r, a - 25.0, s


def foramen_point(index: int, side: Side) -> Point:
    r, a, s = canal_point(index)
    return r + (-17.0 if side is Side.LEFT else 17.0), a + 5.0, s + 8.0


@cache
def drawn_volume(role: Role = Role.SAGITTAL_T2) -> Volume:
    """A sagittal or axial block with grey bodies, discs and a bright canal; a bright mark in the patient's left half only."""
    spacing = (4.0, 1.0, 1.0) if role is not Role.AXIAL_T2 else (1.0, 1.0, 4.0)
    shape = tuple(int(edge / step) for edge, step in zip((64, 200, 240), spacing, strict=True))
    affine = affine_from_spacing(spacing, center_ras_mm=(0.0, 0.0, 0.0), shape=shape)
    r, a, s = np.moveaxis(apply_affine(affine, np.stack(np.indices(shape), axis=-1)), -1, 0)
    front = 20.0 - 0.004 * (s + 10) ** 2
    array = 60.0 + 30 * (np.abs(a) < 80) + 10 * np.sin(r / 5 + a / 7 + s / 9)
    body = (np.abs(a - front) < 17) & (np.abs(r) < 22)
    array[body] = 140
    for index in range(len(LEVELS)):
        array[body & (np.abs(s - disc_point(index)[2]) < 5)] = 200
    array[(np.abs(a - front + 25) < 8) & (np.abs(r) < 11)] = 255
    array[(r < -14) & (r > -20) & (np.abs(a - front + 25) < 5)] = 400
    slice_axis = 2 if role is Role.AXIAL_T2 else 0
    return Volume(array.astype(np.float32), affine, series_instance_uid=UIDS[role], slice_axis=slice_axis,
                  sop_instance_uids=tuple(f"{UIDS[role]}.{number + 1}" for number in range(shape[slice_axis])))  # fmt: skip


@cache
def body_map() -> BodyMap:
    """T12 to S1 as boxes between the discs, on a grid of 2 mm."""
    shape = (30, 80, 115)
    affine = affine_from_spacing((2.0, 2.0, 2.0), center_ras_mm=(0.0, 0.0, 0.0), shape=shape)
    r, a, s = np.moveaxis(apply_affine(affine, np.stack(np.indices(shape), axis=-1)), -1, 0)
    labels = np.zeros(shape, np.uint8)
    for number, level in enumerate(DISCS):
        box, top = (np.abs(a - (20.0 - 0.004 * (s + 10) ** 2)) < 16) & (np.abs(r) < 20), 100.0 - 35 * number
        labels[box & (s < top) & (s > top - 25)] = BODY_VALUES[level.vertebra_below]
        labels[box & (s > 110)] = BODY_VALUES[Vertebra.T12]
    return BodyMap(labels, affine)


def case_levels() -> Levels:
    points = tuple(
        LevelPoint(level=level, disc_ras_mm=disc_point(index), canal_ras_mm=canal_point(index),
                   confidence=0.97 - 0.13 * abs(index), series_instance_uid=UIDS[Role.SAGITTAL_T2],
                   doubts=(Doubt("low_confidence", "0.45", level),) if index == 4 else (),
                   foramina_ras_mm={side: foramen_point(index, side) for side in Side if index >= 0})
        for index, level in enumerate(DISCS, start=-1)
    )  # fmt: skip
    vertebrae = tuple(
        VertebraPoint(
            vertebra=level.vertebra_above,
            point_ras_mm=(1.0, disc_point(index)[1], disc_point(index)[2] + 17),
            confidence=0.9,
        )
        for index, level in enumerate(DISCS, start=-1)
    )
    doubt = Doubt("sacrum_not_seen", "L5/S1 was named with a confidence of 0.45 only")
    return on_slices(Levels(points, vertebrae, (doubt,), body_map()), drawn_volume())


def drawn_crop(volume: Volume, center_ras_mm: Point, *, axial: bool = False) -> Crop:
    """A block of 48 mm around a point, nearest voxels."""
    shape = (48, 48, 12) if axial else (24, 48, 48)
    affine = affine_from_spacing(tuple(48.0 / size for size in shape), center_ras_mm=center_ras_mm, shape=shape)
    index = apply_affine(invert_affine(volume.affine) @ affine, np.stack(np.indices(shape), axis=-1))
    i, j, k = np.moveaxis(np.clip(np.round(index), 0, np.array(volume.array.shape) - 1).astype(int), -1, 0)
    return Crop(volume.array[i, j, k], affine, coverage=1.0)


@cache
def case_grade(target: Target) -> Grade:
    """Severe at L4/L5, moderate at L3/L4, otherwise normal; the subarticular targets at L1/L2 cannot be assessed, and the canal
    at L3/L4 is left to a reader."""
    number = LEVELS.index(target.level)
    if target.condition is Condition.SUBARTICULAR_STENOSIS and number == 0:
        reason = "only 33 % of its 64 × 64 × 32 mm block lies inside the scan (at least 50 % is needed)"
        return Grade(target=target, status="not_assessable", reason=reason, probabilities=None, series_instance_uid=None,
                     point_ras_mm=None, crop=None)  # fmt: skip
    role = {
        Condition.SPINAL_CANAL_STENOSIS: Role.SAGITTAL_T2,
        Condition.NEURAL_FORAMINAL_NARROWING: Role.SAGITTAL_T1,
        Condition.SUBARTICULAR_STENOSIS: Role.AXIAL_T2,
    }[target.condition]
    r, a, s = canal_point(number)
    aside = {Side.LEFT: -9.0, Side.RIGHT: 9.0, None: 0.0}[target.side]
    point = (r + aside, a, s)
    crop = drawn_crop(drawn_volume(role), point, axial=role is Role.AXIAL_T2)
    severity = {3: 2, 2: 1}.get(number, 0)
    if target.side is Side.LEFT and number == 4:
        severity = 1
    doubts = Referral(0.3, MEANING).doubts(PROBABILITIES[severity], target.level) if target.side is None else ()
    return Grade(target=target, status="graded", reason=None, probabilities=PROBABILITIES[severity],
                 series_instance_uid=UIDS[role], point_ras_mm=point, crop=crop, doubts=doubts)  # fmt: skip


def case(**changes: Any) -> tuple[StudyResult, ReportImages]:
    """A study with all three series, 23 graded targets and two that are not assessable."""
    volumes = {role: drawn_volume(role) for role in UIDS}
    series = (
        *(
            SeriesRole(
                series_instance_uid=uid,
                role=role,
                reason=f"orientation and TE fit {role.value}",
                used=True,
                description=role.value,
            )
            for role, uid in UIDS.items()
        ),
        SeriesRole(
            series_instance_uid="1.2.826.0.1.4",
            role=None,
            reason="3 slices in three planes: a localizer",
            used=False,
            description=HOSTILE,
        ),
    )
    grades = tuple(case_grade(target) for target in TARGETS)
    given: dict[str, Any] = {
        "study_instance_uid": "1.2.826.0.1",
        "source": "studies/<b>one</b>",
        "series": series,
        "levels": case_levels(),
        "grades": grades,
        "flags": ("Slices 4 and 5 of series 3 lie at one position; the first was kept.",),
        "provenance": {
            "versions": {"monai_spine": "0.1.0", "torch": "2.13.0"},
            "bundles": [
                {"name": "spinal_canal_stenosis_grading", "version": "0.1.0", "weights_sha256": {"models/model.pt": "ab" * 32},
                 "training_data": "simulated", "notice": SIMULATED,
                 "referral": {"expected_risk": 0.3, "meaning": MEANING}},
            ],
            "settings": {"device": "cpu", "levels": [level.label for level in LEVELS]},
            "notice": f"{RESEARCH_NOTICE} {SIMULATED}",
        },
        **changes,
    }  # fmt: skip
    result = StudyResult(**given)
    sagittal = {role: volumes[role] for role in (Role.SAGITTAL_T2, Role.SAGITTAL_T1)}
    return result, ReportImages(sagittal=sagittal, crops=crops_of(result.grades))
