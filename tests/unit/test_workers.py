"""Processes that work side by side."""

from __future__ import annotations

import signal
import subprocess
import sys

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
