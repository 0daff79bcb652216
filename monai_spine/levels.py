"""Where the vertebral levels are: points in RAS+ mm with a confidence each, and a label map of the vertebral bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Level, Side, Vertebra
from monai_spine.geometry import Affine, Point
from monai_spine.level_doubts import Doubt, column_flags

__all__ = ["BODY_VALUES", "BodyMap", "LevelPoint", "Levels", "SagittalSlice", "VertebraPoint", "in_percent"]

BODY_VALUES: dict[Vertebra, int] = {
    Vertebra.L1: 1, Vertebra.L2: 2, Vertebra.L3: 3, Vertebra.L4: 4, Vertebra.L5: 5, Vertebra.S1: 6, Vertebra.T12: 7,
}  # fmt: skip
"""Values of the bodies in label maps, in files and in memory."""


@dataclass(frozen=True)
class LevelPoint:
    """One disc level.

    Attributes:
        level: Its name.
        disc_ras_mm: Centre of the disc.
        canal_ras_mm: Centre of the canal at the disc's height; None where it was not seen (flag `canal_not_seen`).
        confidence: Probability that a disc is here and bears this name, 0 to 1.
        series_instance_uid: The series that it was found on.
        foramina_ras_mm: Of each side of the patient, the neural foramen where it was seen: at the height of the exiting root,
            some millimetres above the disc. Empty for T12/L1, which is not graded.
        doubts: `low_confidence`, `numbering_ambiguous`, `canal_not_seen`, each with what was seen.
        slices: The sagittal slice of `canal`, `left_foramen` and `right_foramen`, of those that were seen, on the scan that the
            level was found on; empty where the points were not found on a scan.
    """

    level: Level
    disc_ras_mm: Point
    canal_ras_mm: Point | None
    confidence: float
    series_instance_uid: str | None = None
    doubts: tuple[Doubt, ...] = ()
    foramina_ras_mm: Mapping[Side, Point] = field(default_factory=dict, hash=False)
    slices: Mapping[str, SagittalSlice] = field(default_factory=dict, hash=False)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is doubtful, in a word each."""
        return tuple(doubt.flag for doubt in self.doubts)

    @property
    def slice_points(self) -> dict[str, Point]:
        """The points that have a sagittal slice: `canal`, `left_foramen`, `right_foramen`, of those that were seen."""
        canal = {} if self.canal_ras_mm is None else {"canal": self.canal_ras_mm}
        return canal | {f"{side.value}_foramen": self.foramina_ras_mm[side] for side in Side if side in self.foramina_ras_mm}


@dataclass(frozen=True)
class SagittalSlice:
    """One slice of a sagittal scan, counted in the patient and not in files.

    Attributes:
        number: 0 is the outermost slice on the patient's right; it grows towards the left.
        sop_instance_uid: Of the slice, where the scan came from DICOM.
    """

    number: int
    sop_instance_uid: str | None = None


@dataclass(frozen=True)
class VertebraPoint:
    """Centre of one vertebral body."""

    vertebra: Vertebra
    point_ras_mm: Point
    confidence: float


@dataclass(frozen=True)
class BodyMap:
    """Label map of the vertebral bodies on a grid of its own.

    Attributes:
        array: uint8 (i, j, k): values of `BODY_VALUES`; 0 elsewhere.
        affine: 4 × 4, voxel centre (i, j, k) to RAS+ mm.
    """

    array: npt.NDArray[np.uint8]
    affine: Affine


@dataclass(frozen=True)
class Levels:
    """All that was found of the column. What lies outside the field of view is absent.

    Attributes:
        levels: From the head down.
        vertebrae: From the head down.
        column_doubts: What is doubtful about the column as a whole: `sacrum_not_seen`, `possible_transitional_anatomy`,
            `out_of_order`, each with what was seen.
        bodies: Label map of the vertebral bodies, or None.
    """

    levels: tuple[LevelPoint, ...]
    vertebrae: tuple[VertebraPoint, ...]
    column_doubts: tuple[Doubt, ...] = ()
    bodies: BodyMap | None = field(default=None, compare=False, repr=False)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """The column's doubts, then those of each level."""
        return (*self.column_doubts, *(doubt for found in self.levels for doubt in found.doubts))

    @property
    def flags(self) -> tuple[str, ...]:
        """What is doubtful about the column, in a word each: its own doubts, and those of its names."""
        return column_flags(self.doubts)

    def point_of(self, level: Level) -> LevelPoint | None:
        """The entry of one level, or None if it was not found."""
        return next((found for found in self.levels if found.level is level), None)


def in_percent(confidence: float) -> str:
    """As people read it: `41 %`. Nothing is certain, so it ends at `> 99 %` and begins at `< 1 %`."""
    return "> 99 %" if confidence > 0.99 else "< 1 %" if confidence < 0.01 else f"{100 * confidence:.0f} %"
