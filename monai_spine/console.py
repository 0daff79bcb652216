"""What the command line says while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from monai_spine.batch import BatchOutcome, BatchProgress
    from monai_spine.studies.rsna2024_tables import SetAsideStudy

__all__ = [
    "Reporter",
    "counted",
    "counted_reporter",
    "print_outcome",
    "progress_reporter",
    "renewed_lines",
    "set_aside_lines",
    "show_run",
]

SHOWN_FAILURES = 10


class Reporter(Protocol):
    """Takes what a run has to say."""

    def step(self, fraction: float, message: str) -> None:
        """What is being done now, and the share of the whole run (0 to 1) that is behind it."""

    def keep(self, message: str) -> None:
        """Let the last step's message stay on the screen."""


class _Quiet:
    """Says nothing."""

    def step(self, fraction: float, message: str) -> None:
        pass

    def keep(self, message: str) -> None:
        pass


class _Plain:
    """Lines on standard error; of the steps each new message once."""

    def __init__(self) -> None:
        self._last = ""

    def step(self, fraction: float, message: str) -> None:
        if message != self._last:
            self._last = message
            print(f"[{fraction:4.0%}] {message}", file=sys.stderr, flush=True)

    def keep(self, message: str) -> None:
        pass


@contextmanager
def progress_reporter(*, quiet: bool = False) -> Iterator[Reporter]:
    """A reporter that fits standard error: none if quiet, a bar on a terminal, otherwise plain lines."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty():
        with _bar() as reporter:
            yield reporter
    else:
        yield _Plain()


@contextmanager
def _bar() -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    percent, what = TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}")
    columns = (BarColumn(bar_width=30), percent, TimeElapsedColumn(), what)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0)

        class _Bar:
            def step(self, fraction: float, message: str) -> None:
                progress.update(task, completed=fraction, description=message)

            def keep(self, message: str) -> None:
                progress.console.print(message, markup=False, highlight=False)

        yield _Bar()


@contextmanager
def counted_reporter(total: int, noun: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` things."""
    with progress_reporter(quiet=quiet) as reporter:
        numbers = count(1)

        def one_more() -> None:
            number = next(numbers)
            reporter.step(number / total, f"{number} of {total} {noun}")

        yield one_more


def show_run(steps: Iterable[BatchProgress | BatchOutcome], *, quiet: bool = False) -> BatchOutcome:
    """Follow a run to its end; a failure stays on the screen."""
    from monai_spine.batch import BatchOutcome

    with progress_reporter(quiet=quiet) as reporter:
        for step in steps:
            if isinstance(step, BatchOutcome):
                return step
            message = f"{step.study}: {step.message}"
            reporter.step(step.fraction, message)
            if step.done:
                reporter.keep(message)
    raise RuntimeError("The run ended without an outcome.")


def print_outcome(outcome: BatchOutcome, *, quiet: bool = False, debug: bool = False) -> None:
    """What was finished, what failed and why, and where the results lie."""
    for failure in outcome.failures[:SHOWN_FAILURES]:
        if debug:
            print(failure.traceback, file=sys.stderr)
        named = failure.source in failure.message
        print(f"Error: {failure.message if named else f'{failure.source}: {failure.message}'}", file=sys.stderr)
    if len(outcome.failures) > SHOWN_FAILURES:
        print(f"… and {len(outcome.failures) - SHOWN_FAILURES} more, see failures.csv", file=sys.stderr)
    if outcome.wrote_tables and not quiet:
        were = "was" if len(outcome.skipped) == 1 else "were"
        skipped = f", {len(outcome.skipped)} {were} there already" if outcome.skipped else ""
        failed = f", {len(outcome.failures)} failed" if outcome.failures else ""
        if outcome.note:
            print(outcome.note)
        print(f"{counted(len(outcome.finished))} analysed{failed}{skipped}: {outcome.root / 'index.html'}")


def set_aside_lines(set_aside: Sequence[SetAsideStudy]) -> list[str]:
    """Why studies were set aside, one line each; of many the first."""
    lines = [f"Set aside: {one.study}: {one.reason}" for one in set_aside[:SHOWN_FAILURES]]
    more = len(set_aside) - SHOWN_FAILURES
    return [*lines, f"… and {more} more, see set_aside.csv"] if more > 0 else lines


def renewed_lines(renewed: Mapping[int, str]) -> list[str]:
    """Which studies of an earlier run were written anew, and why; of many the first."""
    lines = [f"Written anew: {study}: {why}" for study, why in renewed.items()]
    return [*lines[:SHOWN_FAILURES], f"… and {len(lines) - SHOWN_FAILURES} more"] if len(lines) > SHOWN_FAILURES else lines


def counted(number: int) -> str:
    """`1 study`, `2 studies`."""
    return f"{number} study" if number == 1 else f"{number} studies"
