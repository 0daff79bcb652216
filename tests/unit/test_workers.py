"""Processes that work side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import monai_spine.cli
from monai_spine.workers import _children_without_interrupts

ASK = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"


def _child_hears_no_interrupts() -> bool:
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_a_process_that_is_started_hears_no_interrupt_from_its_first_moment_and_the_parent_does() -> None:
    with _children_without_interrupts():
        assert _child_hears_no_interrupts()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not _child_hears_no_interrupts()


def test_an_interrupt_that_comes_meanwhile_is_not_lost() -> None:
    def press() -> None:
        with _children_without_interrupts():
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_request_to_end_is_met_like_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(monai_spine.cli, "app", lambda: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            monai_spine.cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    lines = (
        "import functools, sys, test_workers",
        "from monai_spine.workers import in_processes",
        "if __name__ == '__main__':",
        "    work = functools.partial(test_workers.beat, sys.argv[1])",
        "    list(in_processes(work, [1, 2], jobs=2, with_torch=False))",
    )
    (tmp_path / "run.py").write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(tmp_path)], env=environment)
    beats = [tmp_path / "1", tmp_path / "2"]
    wait_until(lambda: all(path.exists() for path in beats))
    parent.kill()
    parent.wait()
    wait_until(lambda: unchanged(beats))


def beat(folder: str, number: int) -> None:
    """Show for a minute that this process is alive."""
    for count in range(600):
        (Path(folder) / str(number)).write_text(str(count))
        time.sleep(0.1)


def unchanged(paths: list[Path]) -> bool:
    before = [path.read_text() for path in paths]
    time.sleep(1)
    return [path.read_text() for path in paths] == before


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
