"""Find the levels on one mid-sagittal picture that states no millimetres: look at several scales, keep the surest.

The scale that is found makes neighbouring discs lie `DISC_SPACING_MM` apart: it serves to look at the picture as the networks
know it, and says nothing of the patient's size. Points are given in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

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

Picture = npt.NDArray[np.float32]

_EDGES_MM = (220.0, 255.0, 295.0, 340.0, 395.0, 455.0)
_AS_SURE = 0.95
_SURE = 0.9  # mean confidence of a column: about 0.95 where the picture stands upright
_CLEAR = 5.0  # sum of the confidences of a column, six at most; chosen in docs/localization.md
_TURNED: Mapping[str, Callable[[Picture], Picture]] = {
    "mirrored top to bottom": np.flipud,
    "mirrored left to right": np.fliplr,
    "turned by 180°": partial(np.rot90, k=2),
    "turned by 90° clockwise": partial(np.rot90, k=1),
    "turned by 90° anticlockwise": partial(np.rot90, k=-1),
}
"""How a picture may have been given, and what makes it upright again."""


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


def localize_picture(picture: Picture, localizer: LevelLocalizer) -> PictureLevels:
    """Find the levels on a mid-sagittal picture of unknown scale, in pixels; arguments and errors as of `look_at_picture`."""
    volume, levels = look_at_picture(picture, localizer)
    return PictureLevels(
        discs_px={level.level: _pixel(volume.affine, level.disc_ras_mm) for level in levels.levels},
        vertebrae_px={body.vertebra: _pixel(volume.affine, body.point_ras_mm) for body in levels.vertebrae},
        confidence={level.level: level.confidence for level in levels.levels},
        mm_per_px=volume.spacing_mm[1],
        flags=levels.flags,
    )


def look_at_picture(picture: Picture, localizer: LevelLocalizer) -> tuple[Volume, Levels]:
    """A mid-sagittal picture of unknown scale as a scan of one slice at the scale that suits it best, and its levels there.

    Args:
        picture: (rows, columns), head up, the patient's front to the left.
        localizer: Loaded, with a refiner or without.

    Returns:
        The scan and its levels in millimetres that only stand in for pixels, see `PictureLevels.mm_per_px`.

    Raises:
        LevelsNotFoundError: No lumbar column was found at any scale, or a surer one on the picture turned or mirrored.
    """
    chosen = _chosen_look(picture, localizer)
    if chosen is None or chosen.trust < _SURE * len(chosen.levels.levels):
        _refuse_turned(picture, localizer, trust=_trust_in(chosen))
    if chosen is None:
        raise LevelsNotFoundError(
            f"No lumbar spine was found on the picture of {picture.shape[1]} × {picture.shape[0]} pixels at any scale from "
            f"{_EDGES_MM[0]:g} to {_EDGES_MM[-1]:g} mm. Give a mid-sagittal slice, head up, front to the left."
        )
    return chosen.volume, localizer.refine(chosen.volume, chosen.levels)


def _chosen_look(picture: Picture, localizer: LevelLocalizer) -> _Look | None:
    """The best look, or one at the very scale that it found where that is about as sure; None where no column is found."""
    best = _best_look(picture, localizer)
    if best is None:
        return None
    again = _look(picture, best.mm_per_px / best.stretch, localizer)
    return again if again is not None and again.trust >= _AS_SURE * best.trust else best


def _best_look(picture: Picture, localizer: LevelLocalizer) -> _Look | None:
    """Of the looks that are about as sure as the surest, the one at the likeliest scale; None where no column is found."""
    looks = [look for edge in _EDGES_MM if (look := _look(picture, edge / max(picture.shape), localizer)) is not None]
    surest = max((look.trust for look in looks), default=0.0)
    sure = [look for look in looks if look.trust >= _AS_SURE * surest]
    return min(sure, key=lambda look: abs(np.log(look.stretch)), default=None)


def _refuse_turned(picture: Picture, localizer: LevelLocalizer, *, trust: float) -> None:
    """Refuse a picture that is clearly surer than this in another orientation."""
    trusts = {how: _trust_in(_best_look(upright(picture), localizer)) for how, upright in _TURNED.items()}
    how = max(trusts, key=lambda name: trusts[name])
    if trusts[how] >= _CLEAR and _AS_SURE * trusts[how] > trust:
        raise LevelsNotFoundError(
            f"The picture seems to be {how}: made upright, its levels are surer (confidences of {trusts[how]:.1f} together, not "
            f"{trust:.1f}). Turn or mirror it so that the head is up and the front to the left."
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


def _trust_in(look: _Look | None) -> float:
    return 0.0 if look is None else look.trust


def _look(picture: Picture, mm_per_px: float, localizer: LevelLocalizer) -> _Look | None:
    volume = picture_volume(picture, mm_per_px)
    try:
        return _Look(volume, localizer.find(volume), mm_per_px)
    except LevelsNotFoundError:
        return None


def _pixel(affine: Affine, point_ras_mm: Point) -> tuple[float, float]:
    _, x, y = apply_affine(invert_affine(affine), point_ras_mm)
    return float(x), float(y)
