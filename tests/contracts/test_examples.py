"""Each example in a docstring can be pasted where its module's public names are imported, and answers as it says."""

from __future__ import annotations

from doctest import ELLIPSIS, DocTestFinder, DocTestRunner
from importlib import import_module
from inspect import getsource
from pathlib import Path
from types import ModuleType

import pytest

import monai_spine

ROOT = Path(monai_spine.__file__).parents[1]
SHOWN = [path for path in sorted((ROOT / "monai_spine").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
MODULES = [import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in SHOWN]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_an_example_can_be_pasted_and_answers_as_it_says(module: ModuleType) -> None:
    found = DocTestFinder().find(module, globs={name: getattr(module, name) for name in module.__all__})
    assert sum(len(part.examples) for part in found) == getsource(module).count(">>> ")
    runner, said = DocTestRunner(optionflags=ELLIPSIS), list[str]()
    assert sum(runner.run(part, out=said.append).failed for part in found) == 0, "".join(said)
