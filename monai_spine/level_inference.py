"""Run the localiser's bundles on one volume, or on all of a study and keep the surest column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys

from monai_spine.errors import LevelsNotFoundError, WeightsError
from monai_spine.geometry import Affine, apply_affine, invert_affine
from monai_spine.level_candidates import LocalizerMaps, find_candidates
from monai_spine.level_decoding import decode_levels
from monai_spine.level_names import LevelNamer
from monai_spine.level_refinement import LevelRefiner
from monai_spine.level_sequence import NAMED_PRIOR
from monai_spine.level_slices import on_slices
from monai_spine.levels import Levels
from monai_spine.volume import Volume
from monai_spine.weights import Bundle

__all__ = ["CHANNELS", "LevelLocalizer", "localize_levels", "maps_of", "named_levels", "scan_of"]

Scan = tuple[npt.ArrayLike, Sequence[int]]
"""Where a scan lies: its 4 × 4 affine, voxel centre to RAS+ mm, and its voxels along i, j, k."""

CHANNELS = {"discs": slice(0, 6), "canals": slice(6, 12), "bodies": slice(12, 18)}
"""Which of the network's 18 channels say what."""


def maps_of(probabilities: npt.ArrayLike, affine: npt.ArrayLike, *, scan: Scan | None = None) -> LocalizerMaps:
    """Sort the network's channels; what lies outside the scan is zero.

    Args:
        probabilities: (18, i, j, k), after the sigmoid.
        affine: 4 × 4, voxel centre to RAS+ mm.
        scan: What the network's grid was laid over, and perhaps beyond. None: the grid lies inside it.

    Raises:
        WeightsError: There are not 18 channels.
    """
    array = np.asarray(probabilities, np.float32)
    if array.ndim != 4 or array.shape[0] != 18:
        raise WeightsError(
            f"The localiser answered with shape {array.shape}; (18, i, j, k) is needed. Use a bundle with its channels."
        )
    grid = np.asarray(affine, float)
    if scan is not None:
        inside = _inside(grid, array.shape[1:], scan)
        whole, array = array, np.zeros_like(array)
        array[:, inside[0], inside[1], inside[2]] = whole[:, inside[0], inside[1], inside[2]]
    scan_grid = None if scan is None else (np.asarray(scan[0], float), tuple(scan[1]))
    return LocalizerMaps(**{name: array[part] for name, part in CHANNELS.items()}, affine=grid, scan=scan_grid)


def scan_of(image: MetaTensor) -> Scan | None:
    """The scan that an image was loaded from by MONAI's `LoadImage`, whatever was done to it since; None for any other."""
    affine, shape = (image.meta.get(key) for key in (MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE))
    return None if affine is None or shape is None else (np.asarray(affine, float), [int(size) for size in shape])


