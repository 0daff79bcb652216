"""What is true of simulated studies, in tables beside their images.

OUT/latents.csv    the hidden narrowing of each target, from which the best possible score follows
OUT/levels.csv     centres of discs and canal in RAS+ mm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, TARGETS
from monai_spine.phantom.spine import Spine
from monai_spine.studies.table_output import write_rows

__all__ = ["StudyTruth", "truth_of", "write_truth"]

_LEVEL_COLUMNS = ("study_id", "level", "disc_r_mm", "disc_a_mm", "disc_s_mm", "canal_r_mm", "canal_a_mm", "canal_s_mm")


@dataclass(frozen=True)
class StudyTruth:
    """Rows of one study.

    Attributes:
        study_id: Its number.
        latents: Narrowing of each of `TARGETS`, to four digits.
        levels: For each of `LEVELS` its label and six coordinates, RAS+ mm to two digits: disc, then canal.
    """

    study_id: int
    latents: tuple[float, ...]
    levels: tuple[tuple[object, ...], ...]


def truth_of(study_id: int, spine: Spine, latents: npt.ArrayLike) -> StudyTruth:
    """The rows of one simulated spine.

    Args:
        study_id: Number of the study.
        spine: As it was rendered.
        latents: Narrowing of each of `TARGETS`.
    """
    places = {level.label: np.round((*spine.disc_point(level), *spine.canal_point(level)), 2).tolist() for level in LEVELS}
    levels = tuple((label, *coordinates) for label, coordinates in places.items())
    return StudyTruth(study_id, tuple(np.round(np.asarray(latents, float), 4).tolist()), levels)


def write_truth(out: Path, studies: Sequence[StudyTruth]) -> None:
    """Write both tables into a folder, each whole or not at all.

    Raises:
        OutputError: They cannot be written.
    """
    header = ["study_id", *(target.slug for target in TARGETS)]
    write_rows(out / "latents.csv", header, [(study.study_id, *study.latents) for study in studies])
    write_rows(out / "levels.csv", _LEVEL_COLUMNS, [(study.study_id, *row) for study in studies for row in study.levels])
