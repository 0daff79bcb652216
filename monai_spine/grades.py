"""From levels and volumes to graded targets, each condition by its own bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from monai_spine.anatomy import Condition, Level, Severity, Side, Target
from monai_spine.branches import Views, crop_specs
from monai_spine.crops import Crop, CropSpec, best_block, crop_block, project_to_slice
from monai_spine.errors import AnatomyError, OutsideFieldOfViewError, WeightsError
from monai_spine.geometry import Point
from monai_spine.level_doubts import Doubt
from monai_spine.placement import ColumnFrame, column_frames
from monai_spine.referral import Referral

if TYPE_CHECKING:
    from monai_spine.levels import Levels
    from monai_spine.volume import Volume
    from monai_spine.weights import Bundle

__all__ = ["SINGLE_SLICE", "Grade", "Grader", "grade_targets", "load_grader", "referred", "single_slice_flags"]

SINGLE_SLICE = "single_slice"
"""The flag of a finding that was graded on one slice alone, such as a picture."""


@dataclass(frozen=True)
class Grade:
    """A target's grade, or the reason why it has none.

    Attributes:
        target: What was graded.
        status: `graded` or `not_assessable`.
        reason: Why it has no grade, or was graded without one of the series that its bundle looks at, in words; None otherwise.
        probabilities: Of normal_mild, moderate and severe; they sum to 1. As frequencies, not weighted for any score.
        series_instance_uid: Series of the crop.
        point_ras_mm: Centre of the crop, RAS+ mm.
        crop: What the network saw, before mirroring and normalisation: the first where it saw several.
        views: All that it saw, where its bundle looks at several series.
        doubts: Why the grade is flagged: `referral` where it is left to a reader, `single_slice` where its series is one slice.
    """

    target: Target
    status: Literal["graded", "not_assessable"]
    reason: str | None = None
    probabilities: tuple[float, float, float] | None = None
    series_instance_uid: str | None = None
    point_ras_mm: Point | None = None
    crop: Crop | None = None
    views: Views | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of its doubts."""
        return tuple(dict.fromkeys(doubt.flag for doubt in self.doubts))

    @property
    def severity(self) -> Severity | None:
        """The most probable severity, the milder one where two are equal."""
        if self.probabilities is None:
            return None
        return max(Severity, key=lambda severity: (self.probabilities or ())[severity.index])


@dataclass(frozen=True)
class Grader:
    """A grading bundle that is ready to run.

    Attributes:
        bundle: Where it comes from.
        condition: What it grades.
        spec: The crop that it wants to see.
        network: In evaluation mode, on `device`.
        device: Such as `cpu` or `cuda:0`.
        beside: The crops of the same target that it wants to see on other series; of all of them, any one is enough.
        referral: Which findings are left to a reader; None: it says of none.
    """

    bundle: Bundle
    condition: Condition
    spec: CropSpec
    network: Any
    device: str = "cpu"
    beside: tuple[CropSpec, ...] = ()
    referral: Referral | None = None

    @property
    def specs(self) -> tuple[CropSpec, ...]:
        """Every crop that it wants to see, one for each role."""
        return (self.spec, *self.beside)

    def probabilities(self, crops: Sequence[Crop | Views]) -> list[tuple[float, float, float]]:
        """Probabilities of the three severities for each crop (already mirrored where it has to be), in one pass."""
        import torch

        if not crops:
            return []
        images = [self.bundle.preprocessing({"image": torch.from_numpy(crop.image)})["image"] for crop in crops]
        with torch.inference_mode():
            logits = self.bundle.inferer(torch.stack([torch.as_tensor(image) for image in images]).to(self.device), self.network)
        return [self._checked(self.bundle.postprocessing({"pred": row})["pred"]) for row in logits.float().cpu()]

    def _checked(self, row: Any) -> tuple[float, float, float]:
        values = [float(value) for value in row]
        if len(values) != len(Severity) or not abs(sum(values) - 1) < 1e-3 or min(values) < 0:
            raise WeightsError(
                f"Bundle {self.bundle.name} gave {values} where the probabilities of {', '.join(Severity)} were expected. "
                "Its inference.json has to end in a softmax over three classes."
            )
        return values[0], values[1], values[2]


