"""Run the localiser's bundle on one volume. The only part of level finding that needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_spine.errors import LevelsNotFoundError, WeightsError
from monai_spine.geometry import Affine, apply_affine, invert_affine
from monai_spine.level_candidates import LocalizerMaps
from monai_spine.level_decoding import decode_levels
from monai_spine.levels import Levels
from monai_spine.volume import Volume
from monai_spine.weights import Bundle

__all__ = ["CHANNELS", "LevelLocalizer", "maps_of"]

CHANNELS = {"discs": slice(0, 5), "canals": slice(5, 10), "bodies": slice(10, 16)}
"""Which of the network's 16 channels say what."""


def maps_of(probabilities: npt.ArrayLike, affine: npt.ArrayLike) -> LocalizerMaps:
    """Sort the network's channels.

    Args:
        probabilities: (16, i, j, k), after the sigmoid.
        affine: 4 × 4, voxel centre to RAS+ mm.

    Raises:
        WeightsError: There are not 16 channels.
    """
    array = np.asarray(probabilities, np.float32)
    if array.ndim != 4 or array.shape[0] != 16:
        raise WeightsError(
            f"The localiser answered with shape {array.shape}; (16, i, j, k) is needed. Use a bundle with its channels."
        )
    return LocalizerMaps(**{name: array[part] for name, part in CHANNELS.items()}, affine=np.asarray(affine, float))


class LevelLocalizer:
    """A loaded localiser: takes a volume, gives its levels.

    Args:
        bundle: Says preprocessing, network, inferer and postprocessing.
        device: Where the network runs.
        network: The bundle's network if it is loaded already.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", network: Any = None) -> None:
        self.device = device
        self.network = bundle.network(device) if network is None else network
        self.inferer, self.postprocessing = bundle.inferer, bundle.postprocessing
        self.preprocessing = bundle.preprocessing

    def __call__(self, volume: Volume) -> Levels:
        """Find the levels on one volume.

        Raises:
            LevelsNotFoundError: It shows no lumbar column.
        """
        name = f"series {volume.series_instance_uid}" if volume.series_instance_uid else "the volume"
        low, high = (float(value) for value in np.percentile(volume.array, (1, 99)))
        if not low < high:
            raise LevelsNotFoundError(
                f"No lumbar spine was found on {name}: nearly all voxels have the value {low:g}. Choose another with --series."
            )
        return decode_levels(self.maps(volume), series_instance_uid=volume.series_instance_uid, source=name)

    def maps(self, volume: Volume) -> LocalizerMaps:
        """The network's answer on its own grid, as probabilities; zero outside the scan.

        The scan is looked at twice, once mirrored from left to right, and the answers are averaged: no level has a side.
        """
        array = torch.as_tensor(np.ascontiguousarray(volume.array, dtype=np.float32))[None]
        image = self.preprocessing({"image": MetaTensor(array, affine=torch.as_tensor(volume.affine))})["image"]
        batch = image.as_tensor()[None].to(self.device)
        with torch.inference_mode():
            seen, mirrored = self.inferer(torch.cat([batch, batch.flip(2)]), self.network)
        logits = (seen + mirrored.flip(1)) / 2
        answer = self.postprocessing({"pred": logits, "image": image})["pred"]
        affine = np.asarray(image.affine, dtype=float)
        inside = _inside(affine, tuple(answer.shape[1:]), volume)
        probabilities = np.zeros(answer.shape, np.float32)
        probabilities[:, inside[0], inside[1], inside[2]] = answer[:, inside[0], inside[1], inside[2]].float().cpu().numpy()
        return maps_of(probabilities, affine)


def _inside(affine: Affine, shape: tuple[int, ...], volume: Volume) -> tuple[slice, slice, slice]:
    """The part of the network's grid whose voxel centres lie inside the scan. The grid's axes are the scan's."""
    corners = np.array([[0, 0, 0], volume.array.shape]) - 0.5
    ends = apply_affine(invert_affine(affine), apply_affine(np.asarray(volume.affine, float), corners))
    low = np.clip(np.ceil(ends.min(0) - 1e-3), 0, shape).astype(int)
    high = np.clip(np.floor(ends.max(0) + 1e-3) + 1, low, shape).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k
