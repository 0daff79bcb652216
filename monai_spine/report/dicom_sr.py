"""The findings as a DICOM Structured Report: TID 1500 Measurement Report, one group (TID 1410) per graded target at its point.

A target that could not be graded has a group without a point, whose evaluation says so, and a comment with the reason. One that
is referred to a reader, or was graded on one slice, has another evaluation, which says that. What the report is not for, and what
its graders have learnt from, stands in a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from monai_spine import __version__
from monai_spine.anatomy import Severity
from monai_spine.geometry import lps_from_ras
from monai_spine.grades import SINGLE_SLICE
from monai_spine.referral import REFERRAL
from monai_spine.report import dicom_codes
from monai_spine.report.dicom_source import MANUFACTURER, SourceSeries, equipment, highdicom_modules

if TYPE_CHECKING:
    from monai_spine.grades import Grade
    from monai_spine.result import StudyResult

__all__ = ["write_sr"]


def write_sr(result: StudyResult, headers: Mapping[str, SourceSeries], path: Path) -> None:
    """Write the grades as a Comprehensive 3D SR.

    Args:
        result: Its `grades` are written.
        headers: The study's images by SeriesInstanceUID; they are listed as evidence.
        path: File to write.

    Raises:
        OutputError: highdicom is not installed.
    """
    hd = highdicom_modules()
    images = [header for series in headers.values() for header in series.headers]
    report = hd.sr.MeasurementReport(
        observation_context=_context(hd),
        procedure_reported=hd.sr.CodedConcept("MR_LUMBAR_SPINE", dicom_codes.SCHEME, "MR of the lumbar spine"),
        imaging_measurements=[_group(hd, grade, headers) for grade in result.grades],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=images,
    )
    _comment(hd, report, result.notice)
    maker = equipment()
    document = hd.sr.Comprehensive3DSR(
        evidence=images,
        content=report,
        series_instance_uid=hd.UID(),
        series_number=9002,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=maker["manufacturer"],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="Lumbar findings (research use, not for diagnosis)",
    )
    document.ManufacturerModelName = maker["manufacturer_model_name"]
    document.SoftwareVersions = maker["software_versions"]
    document.save_as(path)


def _comment(hd: Any, container: Any, text: str) -> None:
    """Add a text to a report or to a group of it."""
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    item = hd.sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=contains)
    container[0].ContentSequence.append(item)


def _context(hd: Any) -> Any:
    """The observer is this program; its UID follows from its version."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[MANUFACTURER, __version__]),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=__version__,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    )


def _group(hd: Any, grade: Grade, headers: Mapping[str, SourceSeries]) -> Any:
    """One target: what, where, how severe, and how probable."""
    target = grade.target
    about = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=target.slug),
        "finding_type": dicom_codes.condition_code(target.condition),
        "finding_sites": [
            hd.sr.FindingSite(dicom_codes.level_code(target.level), laterality=dicom_codes.side_code(target.side)),
        ],
        "qualitative_evaluations": _evaluations(hd, grade),
        "measurements": _probabilities(hd, grade),
    }
    source = headers.get(grade.series_instance_uid or "")
    if grade.point_ras_mm is None or source is None or grade.severity is None:
        group = hd.sr.MeasurementsAndQualitativeEvaluations(**about)
        if grade.reason:
            _comment(hd, group, grade.reason)
        return group
    point = np.asarray([lps_from_ras(grade.point_ras_mm)])
    region = hd.sr.ImageRegion3D(hd.sr.GraphicTypeValues3D.POINT, point, frame_of_reference_uid=source.frame_of_reference_uid)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **about)


def _evaluations(hd: Any, grade: Grade) -> list[Any]:
    """The severity, and whether it was given on one slice, and whether a reader should decide."""
    severity = dicom_codes.NOT_ASSESSABLE if grade.severity is None else dicom_codes.severity_code(grade.severity)
    said = {
        SINGLE_SLICE: (dicom_codes.GRADED_ON, dicom_codes.SINGLE_SLICE),
        REFERRAL: (dicom_codes.READER_DECISION, dicom_codes.REFERRED),
    }
    flagged = [evaluation for flag, evaluation in said.items() if flag in grade.flags]
    return [hd.sr.QualitativeEvaluation(name, value) for name, value in ((codes.SCT.Severity, severity), *flagged)]


def _probabilities(hd: Any, grade: Grade) -> list[Any]:
    if grade.probabilities is None:
        return []
    return [
        hd.sr.Measurement(
            name=dicom_codes.probability_code(severity), value=float(grade.probabilities[severity.index]), unit=codes.UCUM.NoUnits
        )
        for severity in Severity
    ]
