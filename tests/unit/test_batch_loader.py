"""Batches made in a thread: all of them, in order, and no error goes unnoticed."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from monai_spine.errors import UnreadableInputError
from monai_spine.training.batch_loader import BatchLoader


class Numbers(Dataset[int]):
    """0 to 9, of which one cannot be read."""

    def __init__(self, unreadable: int | None = None) -> None:
        self.unreadable = unreadable

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index == self.unreadable:
            raise UnreadableInputError("scan.nii.gz is cut off")
        return index


def test_each_epoch_has_all_batches() -> None:
    loader = BatchLoader(Numbers(), batch_size=4, num_workers=0)
    for _ in range(2):
        assert torch.cat(list(loader)).tolist() == list(range(10))


@pytest.mark.parametrize("unreadable", [0, 5, 9])
def test_an_error_ends_the_epoch_aloud_after_the_batches_before_it(unreadable: int) -> None:
    seen: list[torch.Tensor] = []
    with pytest.raises(UnreadableInputError, match="cut off"):
        seen.extend(BatchLoader(Numbers(unreadable), batch_size=2, num_workers=0))
    assert [int(number) for batch in seen for number in batch] == list(range(unreadable // 2 * 2))


def test_who_stops_early_leaves_no_thread_behind() -> None:
    loader = BatchLoader(Numbers(), batch_size=1, num_workers=0)
    assert int(next(iter(loader))) == 0
    assert len(list(loader)) == 10
