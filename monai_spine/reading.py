"""Read the series of a study that are used. One that cannot be read is set aside with its reason; the rest is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from monai_spine.errors import SeriesSelectionError, StudyError, UnreadableInputError, VolumeGeometryError
from monai_spine.series import Role, SeriesRole, assign_roles, used_series
from monai_spine.series_facts import MIN_SAGITTAL_SLICES
from monai_spine.settings import Settings
from monai_spine.study import Series, Study, summary
from monai_spine.volume import Volume, load_nifti, load_picture, load_series, picture_volume

__all__ = ["LOCALIZED_ON", "ReadSeries", "frame_flags", "read_used"]

LOCALIZED_ON = (Role.SAGITTAL_T2, Role.SAGITTAL_T1, Role.SAGITTAL)
"""Levels are found on each of these; the surest column is taken, the first of equals."""

MIN_EXTENT_MM, MAX_EXTENT_MM = 40.0, 2000.0
"""A scan must show two neighbouring discs; no scanner is longer than two metres."""

_BRIGHTEST_MEAN = 0.5
"""Of a picture's grey values from darkest to brightest: 147 T2 pictures have 0.07 to 0.35, their negatives 0.65 to 0.93."""

Volumes = Mapping[Role, tuple[Volume, ...]]


@dataclass(frozen=True)
class ReadSeries:
    """The series of a study with their roles, and the pixels of those that are used.

    Attributes:
        roles: One verdict per series.
        volumes: The blocks of each role; roles without any are absent.
        unread: Roles of which a series was set aside, with the reason as the end of a sentence.
        flags: What a reader of the result should know of how the series were read, in words.
    """

    roles: tuple[SeriesRole, ...]
    volumes: Volumes
    unread: Mapping[Role, str]
    flags: tuple[str, ...]

    @property
    def sagittal(self) -> list[Volume]:
        """The blocks to find levels on, the preferred ones first."""
        return [block for role in LOCALIZED_ON for block in self.volumes.get(role, ())]


def read_used(study: Study, settings: Settings, *, takes_pictures: bool = False) -> ReadSeries:
    """Read every series that is used. The pixels of other series are never read.

    Args:
        study: Opened.
        settings: Which series, and what a NIfTI is.
        takes_pictures: A picture is read as one slice whose pixels are taken for millimetres; otherwise it is refused.

    Raises:
        StudyError: There is no sagittal series, or none that can be read.
    """
    if study.kind == "picture":
        return _read_picture(study, settings, takes_pictures=takes_pictures)
    blocks: dict[str, tuple[Volume, ...]] = {}
    failures: dict[str, StudyError] = {}
    while True:
        roles = _roles(study, settings, failures)
        waiting = [series for series in study.series if _is_used(series, roles) and series.series_instance_uid not in blocks]
        if not waiting:
            break
        for series in waiting:
            try:
                blocks[series.series_instance_uid] = _load(study, series, settings)
            except StudyError as error:
                failures[series.series_instance_uid] = error
    volumes = {role: _blocks_of(used_series(study, roles, role), blocks) for role in Role if used_series(study, roles, role)}
    _refuse_without_sagittal(study, roles, volumes, failures)
    said = {one: study.shown(str(failures[one.series_instance_uid])) for one in roles if one.series_instance_uid in failures}
    return ReadSeries(
        roles=roles,
        volumes=volumes,
        unread={one.role: f"the {one.role.words} series cannot be used ({why})" for one, why in said.items() if one.role},
        flags=(*(f"a series was set aside: {why}" for why in said.values()), *_lost_files(study), *_noticed(volumes)),
    )


def _read_picture(study: Study, settings: Settings, *, takes_pictures: bool) -> ReadSeries:
    picture = load_picture(study.series[0].instances[0].path)
    if not takes_pictures:
        raise StudyError(
            f"{study.source} is one picture of {picture.shape[1]} × {picture.shape[0]} pixels: without slices and millimetres no "
            "level can be placed in space. Give the DICOM study or a NIfTI volume that the picture was taken from, or with "
            "--bundles a folder that has a bundle for pictures."
        )
    _refuse_negative(study.source, picture)
    roles = tuple(replace(role, used=True) for role in _roles(study, settings, {}))
    why = "a single picture, without millimetres and other slices, does not show it"
    unseen: dict[Role, str] = {role: why for role in Role if role is not Role.SAGITTAL_T2}
    return ReadSeries(roles, {Role.PICTURE: (picture_volume(picture, 1.0),)}, unseen, ())


def _refuse_negative(source: str, picture: npt.NDArray[np.float32]) -> None:
    """Refuse a picture that is mostly bright, as no T2 image is: air, bone and ligament are dark."""
    low, high = np.percentile(picture, [0.5, 99.5])
    if np.mean((np.clip(picture, low, high) - low) / max(high - low, 1e-6)) > _BRIGHTEST_MEAN:
        raise UnreadableInputError(
            f"{source} is mostly bright, as no T2 image is: a negative, or a page with white around the image. "
            "Turn black and white round, or cut the margins off."
        )


