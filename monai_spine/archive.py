"""Unpack a zip file without letting it write outside its folder or fill the disk."""

from __future__ import annotations

import errno
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from monai_spine.errors import OutputError, UnreadableInputError, UnsafeArchiveError

__all__ = ["MAX_FILES", "MAX_RATIO", "MAX_UNPACKED_BYTES", "RATIO_COUNTS_FROM_BYTES", "unpacked"]

MAX_UNPACKED_BYTES = 8 * 1024**3
"""A study is some hundred megabytes; eight gigabytes leave room for the largest."""
MAX_FILES = 100_000
MAX_RATIO = 200
"""Unpacked to packed size. MR images pack 2 to 10 times smaller; deflate reaches 1,000 on zeros only."""
RATIO_COUNTS_FROM_BYTES = 64 * 1024**2
"""Archives that unpack to less than this do no harm, whatever their ratio."""
_CHUNK_BYTES = 1024**2
_ENCRYPTED = 0x1


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a zip into a temporary folder that lives as long as the context.

    Raises:
        UnsafeArchiveError: An entry leads outside the folder, is a link, or the archive unpacks too large.
        UnreadableInputError: The archive is broken, encrypted, or uses an unknown compression.
        OutputError: There is no room to unpack it.
    """
    with tempfile.TemporaryDirectory(prefix="monai-spine-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                _check(path, entries)
                for entry in entries:
                    _unpack(archive, entry, Path(folder))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise UnreadableInputError(f"{path} cannot be unpacked: {error}. Pack it again, without a password.") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutputError(f"No room in {tempfile.gettempdir()} to unpack {path}: set TMPDIR to a larger disk.") from error
            raise UnreadableInputError(f"{path} cannot be unpacked: {error}. Pack the study again.") from error
        yield Path(folder)


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    _check_unique(path, entries)
    for entry in entries:
        _check_name(path, entry.filename)
        if entry.flag_bits & _ENCRYPTED:
            raise UnreadableInputError(
                f"{path} is encrypted ({entry.filename!r}). Unpack it, or pack the study without a password."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UnsafeArchiveError(f"{path} holds a link, {entry.filename!r}: nothing was unpacked. Pack the files themselves.")
    size, packed = sum(entry.file_size for entry in entries), max(1, path.stat().st_size)
    if size > MAX_UNPACKED_BYTES or len(entries) > MAX_FILES:
        raise UnsafeArchiveError(
            f"{path} would unpack to {size / 1024**3:.1f} GiB in {len(entries)} files; at most "
            f"{MAX_UNPACKED_BYTES // 1024**3} GiB in {MAX_FILES} files are taken. Nothing was unpacked: "
            "give each study its own archive."
        )
    if size > RATIO_COUNTS_FROM_BYTES and size / packed > MAX_RATIO:
        raise UnsafeArchiveError(
            f"{path} would unpack to {size / packed:.0f} times its size; images never do (at most {MAX_RATIO} times is taken). "
            "Nothing was unpacked: it looks like an archive bomb."
        )


def _check_unique(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse two entries for one file: the second would take the place of the first."""
    seen: set[str] = set()
    for name in (entry.filename.replace("\\", "/") for entry in entries):
        if name in seen:
            raise UnreadableInputError(f"{path} holds {name!r} twice: one would be lost. Pack the study anew.")
        seen.add(name)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive or "\x00" in name:
        raise UnsafeArchiveError(
            f"{path} holds {name!r}, which leads outside the archive: nothing was unpacked. Pack the study anew."
        )


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*PurePosixPath(entry.filename.replace("\\", "/")).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, _CHUNK_BYTES)
