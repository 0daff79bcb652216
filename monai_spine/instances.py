"""What is known of a DICOM file without its pixels: its slices, where they lie, and the tags that tell series apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monai_spine.errors import VolumeGeometryError
from monai_spine.geometry import Affine, Triple, slice_affine

__all__ = ["Frame", "Instance", "PixelLayout", "Tags"]

Cosines = tuple[float, float, float, float, float, float]
_Value = TypeVar("_Value")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One slice as it is stored.

    Attributes:
        path: The file that holds its pixels.
        sop_instance_uid: The instance it belongs to.
        index: Its place in the instance's frames, from 0.
        rows: Pixels down a column.
        columns: Pixels along a row.
        position_lps_mm: Centre of its first pixel, LPS mm (ImagePositionPatient); None where the header has none.
        orientation: Direction along a row, then down a column (ImageOrientationPatient), or None.
        pixel_spacing_mm: Distance between rows, then between columns (PixelSpacing), or None.
        slice_thickness_mm: SliceThickness, or None. It never stands in for a distance between slices.
        rescale: Slope and intercept of stored values.
        echo_time_ms: EchoTime, or None.
        acquisition: What separates stacks of one series: acquisition number and stack id.
        order: What separates repeats of one position: temporal position, acquisition, instance number, frame.
    """

    path: Path
    sop_instance_uid: str
    index: int
    rows: int
    columns: int
    position_lps_mm: Triple | None
    orientation: Cosines | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None = None
    rescale: tuple[float, float] = (1.0, 0.0)
    echo_time_ms: float | None = None
    acquisition: str = ""
    order: tuple[float, ...] = ()

    @property
    def is_placed(self) -> bool:
        """True where the header says where every pixel lies."""
        return not self.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of the attributes that place the slice are absent or of no use."""
        named = {
            "ImagePositionPatient": self.position_lps_mm,
            "ImageOrientationPatient": self.orientation,
            "PixelSpacing": self.pixel_spacing_mm,
        }
        return tuple(keyword for keyword, value in named.items() if value is None)

    @property
    def directions(self) -> Floats:
        """Unit vectors in LPS: along a row, then down a column, shape (2, 3)."""
        return np.reshape(_needed(self.orientation, self, "ImageOrientationPatient"), (2, 3)).astype(float)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance between rows, then between columns."""
        return _needed(self.pixel_spacing_mm, self, "PixelSpacing")

    @property
    def corner_lps_mm(self) -> Floats:
        """Centre of the first pixel, LPS mm."""
        return np.asarray(_needed(self.position_lps_mm, self, "ImagePositionPatient"), dtype=float)

    @property
    def center_lps_mm(self) -> Floats:
        """Middle of the slice, LPS mm. Unlike its corner, it does not change with the matrix size."""
        (along_row, down_column), (down, along) = self.directions, self.spacing_mm
        half = along_row * along * (self.columns - 1) / 2 + down_column * down * (self.rows - 1) / 2
        return np.asarray(self.corner_lps_mm + half)

    def affine(self, step_lps_mm: npt.ArrayLike) -> Affine:
        """Affine of a stack that begins with this slice: (column, row, slice) to RAS+ mm."""
        return slice_affine(self.corner_lps_mm, self.directions, pixel_spacing_mm=self.spacing_mm, step_lps_mm=step_lps_mm)


def _needed(value: _Value | None, frame: Frame, keyword: str) -> _Value:
    if value is None:
        raise VolumeGeometryError(f"{frame.path} has no {keyword}: its slice has no place in space. Export the original series.")
    return value


@dataclass(frozen=True)
class Tags:
    """The tags of an instance by which its series is told from others. Times in ms; what the header lacks is None or empty."""

    modality: str = ""
    number: int | None = None
    description: str = ""
    protocol: str = ""
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    sequence_name: str = ""
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    contrast_agent: str = ""
    photometric_interpretation: str = ""
    frame_of_reference_uid: str = ""


@dataclass(frozen=True)
class PixelLayout:
    """How pixels are stored. `offset` is where they begin in the file if they are plain little-endian numbers, else None."""

    offset: int | None = None
    bits_allocated: int = 16
    bits_stored: int = 16
    is_signed: bool = False
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Instance:
    """One DICOM file with an image. `tiles` is above 1 where each frame packs that many slices (Siemens mosaic)."""

    path: Path
    sop_instance_uid: str
    series_instance_uid: str = ""
    study_instance_uid: str = ""
    patient_id: str = ""
    tags: Tags = field(default_factory=Tags)
    frames: tuple[Frame, ...] = ()
    tiles: int = 1
    pixels: PixelLayout = field(default_factory=PixelLayout)
