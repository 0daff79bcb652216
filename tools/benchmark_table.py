"""The table that `benchmark.py` writes."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from monai_spine.device import model_of

__all__ = ["Measure", "document", "machine"]

TRAINING_NOTES = Path(__file__).resolve().parent / "training_notes.md"
"""What the table cannot say: how training was measured, and what is open."""


@dataclass(frozen=True)
class Measure:
    """One line of the table: what was measured, its value and the value that it has to stay below, or to reach (None: for
    information)."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def cells(self) -> tuple[str, str, str]:
        target = "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}".strip()
        return self.name, f"{self.value:.2f} {self.unit}".strip(), target

    @property
    def missed(self) -> bool:
        return self.target is not None and (self.value < self.target if self.at_least else self.value > self.target)


def document(measures: list[Measure], about: str) -> str:
    """The table as Markdown, with the machine and how to measure again."""
    rows = "\n".join(f"| {name} | {value} | {target} |" for name, value, target in (measure.cells for measure in measures))
    return f"""# Performance

Written by `tools/benchmark.py`, in one run. The study is {about}. No GPU is used.

| what | measured | target |
|---|---:|---:|
{rows}

{machine()}.

Reading is measured with the files in the disk cache and counts the best of several runs; the rest is measured
once, levels alone and training several times.
Measure again:

    .venv/bin/python tools/benchmark.py --write docs/performance.md

{TRAINING_NOTES.read_text(encoding="utf-8")}"""


def machine() -> str:
    """Processor, cores, memory and versions, in one line."""
    import monai
    import pydicom
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    packages = (("Python", platform.python_version()), ("torch", torch.__version__), ("monai", monai.__version__))
    versions = ", ".join(f"{name} {version}" for name, version in (*packages, ("pydicom", pydicom.__version__)))
    return f"Machine: {model_of('cpu')}, {os.cpu_count()} cores, {memory:.0f} GB; {versions}"
