"""Batches made in a thread beside the training; an error in making them ends the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from monai.data import ThreadDataLoader
from monai.data.thread_buffer import buffer_iterator

__all__ = ["BatchLoader"]


class BatchLoader(ThreadDataLoader):
    """MONAI's `ThreadDataLoader`, with its arguments. Where that ends an epoch in silence as its thread stops at an error, and
    training goes on with what came before, this raises the error once the batches before it are used.

    Raises:
        Exception: Whatever the dataset raised.

    Example:
        >>> [batch.tolist() for batch in BatchLoader(range(5), batch_size=2, num_workers=0)]
        [[0, 1], [2, 3], [4]]
    """

    def __iter__(self) -> Iterator[Any]:
        errors: list[Exception] = []

        def noted(batches: Iterable[Any]) -> Iterator[Any]:
            try:
                yield from batches
            except Exception as error:  # of any dataset and transform
                errors.append(error)

        batches = noted(super(ThreadDataLoader, self).__iter__())
        yield from buffer_iterator(batches, self.buffer_size, self.buffer_timeout, self.repeats)
        if errors:
            raise errors[0]