class LevelLocalizer:
    """A loaded localiser: takes a volume, gives its levels.

    Args:
        bundle: Says preprocessing, network, inferer and postprocessing.
        device: Where the network runs.
        network: The bundle's network if it is loaded already.
        namer: Says which disc is which. None: the localiser's own maps say it.
        refiner: Looks again at each named disc. None: the points stay as the localiser sees them.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        network: Any = None,
        namer: LevelNamer | None = None,
        refiner: LevelRefiner | None = None,
    ) -> None:
        self.bundle, self.device, self.namer, self.refiner = bundle, device, namer, refiner
        self.network = bundle.network(device) if network is None else network
        self.inferer, self.postprocessing = bundle.inferer, bundle.postprocessing
        self.preprocessing = bundle.preprocessing

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Where the networks come from."""
        return (self.bundle, *(part.bundle for part in (self.namer, self.refiner) if part is not None))

    def __call__(self, volume: Volume) -> Levels:
        """Find the levels on one volume, and look at each again.

        Raises:
            LevelsNotFoundError: It shows no lumbar column.
        """
        return self.refine(volume, self.find(volume))

    def refine(self, volume: Volume, levels: Levels) -> Levels:
        """The same levels, looked at again where there is a refiner."""
        return levels if self.refiner is None else self.refiner(volume, levels)

    def find(self, volume: Volume) -> Levels:
        """Find and name the levels on one volume, to a few millimetres.

        Raises:
            LevelsNotFoundError: It shows no lumbar column.
        """
        name = f"series {volume.series_instance_uid}" if volume.series_instance_uid else "the volume"
        low, high = (float(value) for value in np.percentile(volume.array, (1, 99)))
        if not low < high:
            raise LevelsNotFoundError(
                f"No lumbar spine was found on {name}: nearly all voxels have the value {low:g}. Choose another with --series."
            )
        return named_levels(self.maps(volume), volume, self.namer, source=name)

    def maps(self, volume: Volume) -> LocalizerMaps:
        """The network's answer on its own grid, as probabilities; zero outside the scan."""
        array = torch.as_tensor(np.ascontiguousarray(volume.array, dtype=np.float32))[None]
        image = self.preprocessing({"image": MetaTensor(array, affine=torch.as_tensor(volume.affine))})["image"]
        batch = image.as_tensor()[None].to(self.device)
        with torch.inference_mode():
            logits = self.inferer(batch, self.network)[0]
        answer = self.postprocessing({"pred": logits, "image": image})["pred"]
        return maps_of(answer.float().cpu().numpy(), image.affine, scan=(volume.affine, volume.array.shape))


def named_levels(maps: LocalizerMaps, volume: Volume, namer: LevelNamer | None = None, *, source: str = "the volume") -> Levels:
    """Decode the localiser's maps, with the names that the naming network gives where there is one.

    Raises:
        LevelsNotFoundError: The maps show no lumbar column.
    """
    uid = volume.series_instance_uid
    if namer is None:
        return on_slices(decode_levels(maps, series_instance_uid=uid, source=source), volume)
    levels = decode_levels(
        maps,
        namer(volume, find_candidates(maps)),
        series_instance_uid=uid,
        prior=NAMED_PRIOR,
        calibration=namer.calibration,
        source=source,
    )
    return on_slices(levels, volume)


def _inside(affine: Affine, shape: tuple[int, ...], scan: Scan) -> tuple[slice, slice, slice]:
    """The part of the network's grid whose voxel centres lie inside the scan. The grid's axes are the scan's."""
    corners = np.array([[0, 0, 0], scan[1]]) - 0.5
    ends = apply_affine(invert_affine(affine), apply_affine(np.asarray(scan[0], float), corners))
    low = np.clip(np.ceil(ends.min(0) - 1e-3), 0, shape).astype(int)
    high = np.clip(np.floor(ends.max(0) + 1e-3) + 1, low, shape).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def localize_levels(volumes: Sequence[Volume], localizer: LevelLocalizer) -> Levels:
    """Find the levels on the sagittal volumes of one study.

    Every volume is asked. The column with the greatest sum of confidences is taken whole, the first of equals: where one
    contrast leads to a wrong number, the other mostly does not, and is the surer. Points of several series are never mixed;
    they hold for every series of the frame of reference. The finer look is taken on the chosen volume alone.

    Args:
        volumes: Sagittal volumes of one frame of reference, the preferred one (T2) first.
        localizer: Loaded, with a refiner or without.

    Raises:
        LevelsNotFoundError: No volume shows a lumbar column.
        WeightsError: The bundle cannot be run.
    """
    if not volumes:
        raise LevelsNotFoundError(
            "There is no sagittal volume to find levels on. Add a sagittal series, or choose one with --series."
        )
    found: list[tuple[Volume, Levels]] = []
    failures: list[LevelsNotFoundError] = []
    for volume in volumes:
        try:
            found.append((volume, localizer.find(volume)))
        except LevelsNotFoundError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return localizer.refine(*max(found, key=lambda pair: sum(level.confidence for level in pair[1].levels)))
