"""What a report draws that is not in the result itself: scans, crops, and the files that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from monai_spine.volume import Volume

if TYPE_CHECKING:
    from monai_spine.crops import Crop
    from monai_spine.grades import Grade
    from monai_spine.series import Role

__all__ = ["ReportImages", "crops_of"]


@dataclass(frozen=True)
class ReportImages:
    """Pixels behind a result. The masks of the vertebral bodies are in `StudyResult.levels.bodies`.

    Attributes:
        sagittal: The scans on which levels are shown, by role, in the order in which they are shown.
        crops: What was graded, by the target's slug; unmirrored or mirrored, for the affine tells which.
        dicom_files: File of each SOPInstanceUID of the series that were used; empty where the input was no DICOM. The files are
            read for SEG and SR only, while the result is written.
    """

    sagittal: Mapping[Role, Volume] = field(default_factory=dict)
    crops: Mapping[str, Crop] = field(default_factory=dict)
    dicom_files: Mapping[str, Path] = field(default_factory=dict)


def crops_of(grades: tuple[Grade, ...]) -> dict[str, Crop]:
    """The crops that hang on the grades, by the target's slug."""
    return {grade.target.slug: grade.crop for grade in grades if grade.crop is not None}
