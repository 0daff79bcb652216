"""Which disc is it? A network looks at a wide block around each candidate and says how likely it bears each name.

It answers with eight classes: a disc above T12/L1, the six of `anatomy.DISCS`, and one below L5/S1, in the sacrum. Where
discs are, the localiser has seen; `level_sequence.py` decides for the whole column.

Which tissue is bright differs from one kind of sequence to another, what lies where does not. So the network may look a second
time, with the grey scale upside down; what it says then counts where it makes clearly the better column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_spine.anatomy import DISCS
from monai_spine.crops import crop_affine, resample_block
from monai_spine.errors import WeightsError
from monai_spine.geometry import Affine, Point
from monai_spine.level_blocks import BlockSpec
from monai_spine.level_candidates import Candidate
from monai_spine.level_confidence import Calibration
from monai_spine.level_sequence import NAMED_PRIOR, number_column
from monai_spine.volume import Volume
from monai_spine.weights import Bundle

__all__ = ["CLASSES", "LevelNamer", "NameBlock", "cut_name_blocks", "upside_down"]

CLASSES = ("above", *(level.label for level in DISCS), "below")
"""What the naming network's classes say."""

_AIR = 0.04


class NameBlock(BlockSpec):
    """The block that the naming network sees, along the scan's own axes."""

    bundle = "naming"

    def affine(self, scan_affine: Affine, disc_ras_mm: Point) -> Affine:
        """Where the block around a disc lies: 4 × 4, voxel centre to RAS+ mm."""
        r, a, s = (float(value) for value in np.add(disc_ras_mm, self.center_mm))
        x, y, z = (count * edge for count, edge in zip(self.shape, self.spacing_mm, strict=True))
        return crop_affine(scan_affine, (r, a, s), size_mm=(x, y, z), shape=self.shape)


def cut_name_blocks(volume: Volume, points_ras_mm: Sequence[Point], block: NameBlock, preprocessing: Any) -> torch.Tensor:
    """What the network is shown of each place: (places, 1, R, A, S).

    Args:
        volume: Scan to cut from.
        points_ras_mm: Where discs may be.
        block: What is cut around each.
        preprocessing: The bundle's, on dicts with `image`.
    """
    blocks = [resample_block(volume, block.affine(volume.affine, point), block.shape) for point in points_ras_mm]
    return torch.stack([torch.as_tensor(preprocessing({"image": torch.from_numpy(one)[None]})["image"]) for one in blocks])


def upside_down(image: torch.Tensor) -> torch.Tensor:
    """Intensities from 0 to 1 the other way round, so that the brightest tissue is the darkest; air stays black."""
    return torch.where(image > _AIR, 1 + _AIR - image, image)


class LevelNamer:
    """A loaded naming network: takes a scan and the places of its discs, gives evidence for their names.

    Args:
        bundle: Says block, preprocessing, network, inferer, postprocessing, and how confidences are corrected.
        device: Where the network runs.
        network: The bundle's network if it is loaded already.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", network: Any = None) -> None:
        self.bundle, self.device = bundle, device
        self.network = bundle.network(device) if network is None else network
        self.block = NameBlock.from_config(bundle.config("crop"))
        self.calibration = Calibration.from_config(bundle.config("confidence"))
        self.second_look = bundle.option("second_look")
        self.inferer, self.preprocessing, self.postprocessing = bundle.inferer, bundle.preprocessing, bundle.postprocessing

    def __call__(self, volume: Volume, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The same candidates: how sure it is that a disc is there stays, and is shared among the names as the network says."""
        if not candidates:
            return ()
        blocks = self._blocks(volume, [candidate.point_ras_mm for candidate in candidates])
        first = _named(candidates, self._answers(blocks))
        is_picture = 1 in volume.array.shape  # looked at in several sizes instead, of which the surest counts
        if self.second_look is None or is_picture:
            return first
        second = _named(candidates, self._answers(upside_down(blocks)))
        return second if _score(second) > _score(first) + float(self.second_look["better_by"]) else first

    def probabilities(self, volume: Volume, points_ras_mm: Sequence[Point]) -> npt.NDArray[np.float32]:
        """Probability of each of `CLASSES` at each place at the first look, (places, 8)."""
        return self._answers(self._blocks(volume, points_ras_mm))

    def _blocks(self, volume: Volume, points_ras_mm: Sequence[Point]) -> torch.Tensor:
        return cut_name_blocks(volume, points_ras_mm, self.block, self.preprocessing)

    def _answers(self, blocks: torch.Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits = self.inferer(blocks.to(self.device), self.network)
        answers = [self.postprocessing({"pred": answer})["pred"].float().cpu().numpy() for answer in logits]
        found, needed = np.shape(answers), (len(answers), len(CLASSES))
        if found != needed:
            raise WeightsError(
                f"The naming network answered with shape {found}; {needed} is needed. Use a bundle with its classes."
            )
        return np.stack(answers)


def _named(candidates: Sequence[Candidate], probabilities: npt.NDArray[np.float32]) -> tuple[Candidate, ...]:
    seen = [min(sum(candidate.evidence), 1.0) for candidate in candidates]
    named = np.asarray(seen)[:, None] * probabilities[:, 1:-1]
    return tuple(
        replace(candidate, evidence=tuple(float(value) for value in row))
        for candidate, row in zip(candidates, named, strict=True)
    )


def _score(candidates: Sequence[Candidate]) -> float:
    return number_column(candidates, lambda upper, lower: [0.5] * len(DISCS), NAMED_PRIOR).score
