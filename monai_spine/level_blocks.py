"""What the naming and the refining network have in common: each sees one block around each disc, as its bundle says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from monai_spine.errors import WeightsError
from monai_spine.geometry import Triple

__all__ = ["BlockSpec"]

Block = TypeVar("Block", bound="BlockSpec")

_MOST_VOXELS = 512


@dataclass(frozen=True)
class BlockSpec:
    """The block around a disc that a network of the localiser sees, as its bundle says under `crop`.

    Attributes:
        shape: Voxels along the block's axes, those nearest to R, A, S.
        spacing_mm: Of the voxels along these axes.
        center_mm: Where the block's centre lies, seen from the disc's.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    center_mm: Triple

    bundle: ClassVar[str] = ""
    """Whose block it is, for messages."""

    @classmethod
    def from_config(cls: type[Block], config: Mapping[str, Any]) -> Block:
        """Read the `crop` section of the bundle's config.

        Raises:
            WeightsError: An entry is missing, has no three numbers, or makes no block.
        """
        try:
            i, j, k = (int(count) for count in config["shape"])
            block = cls((i, j, k), _triple(config["spacing_mm"]), _triple(config["center_mm"]))
            block._check()
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The crop section of the {cls.bundle} bundle cannot be used ({type(error).__name__}: {error}). "
                "It needs shape, spacing_mm and center_mm, three numbers each."
            ) from error
        return block

    def _check(self) -> None:
        if not all(1 <= count <= _MOST_VOXELS for count in self.shape):
            raise ValueError(f"shape is {list(self.shape)}, not 1 to {_MOST_VOXELS} voxels along each axis")
        if not all(0 < edge < np.inf for edge in self.spacing_mm):
            raise ValueError(f"spacing_mm is {list(self.spacing_mm)}, not above 0")
        if not np.isfinite(self.center_mm).all():
            raise ValueError(f"center_mm is {list(self.center_mm)}, not finite")


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third
