"""Find the levels on one mid-sagittal picture that states no millimetres: look at several scales, keep the surest.

The scale that is found makes neighbouring discs lie `DISC_SPACING_MM` apart: it serves to look at the picture as the networks
know it, and says nothing of the patient's size. Points are given in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Level, Vertebra
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point, apply_affine, invert_affine
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_sequence import DISC_SPACING_MM
from monai_spine.levels import Levels
from monai_spine.volume import Volume, picture_volume

__all__ = ["PictureLevels", "localize_picture", "look_at_picture"]

_EDGES_MM = (220.0, 255.0, 295.0, 340.0, 395.0, 455.0)
_AS_SURE = 0.95
_SURE_OF_HEAD_UP = 0.9  # mean confidence of a column: about 0.95 with the head up, up to 0.88 upside down


@dataclass(frozen=True)
class PictureLevels:
    """What was found on a picture.

    Attributes:
        discs_px: Centre of each named disc, (x, y): columns to the right and rows down from the first pixel's centre.
        vertebrae_px: Centre of each body, likewise.
        confidence: Of each disc, 0 to 1.
        mm_per_px: The scale at which neighbouring discs lie `DISC_SPACING_MM` apart; no measure of the patient.
        flags: As in `Levels`.
    """

    discs_px: Mapping[Level, tuple[float, float]]
    vertebrae_px: Mapping[Vertebra, tuple[float, float]]
    confidence: Mapping[Level, float]
    mm_per_px: float
    flags: tuple[str, ...] = ()


def localize_picture(picture: npt.NDArray[np.float32], localizer: LevelLocalizer) -> PictureLevels:
    """Find the levels on a mid-sagittal picture of unknown scale, in pixels; arguments and errors as of `look_at_picture`."""
    volume, levels = look_at_picture(picture, localizer)
    return PictureLevels(
        discs_px={level.level: _pixel(volume.affine, level.disc_ras_mm) for level in levels.levels},
        vertebrae_px={body.vertebra: _pixel(volume.affine, body.point_ras_mm) for body in levels.vertebrae},
        confidence={level.level: level.confidence for level in levels.levels},
        mm_per_px=volume.spacing_mm[1],
        flags=levels.flags,
    )


def look_at_picture(picture: npt.NDArray[np.float32], localizer: LevelLocalizer) -> tuple[Volume, Levels]:
    """A mid-sagittal picture of unknown scale as a scan of one slice at the scale that suits it best, and its levels there.

    Args:
        picture: (rows, columns), head up, the patient's front to the left.
        localizer: Loaded, with a refiner or without.

    Returns:
        The scan and its levels in millimetres that only stand in for pixels, see `PictureLevels.mm_per_px`.

    Raises:
        LevelsNotFoundError: No lumbar column was found at any scale, or a better one on the picture upside down.
    """
    best = _best_look(picture, localizer)
    if best is None:
        raise LevelsNotFoundError(
            f"No lumbar spine was found on the picture of {picture.shape[1]} × {picture.shape[0]} pixels at any scale from "
            f"{_EDGES_MM[0]:g} to {_EDGES_MM[-1]:g} mm. Give a mid-sagittal slice, head up, front to the left."
        )
    again = _look(picture, best.mm_per_px / best.stretch, localizer)
    chosen = again if again is not None and again.trust >= _AS_SURE * best.trust else best
    _refuse_upside_down(picture, chosen, localizer)
    return chosen.volume, localizer.refine(chosen.volume, chosen.levels)


def _best_look(picture: npt.NDArray[np.float32], localizer: LevelLocalizer) -> _Look | None:
    """Of the looks that are about as sure as the surest, the one at the likeliest scale; None where no column is found."""
    looks = [look for edge in _EDGES_MM if (look := _look(picture, edge / max(picture.shape), localizer)) is not None]
    surest = max((look.trust for look in looks), default=0.0)
    sure = [look for look in looks if look.trust >= _AS_SURE * surest]
    return min(sure, key=lambda look: abs(np.log(look.stretch)), default=None)


def _refuse_upside_down(picture: npt.NDArray[np.float32], chosen: _Look, localizer: LevelLocalizer) -> None:
    """Where the names are not sure, see whether they are surer with the other end up."""
    if chosen.trust >= _SURE_OF_HEAD_UP * len(chosen.levels.levels):
        return
    turned = _best_look(picture[::-1], localizer)
    if turned is not None and _AS_SURE * turned.trust > chosen.trust:
        raise LevelsNotFoundError(
            f"The picture seems to stand upside down: its levels are surer with the other end up ({turned.trust:.1f} of "
            f"{len(turned.levels.levels)}, not {chosen.trust:.1f} of {len(chosen.levels.levels)}). "
            "Give a mid-sagittal slice, head up, front to the left."
        )


@dataclass(frozen=True)
class _Look:
    """The column at one scale; `stretch` is how many times too far apart its discs lie."""

    volume: Volume
    levels: Levels
    mm_per_px: float

    @property
    def trust(self) -> float:
        return float(sum(level.confidence for level in self.levels.levels))

    @property
    def stretch(self) -> float:
        places = np.array([level.disc_ras_mm for level in self.levels.levels])
        order = [list(Level).index(level.level) for level in self.levels.levels]
        gaps = np.linalg.norm(np.diff(places, axis=0), axis=1) / np.diff(order)
        return float(np.mean(gaps)) / DISC_SPACING_MM


def _look(picture: npt.NDArray[np.float32], mm_per_px: float, localizer: LevelLocalizer) -> _Look | None:
    volume = picture_volume(picture, mm_per_px)
    try:
        return _Look(volume, localizer.find(volume), mm_per_px)
    except LevelsNotFoundError:
        return None


def _pixel(affine: Affine, point_ras_mm: Point) -> tuple[float, float]:
    _, x, y = apply_affine(invert_affine(affine), point_ras_mm)
    return float(x), float(y)
