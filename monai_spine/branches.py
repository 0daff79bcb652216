"""One target seen on several series: a crop for each kind of series, put together for a network that can do without some.

The bundle's `crop` section then names several roles, with a size and a shape for each:

    "role": ["sagittal_t2", "axial_t2"], "size_mm": [[28, 40, 40], [40, 40, 20]], "shape": [[16, 56, 56], [56, 56, 16]], …

All else in it holds for all of them. Training and inference both cut by `crops.py` and put together by `stacked`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.crops import Crop, CropSpec, Shape
from monai_spine.errors import WeightsError

__all__ = ["Views", "crop_specs", "stacked"]

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Views:
    """The crops of one target, one for each role of its bundle.

    Attributes:
        crops: In the order of the roles; None where no series shows the target.
        shapes: Voxels of each along R, A, S.
    """

    crops: tuple[Crop | None, ...]
    shapes: tuple[Shape, ...]

    @property
    def image(self) -> Floats32:
        """Channel by channel as the network takes it, before normalisation; see `stacked`."""
        return stacked([None if crop is None else crop.array for crop in self.crops], self.shapes)

    def mirrored(self) -> Views:
        """Each crop mirrored."""
        return Views(tuple(None if crop is None else crop.mirrored() for crop in self.crops), self.shapes)


def crop_specs(config: Mapping[str, Any]) -> tuple[CropSpec, ...]:
    """Read the `crop` section of a bundle, which names one role or several.

    Args:
        config: The section. Where `role` is a list, `size_mm` and `shape` are lists of the same length.

    Returns:
        What each role's crop is.

    Raises:
        WeightsError: An entry is missing, the lists differ in length, a role occurs twice, or the shapes cannot be stacked.
    """
    roles = config.get("role")
    if not isinstance(roles, (list, tuple)):
        return (CropSpec.from_config(config),)
    lists = {key: config.get(key) for key in ("role", "size_mm", "shape")}
    lengths = {len(values) if isinstance(values, (list, tuple)) else 0 for values in lists.values()}
    if lengths != {len(roles)} or len(set(roles)) < len(roles):
        raise WeightsError(
            f"The crop section of a bundle names the roles {', '.join(map(str, roles))}: each must be named once, and size_mm "
            f"and shape must have an entry for each, got {config.get('size_mm')} and {config.get('shape')}."
        )
    entries = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    specs = tuple(CropSpec.from_config({**config, **entry}) for entry in entries)
    _refuse_other_shapes([spec.shape for spec in specs])
    return specs


def stacked(arrays: Sequence[Floats32 | None], shapes: Sequence[Shape]) -> Floats32:
    """Crops as the channels of one array, the axis with the fewest voxels of each (across the slices) before the other two.

    So a sagittal crop stays (R, A, S) and an axial one becomes (S, R, A). A crop that is missing, or blank because nothing was
    scanned there, is a channel of NaN. An axis of the result so has another direction in each channel: mirror crops, not this.

    Args:
        arrays: Crops (R, A, S), or None.
        shapes: Voxels of each along R, A, S.

    Returns:
        (crops, across, in plane, in plane) float32.
    """
    channels = [
        np.full(shape, np.nan, np.float32) if array is None or not array.any() else array
        for array, shape in zip(arrays, shapes, strict=True)
    ]
    return np.stack([_slices_first(channel) for channel in channels])


def _slices_first(array: Floats32) -> Floats32:
    return np.moveaxis(array, int(np.argmin(array.shape)), 0)


def _refuse_other_shapes(shapes: Sequence[Shape]) -> None:
    """Channels of one array have one shape."""
    if len({_slices_first(np.empty(shape, np.float32)).shape for shape in shapes}) > 1:
        texts = ", ".join(" × ".join(map(str, shape)) for shape in shapes)
        raise WeightsError(
            f"Crops of {texts} voxels cannot be the channels of one image: with the axis of the fewest voxels first, they must "
            "have the same shape. Change `shape` in the crop section."
        )
