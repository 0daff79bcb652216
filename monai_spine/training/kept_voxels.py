"""Voxels that a training reads again and again: in memory up to a bound, beyond it in files that the system reads as needed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from monai_spine.errors import OutputError
from monai_spine.volume import Volume

__all__ = ["KeptVoxels"]


class KeptVoxels:
    """Keep volumes, their arrays in memory or in temporary files without a name, which go with the process.

    Args:
        memory_gb: Size of all arrays in memory at most.
    """

    def __init__(self, memory_gb: float) -> None:
        self._free = int(memory_gb * 1e9)

    def keep(self, volumes: Sequence[Volume]) -> list[Volume]:
        """The same volumes, all of them in memory or all in a file of their own.

        Raises:
            OutputError: The file cannot be written.
        """
        size = sum(volume.array.nbytes for volume in volumes)
        if size <= self._free:
            self._free -= size
            return list(volumes)
        try:
            return _in_file(volumes, size)
        except OSError as error:
            raise OutputError(
                f"Training crops do not fit into memory, nor into {tempfile.gettempdir()} ({error.strerror or error}). "
                "Free some space there, or name another folder in TMPDIR."
            ) from error


def _in_file(volumes: Sequence[Volume], size: int) -> list[Volume]:
    with tempfile.TemporaryFile(prefix="monai-spine-") as file:
        for volume in volumes:
            file.write(volume.array.tobytes())
        file.flush()
        row = np.memmap(file, dtype=np.uint8, mode="c", shape=(size,))
    ends = np.cumsum([volume.array.nbytes for volume in volumes])
    return [
        replace(volume, array=row[end - volume.array.nbytes : end].view(volume.array.dtype).reshape(volume.array.shape))
        for volume, end in zip(volumes, ends.tolist(), strict=True)
    ]
