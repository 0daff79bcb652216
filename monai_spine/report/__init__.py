"""Everything that is written from results: tables, pictures, the HTML report, DICOM SEG and SR, and the files over a run."""

from monai_spine.report.cohort import CohortSummary, write_cohort
from monai_spine.report.images import ReportImages, crops_of
from monai_spine.report.writing import DEFAULT_FORMATS, FORMATS, OutputFormatError, check_formats, write_result

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "CohortSummary",
    "OutputFormatError",
    "ReportImages",
    "check_formats",
    "crops_of",
    "write_cohort",
    "write_result",
]
