"""One comparison at a time in a folder: two would write the same files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_spine.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has none: nothing is held there
    fcntl = None  # type: ignore[assignment]

__all__ = ["alone_in"]


@contextmanager
def alone_in(folder: Path) -> Iterator[tuple[int, ...]]:
    """Hold a folder, which is made where it is not there, against other comparisons.

    Yields:
        Open files, for commands to inherit: a training that outlives its comparison holds the folder until it ends.

    Raises:
        OutputError: Another one holds the folder, or it cannot be written to.
    """
    if fcntl is None:
        yield ()
        return
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("a", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}). Choose a folder that can be written to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"Another comparison is at work in {folder}, or a training of one that was killed. "
                "Wait for it, or choose another folder."
            ) from error
        yield (lock.fileno(),)
