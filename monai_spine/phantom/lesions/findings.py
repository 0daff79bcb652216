"""What findings become once lesions lie in a study: the canal by what its sac lost as measured on the image, recesses and
foramina by how the tissue around them moved.

A slice of 4 mm shows a recess of 5 mm too poorly to be measured. Its space before is that of the phantom, around its point:
what of it tissue from elsewhere takes is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from monai_spine.anatomy import Condition, Level, Severity, Target
from monai_spine.geometry import Point
from monai_spine.phantom.lesions.fields import Local
from monai_spine.phantom.lesions.losses import severity_of_share
from monai_spine.phantom.lesions.plans import LevelLesions, pull_points
from monai_spine.phantom.profiles import FORAMEN_HALF_HEIGHT_MM, FORAMEN_HALF_WIDTH_MM, FORAMEN_HEIGHT_LOST, FORAMEN_WIDTH_LOST
from monai_spine.phantom.readers import latent_of_narrowing, latent_of_shares, narrowing, reader_shares
from monai_spine.placement import ColumnFrame
from monai_spine.studies.prepared import PreparedTarget, Shares

__all__ = ["graded", "kept_space"]

_RECESS_HALF_MM = (3.9, 2.8, 5.0)
_FORAMEN_HALF_MM = (4.0, FORAMEN_HALF_WIDTH_MM, FORAMEN_HALF_HEIGHT_MM)
_STEP_MM, _SLICE_MM, _EDGE = 0.5, 4.0, 0.1
_FARTHEST_MM = 12.0


def graded(target: Target, before: PreparedTarget | None, kept: float) -> tuple[Severity, Shares] | None:
    """The grade of a space of which a share is kept, and what all simulated readers would say of it.

    Args:
        target: What is graded.
        before: What was known of it: with `shares` its narrowing is known and adds to the loss; a mild one without counts as not
            narrowed, and so does a finding that nobody graded.
        kept: Share of the space that was left by lesions, 0 to 1.

    Returns:
        None where readers called it moderate or severe before and nothing says how narrow it was.
    """
    lost = _narrowing_before(target, before)
    if lost is None:
        return None
    foraminal = target.condition is Condition.NEURAL_FORAMINAL_NARROWING
    share = _foraminal_narrowing(_foraminal_area(lost) * kept) if foraminal else 1 - (1 - lost) * kept
    share = float(np.clip(share, 0.0, 1.0))
    return severity_of_share(share), reader_shares(target, latent_of_narrowing(share))


def _narrowing_before(target: Target, before: PreparedTarget | None) -> float | None:
    if before is None:
        return 0.0
    if before.shares is not None:
        return float(narrowing(latent_of_shares(target, before.shares)))
    return 0.0 if before.severity in (None, Severity.NORMAL_MILD) else None


def _foraminal_area(lost: float) -> float:
    """The opening's area in the phantom, as a share of the widest, by its narrowing."""
    return (1 - FORAMEN_WIDTH_LOST * lost) * (1 - FORAMEN_HEIGHT_LOST * lost)


def _foraminal_narrowing(area: float) -> float:
    """The narrowing that leaves this share of the area."""
    both, either = FORAMEN_WIDTH_LOST * FORAMEN_HEIGHT_LOST, FORAMEN_WIDTH_LOST + FORAMEN_HEIGHT_LOST
    return float((either - np.sqrt(either**2 - 4 * both * (1 - area))) / (2 * both))


def kept_space(target: Target, point_ras_mm: Point, frames: Mapping[Level, ColumnFrame], plan: Sequence[LevelLesions]) -> float:
    """Which share of a recess or foramen lesions leave: of its section where they leave least.

    Args:
        target: A recess, or a foramen.
        point_ras_mm: Its middle.
        frames: The column's axes by level; the target's own must be there.
        plan: Lesions by level, of whichever levels.

    Returns:
        Between 0 and 1.
    """
    active = [entry for entry in plan if entry.lesions]
    if not active:
        return 1.0
    frame = frames[target.level]
    recess = target.condition is Condition.SUBARTICULAR_STENOSIS
    half = _RECESS_HALF_MM if recess else _FORAMEN_HALF_MM
    right, front, up = frame.offset_mm(point_ras_mm, None)
    middle = (right, -front, up)
    reach = (half[0], half[1] + _FARTHEST_MM, half[2] * (1.0 if recess else 1.5))
    before = Local(*torch.meshgrid(*(at + _around(size) for at, size in zip(middle, reach, strict=True)), indexing="ij"))
    after = pull_points(before, active, frame=frame)
    left = [_sections(at, middle, half, recess=recess) for at in (before, after)]
    kept = (left[1] / left[0]).unfold(0, int(_SLICE_MM / _STEP_MM), 1).mean(1)
    return float(kept.min().clamp(0.0, 1.0))


def _around(reach_mm: float) -> Tensor:
    """A line of points about 0."""
    count = int(np.ceil(reach_mm / _STEP_MM))
    return torch.arange(-count, count + 1) * _STEP_MM


def _sections(at: Local, middle: Point, half: Point, *, recess: bool) -> Tensor:
    """The area of each section, axial of a recess and sagittal of a foramen, whose tissue comes from within the space."""
    across = (at.aside - middle[0]) / half[0] if recess else (at.up - middle[2]) / half[2]
    radius = (across.square() + ((at.behind - middle[1]) / half[1]).square()).sqrt()
    inside = ((1 - radius) / _EDGE + 0.5).clamp(0.0, 1.0)
    return inside.sum(dim=(0, 1) if recess else (1, 2))
