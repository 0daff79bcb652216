"""The exceptions of monai_spine. Each message says what happened, why it stops, and what to do.

SpineError                      anything that monai_spine refuses to do
├── StudyError                  the input cannot be used                                exit 3
│   ├── UnreadableInputError    a file or archive is missing, broken or no image
│   ├── UnsafeArchiveError      an archive reaches outside its folder or unpacks too large
│   ├── SeriesSelectionError    no series fits a role, or a wanted one is not there
│   ├── VolumeGeometryError     slices do not form a volume
│   ├── LevelsNotFoundError     no lumbar spine was found
│   └── OutsideFieldOfViewError a crop lies outside the scan
├── AnatomyError                a level, side, condition or severity is unknown         exit 2
├── TableError                  a table of labels or predictions is not as specified    exit 2
├── WeightsError                a bundle is missing, altered or does not fit            exit 4
├── ArchitectureError           an architecture is unknown or does not fit the crop     exit 2
├── TrainingError               a training has come apart                               exit 1
├── DeviceError                 the requested device is not there                       exit 2
└── OutputError                 a result cannot be written                              exit 1
"""

__all__ = [
    "AnatomyError",
    "ArchitectureError",
    "DeviceError",
    "LevelsNotFoundError",
    "OutputError",
    "OutsideFieldOfViewError",
    "SeriesSelectionError",
    "SpineError",
    "StudyError",
    "TableError",
    "TrainingError",
    "UnreadableInputError",
    "UnsafeArchiveError",
    "VolumeGeometryError",
    "WeightsError",
]


class SpineError(Exception):
    """Root of all errors that monai_spine raises on purpose.

    `exit_code` is what the command line returns for it.
    """

    exit_code = 1


class StudyError(SpineError):
    """The input cannot be analysed."""

    exit_code = 3


class UnreadableInputError(StudyError):
    """A file or archive is missing, broken, or holds no image."""


class UnsafeArchiveError(StudyError):
    """An archive would write outside its folder or unpack to an unreasonable size."""


class SeriesSelectionError(StudyError):
    """No series fits a role, or the one asked for is not in the study."""


class VolumeGeometryError(StudyError):
    """Slices do not form a volume: positions, spacing or orientation contradict each other."""


class LevelsNotFoundError(StudyError):
    """The scan shows no lumbar spine that could be labelled."""


class OutsideFieldOfViewError(StudyError):
    """A crop lies outside the scan by more than is allowed."""


class AnatomyError(SpineError, ValueError):
    """The name of a level, side, condition or severity is unknown."""

    exit_code = 2


class TableError(SpineError, ValueError):
    """A table of labels or predictions breaks its specification."""

    exit_code = 2


class WeightsError(SpineError):
    """A bundle is missing, altered, or does not fit its description."""

    exit_code = 4


class ArchitectureError(SpineError, ValueError):
    """The name of an architecture is unknown, or the architecture does not fit what it is to be shown."""

    exit_code = 2


class TrainingError(SpineError):
    """A training has come apart: what it computes is no number any more."""


class DeviceError(SpineError):
    """The requested device is not available."""

    exit_code = 2


class OutputError(SpineError):
    """A result cannot be written."""
