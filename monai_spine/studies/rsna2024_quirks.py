"""What is odd in RSNA 2024 without being wrong: what the tables lack, and how the images deviate from one even stack a series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from monai_spine.anatomy import TARGETS, Target
from monai_spine.errors import VolumeGeometryError
from monai_spine.geometry import plane_orientation
from monai_spine.series import Role
from monai_spine.studies.instance_table import InstanceRow
from monai_spine.studies.quirks import Quirk
from monai_spine.studies.rsna2024_images import RESAMPLED, SeriesFacts, StudyImages
from monai_spine.studies.rsna2024_points import USUAL_ROLE, PlacedPoint
from monai_spine.studies.rsna2024_tables import StudyRows

__all__ = ["ROLES", "image_quirks", "place_quirks", "table_quirks"]

ROLES = (Role.SAGITTAL_T1, Role.SAGITTAL_T2, Role.AXIAL_T2)
_IN_MM = "nothing, as a place in mm holds on every series of the study"


def table_quirks(study: StudyRows, *, apply: bool = True) -> Iterator[Quirk]:
    """What the tables alone show of one study.

    Args:
        study: Its rows.
        apply: Whether corrections are made.
    """
    number, placed = study.study_id, {point.target for point in study.points}
    unlabelled = [target for target in TARGETS if target not in study.severities]
    if not placed:
        done = "left out of the data list" if apply else "kept without points, as corrections are turned off"
        yield Quirk("no_points", number, f"no point for {len(study.severities)} labels", done)
    named = (
        ("missing_label", unlabelled, "no grade in train.csv", "not trained on, not scored"),
        (
            "label_without_point",
            [t for t in study.severities if t not in placed],
            "no coordinate",
            "not trained on, as there is no place to crop",
        ),
        (
            "point_without_label",
            [t for t in unlabelled if t in placed],
            "a coordinate, no grade",
            "kept as a place without a grade",
        ),
    )
    for kind, targets, seen, done in named:
        if targets:
            noun = "finding" if len(targets) == 1 else "findings"
            yield Quirk(kind, number, f"{len(targets)} {noun}: {seen}", done, targets=_slugs(targets))
    for role in ROLES:
        series = [one for one, kind in study.series.items() if kind is role]
        if len(series) > 1:
            seen = f"{len(series)} {role.label} series: {', '.join(map(str, series))}"
            yield Quirk("several_series", number, seen, "all are written; a point goes with the one that it was marked on")
        elif not series:
            yield Quirk("no_series", number, f"no {role.label} series", "findings that need it have no crop from it")
    yield from _other_kinds(study)


def _other_kinds(study: StudyRows) -> Iterator[Quirk]:
    for series, role in study.series.items():
        odd = [p.target for p in study.points if p.series_id == series and USUAL_ROLE[p.target.condition] is not role]
        if odd:
            conditions = ", ".join(sorted({target.condition.label for target in odd}))
            seen = f"{len(odd)} points of {conditions} on a {role.label} series"
            yield Quirk("other_series_kind", study.study_id, seen, _IN_MM, series, _slugs(odd))


def place_quirks(study: StudyRows, points: Mapping[Target, PlacedPoint]) -> Iterator[Quirk]:
    """Points on slices that no volume holds, or that have no place at all."""
    aside = [target for target, point in points.items() if not point.volume]
    if aside:
        seen = f"{len(aside)} points on slices that belong to no volume"
        yield Quirk("slices_left_out", study.study_id, seen, _IN_MM, targets=_slugs(aside))
    lost = [point.target for point in study.points if point.target not in points]
    if lost:
        seen = f"{len(lost)} points on slices whose headers do not say where they lie"
        yield Quirk("slices_left_out", study.study_id, seen, "the points are set aside", targets=_slugs(lost))


def image_quirks(images: StudyImages, rows: Sequence[InstanceRow]) -> Iterator[Quirk]:
    """How the images of one study deviate from one even stack a series, all in one frame of reference."""
    frames = {series.frame_of_reference_uid for series in images.series}
    if len(frames) > 1:
        seen = f"{len(frames)} frames of reference in {len(images.series)} series"
        yield Quirk(
            "several_frames",
            images.study_id,
            seen,
            "points are compared within one frame only, images are taken as if the patient had not moved",
        )
    yield from _identity_quirks(images)
    for series in images.series:
        own = [row for row in rows if row.series_id == series.series_id]
        for kind, seen, done in (*_reader_quirks(series), *_number_quirks(own), *_slice_quirks(series, own)):
            yield Quirk(kind, images.study_id, seen, done, series.series_id)


def _identity_quirks(images: StudyImages) -> Iterator[Quirk]:
    """Files of several patients or examinations under one study, each with the series that have it."""
    for keyword, field in (("PatientID", "patient_ids"), ("StudyInstanceUID", "study_instance_uids")):
        where: dict[str, list[str]] = {}
        for series in images.series:
            for value in getattr(series, field):
                where.setdefault(value, []).append(str(series.series_id))
        if len(where) > 1:
            seen = "; ".join(f"{keyword} {value!r} in series {', '.join(found)}" for value, found in where.items())
            yield Quirk("several_patients", images.study_id, seen, "all are used; no split parts studies that share one of them")


def _reader_quirks(series: SeriesFacts) -> Iterator[tuple[str, str, str]]:
    for doubt in series.doubts:
        yield "other_headers", f"{series.role.label} by the table, but {doubt}", "the description is followed"
    if series.left_out:
        yield "series_left_out", series.left_out, "the series has no volume; its points count on the others"
    if len(series.volumes) > 1:
        seen = f"{len(series.volumes)} blocks ({series.role.label})"
        yield "several_blocks", seen, "one volume for each block; a point goes with the one that it was marked on"
    flags = {flag: None for volume in series.volumes for flag in volume.flags}
    for flag in flags:
        if flag.startswith(RESAMPLED):
            yield "several_sizes", flag, "brought to the commonest size; instances.csv leads back to each slice's own pixels"
        elif not flag.startswith("slices of "):
            yield "image_flag", flag, "as it says"


def _number_quirks(rows: Sequence[InstanceRow]) -> Iterator[tuple[str, str, str]]:
    numbers = [row.instance_number for row in rows]
    if max(numbers) > len(numbers):
        seen = f"numbers {min(numbers)}–{max(numbers)} for {len(numbers)} slices"
        yield "numbers_beyond_count", seen, "nothing, as slices are sorted by position and files found by name"
    for volume in dict.fromkeys(row.volume for row in rows if row.volume):
        along = [row.instance_number for row in sorted(rows, key=lambda row: row.slice_index) if row.volume == volume]
        steps = {second > first for first, second in pairwise(along)}
        if len(steps) > 1:
            seen = f"{volume}: numbers along the slices' normal {', '.join(map(str, along[:8]))}{' …' if len(along) > 8 else ''}"
            yield "number_not_position", seen, "nothing, as slices are sorted by position"


def _slice_quirks(series: SeriesFacts, rows: Sequence[InstanceRow]) -> Iterator[tuple[str, str, str]]:
    left_out = [row.instance_number for row in rows if not row.volume]
    if left_out and not series.left_out:
        seen = f"{len(left_out)} of {len(rows)} slices in no volume: {', '.join(map(str, left_out[:8]))}"
        yield "slices_left_out", seen, "listed in instances.csv without a volume"
    expected = series.role.value.split("_")[0]
    planes = [plane for row in rows if (plane := _plane(row)) and plane != expected]
    if planes:
        seen = f"{len(planes)} of {len(rows)} slices of the {series.role.label} series lie {planes[0]}"
        yield "other_plane", seen, "the description is followed"


def _plane(row: InstanceRow) -> str | None:
    try:
        return str(plane_orientation(row.normal_lps()).value)
    except VolumeGeometryError:
        return None


def _slugs(targets: Sequence[Target]) -> tuple[str, ...]:
    return tuple(target.slug for target in targets)
