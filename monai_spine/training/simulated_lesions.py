"""Lesions drawn at random onto normal levels while a grader is trained."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from monai_spine.anatomy import Level
from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import Affine, Point
from monai_spine.phantom.lesions.bases import LARGEST_BASE_SHARE, LEAST_DEPTH_MM, base_site, check_measured
from monai_spine.phantom.lesions.draw import USUAL_WEIGHTS, check_weights, draw_lesions, takes
from monai_spine.phantom.lesions.kinds import described
from monai_spine.phantom.lesions.plans import LevelLesions, carried
from monai_spine.phantom.lesions.simulate import apply_lesions, simulate_lesions
from monai_spine.phantom.lesions.sites import frames_of

__all__ = ["RandSimulateLesiond"]

_LARGEST_SHARE = 0.9


class RandSimulateLesiond(Randomizable, MapTransform):
    """Put lesions onto one level of a study, and say what was drawn and what the sac lost.

    The grades that come of it are simulated: no reader has seen these lesions.

    An example holds images (1, i, j, k) of one study, crops or whole series, as MetaTensors with their affine to RAS+ mm; the
    points of its levels in RAS+ mm, by name; and the name of the level, or of each level that may bear a lesion, of which one is
    drawn. To it is added `lesion`: `level`, `family`, `asked_share` (of the sac's depth where the lesion is deepest), `lesions`
    with their parameters, and as measured on the first image `share`, `midline_share`, `planes`, `latent` and `severity` (index).
    Where the image shows no sac at this level, or one that is narrow already, or no family takes the share there, nothing is
    changed, and `lesion` holds only `level` and `refused`, the reason. Points of discs and canals go along where a vertebra
    slips. Images keep their `applied_operations`, so that what was done before can be inverted.

    Where only discs are marked, as on pictures, `monai_spine.phantom.lesions.find_canals` finds the canals. Which discs are
    normal bases by their grades, `base_levels` says; give only those as `level`.

    Args:
        keys: Images; the first is sagittal T2, on which the sac is measured. The others get the same lesion in world coordinates.
        discs_key, canals_key: Points by level: `{"L4/L5": (r, a, s)}`.
        level_key: The level, or several.
        prob: Chance that an example is changed; elsewhere `lesion` holds `level` alone.
        shares: Least and largest share of the sac's depth to take, drawn evenly; default: what the families take, at most 0.9.
        weights: How often each family of lesions is drawn, such as `{"bulge": 1, "extrusion": 2}`; default:
            `monai_spine.phantom.lesions.USUAL_WEIGHTS`.
        largest_base_share, least_depth_mm: Which sacs are no normal base; see `monai_spine.phantom.lesions.bases.base_site`.
        seed: Of the random numbers.

    Raises:
        ValueError: The chance is out of range, weights are none of known families, or no family takes some of the shares.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        discs_key: str = "discs",
        canals_key: str = "canals",
        level_key: str = "level",
        prob: float = 1.0,
        shares: Sequence[float] | None = None,
        weights: Mapping[str, float] | None = None,
        largest_base_share: float = LARGEST_BASE_SHARE,
        least_depth_mm: float = LEAST_DEPTH_MM,
        seed: int = 0,
    ) -> None:
        super().__init__(keys)
        weights = dict(USUAL_WEIGHTS if weights is None else weights)
        least, largest = check_weights(weights)
        low, high = (least, min(largest, _LARGEST_SHARE)) if shares is None else (float(share) for share in shares)
        if not 0 <= prob <= 1 or not least <= low <= high <= largest:
            raise ValueError(
                f"prob must be in [0, 1] and shares rise within what the families take, [{least:g}, {largest:g}]; "
                f"got prob {prob} and shares ({low}, {high})."
            )
        self.discs_key, self.canals_key, self.level_key = discs_key, canals_key, level_key
        self.prob, self.shares, self.weights = prob, (low, high), weights
        self.largest_base_share, self.least_depth_mm = largest_base_share, least_depth_mm
        self.set_random_state(seed=seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change one example.

        Raises:
            LevelsNotFoundError: The level has no disc or no canal point.
            AnatomyError: A level's name is unknown.
        """
        result = dict(data)
        level = self._level(result[self.level_key])
        changes, share = self.R.random_sample() < self.prob, self.R.uniform(*self.shares)
        drawing = np.random.RandomState(self.R.randint(2**31))
        result["lesion"] = {"level": level.label}
        if changes:
            self._change(result, level, share, drawing)
        return result

    def _level(self, named: str | Sequence[str]) -> Level:
        levels = [named] if isinstance(named, str) else list(named)
        if not levels:
            raise ValueError(f"An example needs a level to bear a lesion: {self.level_key!r} names none.")
        return Level.parse(levels[self.R.randint(len(levels))])

    def _change(self, result: dict[Hashable, Any], level: Level, share: float, drawing: np.random.RandomState) -> None:
        discs, canals = _points(result[self.discs_key]), _points(result[self.canals_key])
        frames = frames_of(discs, canals)
        if level not in frames:
            raise LevelsNotFoundError(
                f"{level.label} has no disc or no canal point, so that a lesion has no place "
                f"(both: {', '.join(found.label for found in frames)}). Give its points, or another level."
            )
        first, *others = self.keys
        image, affine = _image(result[first])
        limits = {"largest_base_share": self.largest_base_share, "least_depth_mm": self.least_depth_mm}
        try:
            if not takes(self.weights, level, share):
                raise LevelsNotFoundError(f"no family with a weight takes a share of {share:.2f} of the sac at {level.label}")
            site = base_site(image, affine, frames[level], discs, **limits)
            family, lesions = draw_lesions(drawing, site, share, self.weights)
            plan = [LevelLesions(site, lesions)]
            simulated = simulate_lesions(image, affine, plan)
            loss = simulated.losses[level]
            check_measured(loss, site)
        except LevelsNotFoundError as error:
            result["lesion"]["refused"] = str(error)
            return
        result[first] = _like(result[first], simulated.image)
        for key in others:
            result[key] = _like(result[key], apply_lesions(*_image(result[key]), plan))
        for key in (self.discs_key, self.canals_key):
            result[key] = carried(dict(result[key]), plan)
        result["lesion"] |= {
            "family": family,
            "asked_share": float(share),
            "lesions": [described(lesion) for lesion in lesions],
            "share": loss.share,
            "midline_share": loss.midline_share,
            "planes": loss.planes,
            "latent": loss.latent,
            "severity": loss.severity.index,
        }


def _points(named: Mapping[str, Sequence[float]]) -> dict[Level, Point]:
    return {Level.parse(name): (float(point[0]), float(point[1]), float(point[2])) for name, point in named.items()}


def _image(image: torch.Tensor) -> tuple[torch.Tensor, Affine]:
    if not isinstance(image, MetaTensor) or image.dim() != 4 or len(image) != 1:
        raise ValueError(
            f"A lesion needs a MetaTensor (1, i, j, k) with its affine, got {type(image).__name__} {tuple(image.shape)}."
        )
    if not bool(torch.isfinite(image.as_tensor()).all()):
        raise ValueError("A lesion needs an image of finite values, got NaN or infinite ones. Load it anew, or mask them.")
    return image.as_tensor()[0], np.asarray(image.affine.cpu(), dtype=float)


def _like(image: MetaTensor, values: torch.Tensor) -> MetaTensor:
    changed = MetaTensor(values[None], meta=dict(image.meta), applied_operations=list(image.applied_operations))
    changed.affine = image.affine
    return changed
