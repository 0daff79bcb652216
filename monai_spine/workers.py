"""Work in several processes, each with its own share of the cores. Ctrl-C reaches the parent alone, which lets them end.

Where the parent is killed, its workers end at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

from monai_spine.errors import SpineError

__all__ = ["WorkerError", "in_processes"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerError(SpineError):
    """A worker process died."""


def in_processes(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, jobs: int, with_torch: bool = True
) -> Iterator[_Result]:
    """Call a function for each item, in processes that are started anew; yields results as they come.

    Args:
        work: What is called; it has to be importable.
        items: What it is called with.
        jobs: Processes.
        with_torch: Load torch in each, with its share of the cores.

    Raises:
        WorkerError: A process was ended from outside.
    """
    jobs = min(jobs, len(items))
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(jobs if with_torch else 0,)
    ) as pool:
        with _children_without_interrupts():
            futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                f"One of {jobs} worker processes was ended from outside, most likely for want of memory. "
                "Finished studies are kept: go on with --resume and fewer --jobs."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _children_without_interrupts() -> Iterator[None]:
    """Let processes that are started meanwhile never see Ctrl-C, not even while they import; one that comes now waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: without this its workers would go on writing, then wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start(jobs: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    if not jobs:
        return
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
