"""Voxels are the same wherever they are kept."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from monai_spine.errors import OutputError
from monai_spine.training.kept_voxels import KeptVoxels
from monai_spine.volume import Volume


def volumes(*kinds: str) -> list[Volume]:
    rng = np.random.default_rng(0)
    return [
        Volume(array=rng.integers(0, 200, (5, 4 + at, 3)).astype(kind), affine=np.diag([1.0, 2.0, 3.0, 1.0]), slice_axis=1)
        for at, kind in enumerate(kinds)
    ]


def test_what_memory_does_not_hold_lies_in_a_file_and_is_the_same() -> None:
    first, second, third = volumes("uint8"), volumes("int16", "uint8", "float32"), volumes(">i2")
    store = KeptVoxels(memory_gb=sum(volume.array.nbytes for volume in (*first, *third)) / 1e9)
    kept = [store.keep(group) for group in (first, second, third)]
    assert [[isinstance(volume.array, np.memmap) for volume in group] for group in kept] == [[False], [True] * 3, [False]]
    again = store.keep(second)
    for given, found in zip([*first, *second, *third, *second], [*(one for group in kept for one in group), *again], strict=True):
        assert found.array.dtype == given.array.dtype
        np.testing.assert_array_equal(found.array, given.array)
        assert (found.slice_axis, found.affine.tolist()) == (given.slice_axis, given.affine.tolist())


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match=r"nor into .* \(No space left on device\)\. Free some space there"):
        KeptVoxels(memory_gb=0.0).keep(volumes("int16"))