def load_grader(bundle: Bundle, device: str = "cpu") -> Grader:
    """Make a grading bundle ready to run.

    Raises:
        WeightsError: Its weights or its `inference.json` cannot be used.
    """
    try:
        condition = Condition.parse(str(bundle.config("condition")))
    except AnatomyError as error:
        raise WeightsError(f"Bundle {bundle.name} grades what nobody knows: {error} Correct its inference.json.") from error
    spec, *beside = crop_specs(bundle.config("crop"))
    return Grader(
        bundle=bundle,
        condition=condition,
        spec=spec,
        network=bundle.network(device),
        device=device,
        beside=tuple(beside),
        referral=Referral.from_config(bundle.option("referral")),
    )


def grade_targets(
    targets: Iterable[Target],
    levels: Levels,
    volumes: Mapping[Any, Sequence[Volume]],
    graders: Mapping[Condition, Grader],
    unread: Mapping[Any, str] | None = None,
) -> tuple[Grade, ...]:
    """Grade targets, in their order. What cannot be graded says why.

    Args:
        targets: What to grade.
        levels: Where the levels are.
        volumes: The blocks of the series of each role (`Role` or its value).
        graders: One per condition.
        unread: Roles (`Role` or its value) of which a series could not be read, with the reason.
    """
    frames = column_frames(levels)
    by_role = {str(role): tuple(blocks) for role, blocks in volumes.items()}
    missing = {str(role): why for role, why in (unread or {}).items()}
    seen = {found.level: found.foramina_ras_mm for found in levels.levels}
    grades = [_placed(target, frames, seen, by_role, graders.get(target.condition), missing) for target in targets]
    for condition, grader in graders.items():
        waiting = [at for at, grade in enumerate(grades) if grade.target.condition is condition and grade.crop is not None]
        crops = [_as_seen(grades[at], grader.spec) for at in waiting]
        for at, probabilities in zip(waiting, grader.probabilities(crops), strict=True):
            grades[at] = replace(grades[at], status="graded", probabilities=probabilities)
    return tuple(grades)


def single_slice_flags(grades: Iterable[Grade]) -> tuple[str, ...]:
    """What a reader of a study should know where conditions were graded on one slice alone, in words."""
    conditions = dict.fromkeys(grade.target.condition for grade in grades if SINGLE_SLICE in grade.flags)
    return tuple(f"{condition.label} was graded on one slice: what lies beside it was not seen" for condition in conditions)


def referred(grades: Iterable[Grade], graders: Mapping[Condition, Grader]) -> tuple[Grade, ...]:
    """The same grades, flagged `referral` where their grader leaves a finding with such probabilities to a reader."""
    return tuple(_referred(grade, graders.get(grade.target.condition)) for grade in grades)


def _referred(grade: Grade, grader: Grader | None) -> Grade:
    if grade.probabilities is None or grader is None or grader.referral is None:
        return grade
    return replace(grade, doubts=(*grade.doubts, *grader.referral.doubts(grade.probabilities, grade.target.level)))


def _placed(
    target: Target,
    frames: Mapping[Level, ColumnFrame],
    foramina: Mapping[Level, Mapping[Side, Point]],
    volumes: Mapping[str, Sequence[Volume]],
    grader: Grader | None,
    unread: Mapping[str, str],
) -> Grade:
    """The target with its crops and no grade yet, or with the reason why it gets none."""
    if grader is None:
        return Grade(target, "not_assessable", reason=f"no bundle for {target.condition.label} was loaded")
    seen = [_explained(_placed_on(spec, target, frames, foramina, volumes), unread.get(spec.role)) for spec in grader.specs]
    return seen[0] if len(seen) == 1 else _together(seen, grader.specs)