def _roles(study: Study, settings: Settings, failures: Mapping[str, StudyError]) -> tuple[SeriesRole, ...]:
    """The roles of all series, given which of them could not be read so far."""
    return assign_roles(
        study,
        chosen=settings.series,
        table=settings.descriptions,
        nifti_role=settings.nifti_role,
        unreadable={uid: study.shown(str(error)) for uid, error in failures.items()},
    )


def _is_used(series: Series, roles: Sequence[SeriesRole]) -> bool:
    return any(role.used and role.series_instance_uid == series.series_instance_uid for role in roles)


def _load(study: Study, series: Series, settings: Settings) -> tuple[Volume, ...]:
    blocks = load_series(series) if study.kind == "dicom" else (load_nifti(series.instances[0].path),)
    _refuse_unlikely(series, blocks)
    shape = blocks[0].array.shape
    is_chosen_slice = blocks[0].is_single_slice and settings.nifti_role is not None
    if study.kind == "nifti" and min(shape) < MIN_SAGITTAL_SLICES and not is_chosen_slice:
        voxels = " × ".join(map(str, shape))
        raise VolumeGeometryError(
            f"{study.source} has {voxels} voxels: at least {MIN_SAGITTAL_SLICES} slices are needed. Give the whole scan; "
            "of a single mid-sagittal slice, say with --role what it is."
        )
    return blocks


def _refuse_unlikely(series: Series, blocks: Sequence[Volume]) -> None:
    """Refuse what no scan of a patient is: blank, not finite, or of another size than a body's."""
    ranges = [(float(block.array.min()), float(block.array.max())) for block in blocks]
    if not np.isfinite(ranges).all():
        raise UnreadableInputError(f"The pixels of {series.title} hold values that are NaN or infinite. Export it again.")
    if all(low == high for low, high in ranges):
        raise UnreadableInputError(
            f"The pixels of {series.title} are blank: all have the value {ranges[0][0]:g}. Export it again."
        )
    longest_mm = max(float(max(np.multiply(block.array.shape, block.spacing_mm))) for block in blocks)
    if not MIN_EXTENT_MM <= longest_mm <= MAX_EXTENT_MM:
        raise VolumeGeometryError(
            f"The pixels of {series.title} span {longest_mm:g} mm; a scan of the spine spans {MIN_EXTENT_MM:g} to "
            f"{MAX_EXTENT_MM:g} mm. Correct the spacing, or its unit, in the header."
        )


def _blocks_of(series: Sequence[Series], blocks: Mapping[str, tuple[Volume, ...]]) -> tuple[Volume, ...]:
    return tuple(block for one in series for block in blocks[one.series_instance_uid])


def _refuse_without_sagittal(
    study: Study, roles: Sequence[SeriesRole], volumes: Volumes, failures: Mapping[str, StudyError]
) -> None:
    if any(role in volumes for role in LOCALIZED_ON):
        return
    for wanted in LOCALIZED_ON:
        for role in roles:
            if role.role is wanted and role.series_instance_uid in failures:
                raise failures[role.series_instance_uid]
    seen = "; ".join(f"{role.description or role.series_instance_uid!r}: {role.reason}" for role in roles)
    left_out = f"; left out: {summary(study.set_aside)}" if study.set_aside else ""
    raise SeriesSelectionError(
        f"{study.source} has no sagittal series of a known weighting, so that no level can be named ({seen}{left_out}). "
        "Add one, or, where one of these is a sagittal T2 of the lumbar spine, choose it with --series sagittal_t2=UID."
    )


def _lost_files(study: Study) -> tuple[str, ...]:
    """That files were left out which may have been slices."""
    lost = [file for file in study.set_aside if file.is_broken]
    if not lost:
        return ()
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return (f"files left out, so that slices may be missing: {lost[0].path}: {lost[0].reason}{more}",)


def _noticed(volumes: Volumes) -> tuple[str, ...]:
    """What was noticed while blocks were put together, each once."""
    said = (f"{role.label}: {flag}" for role, blocks in volumes.items() for block in blocks for flag in block.flags)
    return tuple(dict.fromkeys(said))


def frame_flags(study: Study, roles: Sequence[SeriesRole], reference_uid: str | None) -> tuple[str, ...]:
    """A warning for each used series that lies in another frame of reference than the one on which the levels were found, or in
    several.

    Points are carried from one series to the others by their millimetres, which is right only where these have one origin
    (PS3.3 C.7.4.1.1.1). A header without FrameOfReferenceUID raises no warning.
    """
    frames = {series.series_instance_uid: _frames(series) for series in study.series}
    titles = {series.series_instance_uid: series.title for series in study.series}
    origin = frames.get(reference_uid or "", set())
    used = [role.series_instance_uid for role in roles if role.used]
    several = tuple(
        f"{titles[uid]} has slices in {len(frames[uid])} frames of reference (FrameOfReferenceUID): they may not share an origin"
        for uid in used
        if len(frames[uid]) > 1
    )
    return several + tuple(
        f"{titles[uid]} and {titles[str(reference_uid)]}, on which the levels were found, have different frames of reference "
        "(FrameOfReferenceUID): they may not share an origin, so check that the findings on the former lie at their levels"
        for uid in used
        if origin and frames[uid] and not frames[uid] <= origin
    )


def _frames(series: Series) -> set[str]:
    found = {instance.tags.frame_of_reference_uid for instance in series.instances}
    return found - {""}
