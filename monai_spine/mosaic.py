"""Siemens mosaics: one picture that packs the slices of a volume in a square of tiles.

The standard knows no such thing. The place of each slice stands in the protocol text of the private element (0029,1020), as
the centre of its tile; ImagePositionPatient is that of the packed picture as if it were one slice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.errors import VolumeGeometryError
from monai_spine.geometry import Triple

__all__ = ["MosaicTiles", "mosaic_tiles", "packed_shape", "split_mosaic"]

_AGREEMENT_MM = 0.1
_LINE = re.compile(r"sSliceArray\.asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*([-+.\deE]+)")


@dataclass(frozen=True)
class MosaicTiles:
    """Shape of one tile, and the centre of each tile's first pixel in LPS mm, in the order of the tiles."""

    rows: int
    columns: int
    positions_lps_mm: tuple[Triple, ...]


def mosaic_tiles(
    protocol: bytes,
    *,
    shape: tuple[int, int],
    position_lps_mm: Triple | None,
    orientation: tuple[float, ...] | None,
    pixel_spacing_mm: tuple[float, float] | None,
) -> MosaicTiles:
    """Find where the slices of a mosaic lie.

    Args:
        protocol: Value of the private element (0029,1020).
        shape: Rows and columns of the packed picture.
        position_lps_mm: ImagePositionPatient of the packed picture.
        orientation: ImageOrientationPatient.
        pixel_spacing_mm: PixelSpacing.

    Raises:
        VolumeGeometryError: The private header is absent, or contradicts the public one by more than 0.1 mm.
    """
    centers = _slice_centers(protocol)
    if len(centers) < 2 or position_lps_mm is None or orientation is None or pixel_spacing_mm is None:
        raise VolumeGeometryError("A mosaic without the private header that places its slices. Export the series unpacked.")
    edge = math.ceil(math.sqrt(len(centers)))
    rows, columns = shape[0] // edge, shape[1] // edge
    row, column = np.array(orientation[:3]) * pixel_spacing_mm[1], np.array(orientation[3:]) * pixel_spacing_mm[0]
    first = np.array(position_lps_mm) + row * (shape[1] - columns) / 2 + column * (shape[0] - rows) / 2
    corners = centers - row * columns / 2 - column * rows / 2
    if np.linalg.norm(corners[-1] - first) < np.linalg.norm(corners[0] - first):
        corners = corners[::-1]
    if np.linalg.norm(corners[0] - first) > _AGREEMENT_MM:
        raise VolumeGeometryError(
            f"The mosaic's first slice lies at {corners[0].round(2).tolist()} by its private header and at "
            f"{first.round(2).tolist()} by its public one. Export the series unpacked."
        )
    places = first + (corners - corners[0])
    return MosaicTiles(rows, columns, tuple((float(x), float(y), float(z)) for x, y, z in places))


def packed_shape(rows: int, columns: int, count: int) -> tuple[int, int]:
    """Rows and columns of the picture that packs `count` tiles."""
    edge = math.ceil(math.sqrt(count))
    return rows * edge, columns * edge


def split_mosaic(picture: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.generic]:
    """Cut a packed picture (rows, columns) into its first `count` tiles, row by row: (tile, rows, columns)."""
    edge = math.ceil(math.sqrt(count))
    rows, columns = picture.shape[0] // edge, picture.shape[1] // edge
    tiles = picture[: rows * edge, : columns * edge].reshape(edge, rows, edge, columns).swapaxes(1, 2)
    return np.asarray(tiles.reshape(edge * edge, rows, columns)[:count])


def _slice_centers(protocol: bytes) -> npt.NDArray[np.float64]:
    """Centres of the slices in LPS mm, shape (slices, 3). A coordinate that the protocol leaves out is 0."""
    text = protocol.decode("latin-1")
    begin, end = text.find("### ASCCONV BEGIN"), text.find("### ASCCONV END")
    found = _LINE.findall(text[begin:end]) if 0 <= begin < end else []
    centers = np.zeros((1 + max((int(index) for index, _, _ in found), default=-1), 3))
    for index, axis, value in found:
        centers[int(index), ("Sag", "Cor", "Tra").index(axis)] = float(value)
    return centers