def _placed_on(
    spec: CropSpec,
    target: Target,
    frames: Mapping[Level, ColumnFrame],
    foramina: Mapping[Level, Mapping[Side, Point]],
    volumes: Mapping[str, Sequence[Volume]],
) -> Grade:
    """The target with its crop from one kind of series, or with the reason why there is none."""
    frame = frames.get(target.level)
    if not volumes.get(spec.role):
        unknown = "; of a NIfTI file, name its kind with --role" if volumes.get("sagittal") else ""
        return Grade(target, "not_assessable", reason=f"the study has no {_series_label(spec.role)} series{unknown}")
    if frame is None or target.level not in spec.offset_mm:
        return Grade(target, "not_assessable", reason=f"{target.level.label}, or the canal beside it, was not found")
    outwards, front, up = spec.offset_mm[target.level]
    seen = foramina[target.level].get(target.side) if spec.at_foramen and target.side is not None else None
    if seen is not None:
        outwards, _, _ = frame.offset_mm(seen, target.side)
    return _cropped(target, frame.point((outwards, front, up), target.side), volumes[spec.role], spec)


def _explained(grade: Grade, why: str | None) -> Grade:
    """A target that has no crop, where a series that might show it could not be read: that is the reason, or a part of it."""
    if why is None or grade.reason is None:
        return grade
    return replace(grade, reason=why if grade.series_instance_uid is None else f"{grade.reason} {why[0].upper()}{why[1:]}")


def _together(seen: Sequence[Grade], specs: Sequence[CropSpec]) -> Grade:
    """One target from what each kind of series shows of it: any crop is enough, and what it was graded without is said."""
    reasons = "; ".join(dict.fromkeys(grade.reason.removesuffix(".") for grade in seen if grade.reason is not None))
    there = [at for at, grade in enumerate(seen) if grade.crop is not None]
    if not there:
        return replace(seen[0], reason=reasons)
    labels = " and ".join(_series_label(specs[at].role) for at in there)
    views = Views(tuple(grade.crop for grade in seen), tuple(spec.shape for spec in specs))
    return replace(seen[there[0]], reason=f"graded on {labels} alone: {reasons}" if reasons else None, views=views)


def _cropped(target: Target, point: Point, blocks: Sequence[Volume], spec: CropSpec) -> Grade:
    volume = best_block(blocks, point, size_mm=spec.size_mm)
    point = project_to_slice(point, volume) if spec.on_slice else point
    try:
        crop = crop_block(volume, point, size_mm=spec.size_mm, shape=spec.shape, min_coverage=spec.min_coverage)
    except OutsideFieldOfViewError as error:
        reason = f"{target.level.label} was not graded on the {_series_label(spec.role)} series: {error}"
        return Grade(target, "not_assessable", reason=reason, series_instance_uid=volume.series_instance_uid)
    if not crop.array.any():
        reason = (
            f"{target.level.label} was not graded on the {_series_label(spec.role)} series: it is blank there, all voxels are 0"
        )
        return Grade(target, "not_assessable", reason=reason, series_instance_uid=volume.series_instance_uid)
    doubts = (_single_slice(target.level),) if volume.is_single_slice else ()
    uid = volume.series_instance_uid
    return Grade(target, "not_assessable", series_instance_uid=uid, point_ras_mm=point, crop=crop, doubts=doubts)


def _single_slice(level: Level) -> Doubt:
    return Doubt(SINGLE_SLICE, "graded on one slice: what lies beside it was not seen", level)


def _as_seen(grade: Grade, spec: CropSpec) -> Crop | Views:
    """What the network takes; a right side as a left one."""
    seen = grade.views or grade.crop
    if seen is None:
        raise ValueError(f"{grade.target.slug} has no crop.")
    return seen.mirrored() if spec.mirror_right and grade.target.side is Side.RIGHT else seen


def _series_label(role: str) -> str:
    """`sagittal_t1` as people write it: sagittal T1."""
    return role.replace("_t", " T")
