"""Samplers for training on several processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice

from torch.utils.data import Sampler

__all__ = ["SharedSampler"]


class SharedSampler(Sampler[int]):
    """Each process's share of what one sampler draws: together, the processes see what one process would, batch by batch.

    Args:
        sampler: Draws the same on every process (the same seed), as many as it says.
        rank: Number of this process, from 0.
        processes: How many there are.

    Raises:
        ValueError: The rank is none of the processes'.
    """

    def __init__(self, sampler: Iterable[int], rank: int, processes: int) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank {rank} is none of {processes} processes: it must lie in [0, {processes}).")
        self.sampler, self.rank, self.processes = sampler, rank, processes

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.sampler), self.rank, len(self) * self.processes, self.processes)

    def __len__(self) -> int:
        """Draws of each process: what does not divide evenly is left out."""
        if not isinstance(self.sampler, Sized):
            raise TypeError(
                f"{type(self.sampler).__name__} does not say how many it draws, so that they cannot be shared evenly."
            )
        return len(self.sampler) // self.processes
