"""Vertebral bodies as a DICOM Segmentation, on the grid of their label map, in the frame of reference of their series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.sr.codedict import codes

from monai_spine import __version__
from monai_spine.anatomy import Vertebra
from monai_spine.errors import OutputError
from monai_spine.geometry import lps_from_ras
from monai_spine.levels import BODY_VALUES, BodyMap
from monai_spine.report.dicom_codes import vertebra_code
from monai_spine.report.dicom_source import MANUFACTURER, SourceSeries, equipment, highdicom_modules

if TYPE_CHECKING:
    from monai_spine.result import StudyResult

__all__ = ["write_seg"]


def write_seg(result: StudyResult, headers: Mapping[str, SourceSeries], path: Path) -> None:
    """Write the label map of the vertebral bodies as a binary segmentation with one segment per vertebra, from the head down.

    Args:
        result: Its `levels.bodies` are written.
        headers: The study's images by SeriesInstanceUID.
        path: File to write.

    Raises:
        OutputError: highdicom is not installed, no bodies were found, or the series they were found on is not there.
    """
    hd = highdicom_modules()
    bodies = result.levels.bodies
    values = set() if bodies is None else set(np.unique(bodies.array).tolist())
    found = [vertebra for vertebra in Vertebra if BODY_VALUES.get(vertebra) in values]
    if bodies is None or not found:
        raise OutputError("No vertebral body was found, so there is nothing to segment. Leave out seg.")
    source = _source(result, headers)
    segmentation = hd.seg.Segmentation(
        source_images=list(source.headers),
        pixel_array=_volume(hd, bodies, found, source.frame_of_reference_uid),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(hd, number, vertebra) for number, vertebra in enumerate(found, start=1)],
        series_instance_uid=hd.UID(),
        series_number=9001,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        series_description="Vertebral bodies (research use)",
        content_label="VERTEBRAE",
        **equipment(),
    )
    segmentation.save_as(path)


def _source(result: StudyResult, headers: Mapping[str, SourceSeries]) -> SourceSeries:
    """The series on which the levels were found."""
    for level in result.levels.levels:
        if level.series_instance_uid in headers:
            return headers[str(level.series_instance_uid)]
    raise OutputError(
        "The images on which the vertebrae were found are not at hand, so a SEG cannot refer to them. Leave out seg."
    )


def _volume(hd: Any, bodies: BodyMap, found: list[Vertebra], frame_of_reference_uid: str) -> Any:
    """The label map with segments numbered from 1 without gaps, in LPS as DICOM wants it."""
    numbers = np.zeros(256, dtype=np.uint8)
    for number, vertebra in enumerate(found, start=1):
        numbers[BODY_VALUES[vertebra]] = number
    affine = bodies.affine.copy()
    affine[:3] = lps_from_ras(bodies.affine[:3].T).T
    return hd.Volume(
        array=numbers[bodies.array], affine=affine, coordinate_system="PATIENT", frame_of_reference_uid=frame_of_reference_uid
    )


def _segment(hd: Any, number: int, vertebra: Vertebra) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=vertebra.value,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=vertebra_code(vertebra),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="lumbar_level_refinement", version=__version__, family=codes.DCM.ArtificialIntelligence, source=MANUFACTURER
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"vertebral body {vertebra.value}",
    )
