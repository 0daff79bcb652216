"""Files written beside their place and then renamed: a reader never meets half of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_spine.errors import OutputError

__all__ = ["write_text", "written_whole"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The place beside a file where it is to be written; it is renamed at the end, unless something goes wrong.

    Args:
        path: The file. Its folder is made where it is not there.

    Raises:
        OutputError: The file cannot be written. Nothing is left of it; what was there before stays.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder) / "grades.csv") as beside:
        ...         _ = beside.write_text("case,grade")
        ...     Path(folder, "grades.csv").read_text()
        'case,grade'
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}). Free some space or choose a folder that can be written to."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        OutputError: As of `written_whole`.
    """
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
