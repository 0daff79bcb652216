"""Decode compressed pixels in a process of their own.

GDCM ends its process, by an abort or a segmentation fault, where a compressed stream is damaged. That process must not be the
one that analyses, or one broken slice would cost a whole batch.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.dicom_elements import first_line, read_whole

__all__ = ["DECODING_BYTES", "DECODING_SECONDS", "decode", "serve"]

DECODING_SECONDS = 60.0
"""A file that takes longer is damaged: a slice takes some milliseconds."""

DECODING_BYTES = 8 << 30
"""A file that takes more memory is damaged: the largest scan that is read takes two gigabytes."""

_SERVE = "from monai_spine.decoder import serve; serve()"
_LOCK = threading.Lock()


def decode(path: Path, tags: list[Any]) -> npt.NDArray[np.generic]:
    """Decode one DICOM file.

    Args:
        path: The file.
        tags: Elements that decoding needs.

    Returns:
        As pydicom's `pixel_array`.

    Raises:
        ValueError: The stream cannot be decoded, or the decoder broke down or hung over it.
    """
    with _LOCK:
        process = _process()
        alarm = threading.Timer(DECODING_SECONDS, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps([str(path), [int(tag) for tag in tags]]).encode() + b"\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
            pixels = process.stdout.read(said["bytes"])
            if len(pixels) < said["bytes"]:
                raise EOFError
        except (EOFError, OSError, ValueError) as error:
            _process.cache_clear()
            _end(process)
            raise ValueError("the decoder broke down over it") from error
        finally:
            alarm.cancel()
    if said["error"]:
        raise ValueError(said["error"])
    return np.frombuffer(pixels, said["dtype"]).reshape(said["shape"])


def serve() -> None:
    """Decode the files that standard input names, one a line, until it ends.

    For each, a line of JSON goes to standard output, then as many bytes of pixels as it says.
    """
    _bound_memory()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        path, tags = json.loads(line)
        about: dict[str, Any] = {"error": "", "bytes": 0}
        pixels = b""
        try:
            array = read_whole(Path(path), specific_tags=tags).pixel_array
            pixels = array.tobytes()
            about |= {"bytes": len(pixels), "dtype": array.dtype.str, "shape": array.shape}
        except Exception as error:  # pydicom and its decoders raise errors of many kinds for one cause
            about["error"] = f"{type(error).__name__}: {first_line(error)}"
        output.write(json.dumps(about).encode() + b"\n" + pixels)
        output.flush()


def _bound_memory() -> None:
    """Let this process have no more than `DECODING_BYTES`, where the platform can do so."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        if soft == resource.RLIM_INFINITY or soft > DECODING_BYTES:
            resource.setrlimit(resource.RLIMIT_AS, (DECODING_BYTES, hard))


@lru_cache(maxsize=1)
def _process() -> Any:
    """The process at work; started where there is none. It hears no Ctrl-C, and ends with this one."""
    package = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    atexit.register(_end, process)
    return process


def _end(process: Any) -> None:
    process.kill()
    process.communicate()
