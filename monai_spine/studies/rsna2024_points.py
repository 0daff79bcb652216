"""The labelled points of RSNA 2024 in space: from a pixel of an instance to RAS+ mm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from monai_spine.anatomy import Condition, Severity, Target
from monai_spine.geometry import Point
from monai_spine.series import Role
from monai_spine.studies.instance_table import InstanceRow
from monai_spine.studies.rsna2024_tables import StudyRows

__all__ = ["USUAL_ROLE", "PlacedPoint", "place_points"]

USUAL_ROLE: Mapping[Condition, Role] = MappingProxyType(
    {
        Condition.SPINAL_CANAL_STENOSIS: Role.SAGITTAL_T2,
        Condition.NEURAL_FORAMINAL_NARROWING: Role.SAGITTAL_T1,
        Condition.SUBARTICULAR_STENOSIS: Role.AXIAL_T2,
    }
)
"""The kind of series on which the points of a condition lie."""


@dataclass(frozen=True)
class PlacedPoint:
    """A finding that has a point, and its grade where it has one: both go together whatever the finding is called.

    Attributes:
        target: Its name.
        severity: Its grade, or None.
        series_id: The series that it was marked on.
        role: The kind of that series.
        instance_number: The slice that it was marked on.
        point_ras_mm: Where it lies.
        volume: The NIfTI file that holds the slice; empty where none does.
        frame_of_reference_uid: Places are comparable only where this is the same.
    """

    target: Target
    severity: Severity | None
    series_id: int
    role: Role
    instance_number: int
    point_ras_mm: Point
    volume: str = ""
    frame_of_reference_uid: str = ""


def place_points(study: StudyRows, instances: Sequence[InstanceRow], frames: Mapping[int, str]) -> dict[Target, PlacedPoint]:
    """The points of a study whose slices have a place in space, under the names that the table gives them.

    Args:
        study: What the tables say.
        instances: The rows of its `instances.csv`.
        frames: The FrameOfReferenceUID of each series.
    """
    rows = {row.key: row for row in instances}
    placed = {}
    for point in study.points:
        row = rows[point.series_id, point.instance_number]
        if row.place:
            placed[point.target] = PlacedPoint(
                target=point.target,
                severity=study.severities.get(point.target),
                series_id=point.series_id,
                role=study.series[point.series_id],
                instance_number=point.instance_number,
                point_ras_mm=row.point_of(point.x, point.y),
                volume=row.volume,
                frame_of_reference_uid=frames[point.series_id],
            )
    return placed
