"""Levels that may bear a simulated lesion: no reader called the disc anything but normal or the canal narrower than mild, and
the sac is wide.

What readers said stands in the case (`base_levels`); the image shows the rest (`base_site`, `check_measured`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from monai_spine.anatomy import LEVELS, Condition, Level, Severity, Target
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point
from monai_spine.phantom.lesions.losses import CanalLoss
from monai_spine.phantom.lesions.sites import LevelSite, site_at
from monai_spine.placement import ColumnFrame
from monai_spine.studies.prepared import PreparedCase
from monai_spine.studies.source_table import SourceTable

__all__ = [
    "LARGEST_BASE_SHARE",
    "LEAST_DEPTH_MM",
    "NORMAL_DISCS",
    "base_levels",
    "base_site",
    "check_measured",
    "disc_grades",
]

NORMAL_DISCS = ("disc_normal",)
"""Grades in `midsagittal` of discs that may be a base: what a bulge has taken already would count as nothing lost."""

LARGEST_BASE_SHARE, LEAST_DEPTH_MM = 0.25, 8.5
_LEAST_SEEN = 0.6


def disc_grades(points_csv: Path | str) -> dict[str, dict[Level, str]]:
    """The grades of discs in `points.csv` of `midsagittal`, by picture and level; empty where the source has none.

    Raises:
        TableError: The table cannot be read or lacks a column.
    """
    table = SourceTable.read(Path(points_csv), columns=("image", "structure", "grade"))
    names = {level.label: level for level in Level}
    grades: dict[str, dict[Level, str]] = {}
    columns = (table.cells[name].tolist() for name in ("image", "structure", "grade"))
    for image, structure, grade in zip(*columns, strict=True):
        if structure in names:
            grades.setdefault(str(image), {})[names[structure]] = str(grade)
    return grades


def base_levels(case: PreparedCase, grades: Mapping[Level, str] | None = None) -> tuple[Level, ...]:
    """The levels of a case that may bear a lesion, from the head down.

    A level whose canal was graded must be normal or mild; one that was not graded may be a base, as those of real scans without
    grades are. Whether its sac is narrow all the same, `RandSimulateLesiond` measures.

    Args:
        case: A study with discs.
        grades: Of its discs, as `disc_grades` gives them; a disc without a grade is then no base. None: no disc was graded.
    """
    fit = []
    for level in LEVELS:
        target = case.targets.get(Target(Condition.SPINAL_CANAL_STENOSIS, None, level))
        narrow = target is not None and target.severity not in (None, Severity.NORMAL_MILD)
        worn = grades is not None and grades.get(level) not in NORMAL_DISCS
        if level in case.discs and not narrow and not worn:
            fit.append(level)
    return tuple(fit)


def base_site(
    image: Tensor,
    affine: Affine,
    frame: ColumnFrame,
    discs: Mapping[Level, Point],
    *,
    largest_base_share: float = LARGEST_BASE_SHARE,
    least_depth_mm: float = LEAST_DEPTH_MM,
) -> LevelSite:
    """Measure the sac at one level that is to bear a lesion.

    Args:
        image: Sagittal T2, (i, j, k).
        affine: 4 × 4 to RAS+ mm.
        frame: The column's axes at the level.
        discs: Centres of all discs that are known.
        largest_base_share: A sac whose front stands back farther than this share of its depth at the disc is no normal base,
        least_depth_mm: nor is one that is shallower.

    Raises:
        LevelsNotFoundError: The level is no base; the message says why.
    """
    site = site_at(image, affine, frame, discs)
    if site.base_share > largest_base_share:
        raise LevelsNotFoundError(f"the disc narrows the sac by {100 * site.base_share:.0f} % already")
    if site.depth_mm < least_depth_mm:
        raise LevelsNotFoundError(f"the sac is {site.depth_mm:.1f} mm deep, less than {least_depth_mm:g}")
    return site


def check_measured(loss: CanalLoss, site: LevelSite) -> None:
    """Make sure that the sac was wide enough where its loss was measured.

    Raises:
        LevelsNotFoundError: It was not: the loss would say too much or too little.
    """
    if loss.depth_before_mm < _LEAST_SEEN * site.depth_mm:
        seen = f"{loss.depth_before_mm:.1f} of {site.depth_mm:.1f} mm"
        raise LevelsNotFoundError(f"CSF fills no more than {seen} of the sac's depth: its loss cannot be measured")
