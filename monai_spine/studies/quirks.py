"""What is odd in a data set, in one vocabulary: each oddity with what was seen, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["QUIRK_COLUMNS", "QUIRK_TITLES", "Quirk", "quirk_row"]

QUIRK_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "missing_label": "Findings without a label",
        "label_without_point": "Labels without a point",
        "point_without_label": "Points without a label",
        "no_points": "Studies without any point",
        "several_series": "Several series of one kind",
        "no_series": "No series of a kind",
        "other_series_kind": "Points on another kind of series than is usual for their condition",
        "corner_point": "Points in the corner of their picture",
        "levels_out_of_order": "Points that do not descend level by level",
        "levels_off_by_one": "A condition named one level too high or too low",
        "sides_swapped": "Left and right swapped",
        "sides_alike": "Left and right together, or one on the other's side",
        "several_blocks": "Series of several blocks",
        "numbers_beyond_count": "Instance numbers beyond the number of slices",
        "number_not_position": "Instance numbers that do not follow the position",
        "several_sizes": "Slices of several sizes in one series",
        "other_plane": "Slices that do not lie in the plane of their description",
        "other_headers": "Series whose headers contradict their description",
        "several_frames": "Series without a common frame of reference",
        "slices_left_out": "Slices that belong to no volume",
        "series_left_out": "Series that form no volume",
        "image_flag": "Other remarks of the image reader",
        "same_images": "Images that another study has as well",
        "several_patients": "Files of several patients or examinations in one study",
        "shared_patient_id": "PatientIDs and StudyInstanceUIDs that tell no patients apart",
        "listed": "Corrections from the list",
    }
)
"""Every kind of oddity, in the order of the report, with its title."""

QUIRK_COLUMNS: tuple[str, ...] = ("kind", "study_id", "series_id", "targets", "seen", "done")


@dataclass(frozen=True)
class Quirk:
    """One oddity of one study.

    Attributes:
        kind: A key of `QUIRK_TITLES`.
        study_id: Where it was found.
        seen: What was seen, with its values.
        done: What was done about it.
        series_id: The series that it is about, or None.
        targets: Slugs of the findings that it is about.
    """

    kind: str
    study_id: int
    seen: str
    done: str
    series_id: int | None = None
    targets: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What was done, without the names of findings that may follow."""
        return self.done.split(":")[0]

    def __post_init__(self) -> None:
        if self.kind not in QUIRK_TITLES:
            raise ValueError(f"Unknown kind of quirk {self.kind!r}. Choose from: {', '.join(QUIRK_TITLES)}.")


def quirk_row(quirk: Quirk) -> tuple[object, ...]:
    """The cells of a quirk, under `QUIRK_COLUMNS`."""
    series = "" if quirk.series_id is None else quirk.series_id
    return quirk.kind, quirk.study_id, series, " ".join(quirk.targets), quirk.seen, quirk.done
