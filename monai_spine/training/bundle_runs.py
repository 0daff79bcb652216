"""The bundles' own commands, one after the other: what is finished stays, what was killed goes on."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from threading import current_thread, main_thread
from typing import IO

from monai_spine.errors import OutputError, SpineError, TrainingError, WeightsError
from monai_spine.whole_files import write_text

__all__ = [
    "CONFIGS",
    "Step",
    "bundle_command",
    "interruptible",
    "keep",
    "overlay",
    "perform",
    "refuse_other",
    "said_of",
    "sha256_of",
]

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
"""Overlays, beside the package in its checkout."""
_SETTINGS = "settings.json"
_SHOWN = 15
_WATCH_S = 1.0
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: For people.
        command: To run.
        folder: Where it writes.
        made: What is there when it is done.
        written: What the command itself writes; it becomes `made` when the command has ended well.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    made: Path
    written: Path


def sha256_of(paths: Sequence[Path]) -> dict[str, str]:
    """What files hold, by their names, for settings that may not change."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def refuse_other(folder: Path, settings: Mapping[str, object]) -> None:
    """Refuse to go on in a folder with other settings than are written down there.

    Raises:
        OutputError: The folder holds runs of other settings, or these cannot be read.
    """
    path = folder / _SETTINGS
    if not path.is_file():
        return
    there = _read(path)
    differing = "; ".join(_differences({key: there.get(key) for key in settings}, settings))
    if differing:
        raise OutputError(f"{folder} holds runs of other settings: {differing}. Choose another folder, or remove it.")


def _read(path: Path) -> dict[str, object]:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise OutputError(
            f"{path} is cut or broken: nobody knows of what settings the runs beside it are. Choose another folder, or remove "
            f"{path.parent}."
        )
    return there


def keep(folder: Path, settings: Mapping[str, object], *, begun: bool = True) -> None:
    """Write settings down in a folder, or refuse to go on with others than are there.

    Args:
        folder: Of runs.
        settings: Of the runs.
        begun: Whether there are runs of the settings that are there; otherwise these are written over.

    Raises:
        OutputError: The folder holds runs of other settings, or cannot be written.
    """
    path = folder / _SETTINGS
    if begun and path.is_file():
        refuse_other(folder, settings)
    else:
        write_text(path, json.dumps(settings, indent=2) + "\n")


def _differences(there: Mapping[str, object], wanted: Mapping[str, object], of: str = "") -> Iterator[str]:
    """Each setting that differs, with both values."""
    for key in sorted({*there, *wanted}):
        before, now = there.get(key), wanted.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, f"{of}{key} ")
        elif before != now:
            yield f"{of}{key} was {_shown(before)}, is {_shown(now)}"


def _shown(value: object) -> str:
    return "nothing" if value is None or value in ([], {}) else json.dumps(value)


def overlay(kind: str, name: str) -> Path:
    """A file of `configs/<kind>`.

    Raises:
        WeightsError: It is not there.
    """
    path = CONFIGS / kind / f"{name}.json"
    if not path.is_file():
        raise WeightsError(
            f"There is no overlay {path}. Overlays lie in the repository and not in the package: install it from a checkout "
            "(pip install -e)."
        )
    return path


def bundle_command(
    what: str, bundle: Path, overlays: Sequence[Path], places: Mapping[str, str], arguments: Sequence[str]
) -> tuple[str, ...]:
    """The command that runs a bundle's `train.json` with overlays.

    Args:
        what: `training` or `evaluating`.
        bundle: Folder of the bundle.
        overlays: Configs laid over it.
        places: Values of the config's names.
        arguments: More arguments, which have the last word.
    """
    configs = [str(path) for path in (bundle / "configs" / "train.json", *overlays)]
    given = {"config_file": json.dumps(configs, ensure_ascii=False), "bundle_root": str(bundle), **places}
    flags = [part for key, value in given.items() for part in (f"--{key}", value)]
    return (sys.executable, "-m", "monai.bundle", "run", what, *flags, *arguments)


def said_of(name: str, made: Path) -> str:
    """What is said of a step before it: its name, and that nothing is done where what it makes is there."""
    return f"{name}, kept" if made.is_file() else name


def perform(step: Step, *, watch: Callable[[], None] | None = None, inherit: Sequence[int] = ()) -> None:
    """Run a command, unless what it makes is there. All that it prints goes to `log.txt` in its folder.

    A request to end is met like Ctrl-C, and ends the command too.

    Args:
        step: The command.
        watch: Called every second while it runs; what it raises ends the command.
        inherit: Open files that it holds too, such as a lock.

    Raises:
        TrainingError: It is a training that has come apart.
        WeightsError: It fails otherwise; the message says what the command stopped at, or what it printed last.
    """
    if step.made.is_file():
        return
    step.folder.mkdir(parents=True, exist_ok=True)
    log = step.folder / "log.txt"
    before = log.stat().st_size if log.is_file() else 0
    with log.open("a", encoding="utf-8") as stream:
        code = _exit_code(step.command, stream, watch or (lambda: None), inherit)
    if code != 0 or not step.written.is_file():
        lines = log.read_bytes()[before:].decode("utf-8", errors="replace").splitlines()
        kind, cause = _cause(lines)
        said = f": {cause}\nAll that it printed is in {log}." if cause else f". The end of {log}:\n" + "\n".join(lines[-_SHOWN:])
        failed = TrainingError if kind == TrainingError.__name__ else WeightsError
        raise failed(f"{step.name} ended with exit code {code}{said}")
    step.written.replace(step.made)


@contextmanager
def interruptible() -> Iterator[None]:
    """While this lasts, a request to end (SIGTERM) raises `KeyboardInterrupt`, so that no command that was begun outlives us.

    Only the main thread can meet signals; in another one nothing changes.
    """
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cause(lines: Sequence[str]) -> tuple[str, str]:
    """Kind, where it is one of ours, and words of the error that the last traceback begins with, which those after it were raised
    from; nothing where there is none.

    MONAI raises errors of its own from whatever goes wrong in a config.
    """
    begins = [
        at for at, line in enumerate(lines) if line == _TRACEBACK and not any(one in _CHAINED for one in lines[at - 2 : at])
    ]
    if not begins:
        return "", ""
    after = dropwhile(lambda line: line == _TRACEBACK or line.startswith(" "), lines[begins[-1] :])
    said = "\n".join(takewhile(lambda line: line and line not in _CHAINED, after))
    ours = f"{SpineError.__module__}."
    if not said.startswith(ours):
        return "", said
    kind, _, words = said.removeprefix(ours).partition(": ")
    return kind, words


def _exit_code(command: Sequence[str], stream: IO[str], watch: Callable[[], None], inherit: Sequence[int]) -> int:
    with interruptible(), subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, pass_fds=inherit) as process:
        try:
            while True:
                try:
                    return process.wait(timeout=_WATCH_S)
                except subprocess.TimeoutExpired:
                    watch()
        except BaseException:
            process.terminate()
            raise
