"""The names that a command gives to a bundle's configs: one that they do not know is refused before anything is trained.

MONAI takes every `--name value` into the config. One that nothing there refers to changes nothing, and nobody is told.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver, run

from monai_spine.suggestions import did_you_mean

__all__ = ["given_to_run", "refuse_unknown_names", "unknown_names"]

_READERS_REFUSE = ("jitter",)
"""Sections that need not name all that their reader knows; it refuses the rest."""


def refuse_unknown_names() -> None:
    """End a `python -m monai.bundle run` that was given a name which its configs do not know, with exit code 2 and the nearest.

    What stands first in `initialize`. In another program nothing is checked.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name != "monai.bundle.__main__":
        return
    files, given = given_to_run(sys.argv[1:])
    config = ConfigParser()
    config.read_config(files)
    problems = unknown_names(config, given)
    if problems:
        print("\n".join([*problems, f"Nothing was run. The names stand in {files}."]), file=sys.stderr)
        raise SystemExit(2)


def given_to_run(arguments: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """What stands on the command line of `monai.bundle`, or in its `args_file`: the config files, and the values by their names.

    Args:
        arguments: As in `sys.argv[1:]`, with `run` first.
    """
    from fire import Fire  # only MONAI's command line needs it, and has it

    given: dict[str, Any] = {}
    Fire({"run": lambda *_, **named: given.update(named)}, command=list(arguments))
    given = {**ConfigParser.load_config_files(given.get("args_file", {})), **given}
    own = inspect.signature(run).parameters
    return given.get("config_file"), {name: value for name, value in given.items() if name not in own}


def unknown_names(config: ConfigParser, given: Mapping[str, Any]) -> list[str]:
    """A sentence for each name that is neither in the configs nor referred to, with the nearest that is there.

    What a component (`_target_`) is given beside what its config names, it refuses itself where it does not know it.

    Args:
        config: The config files, read.
        given: Values by their names, such as `crop#size_mm`; the config is changed by them.
    """
    absent = {name: _section(config, name) for name in given if name not in config}
    config.update(given)
    referred = set(_references(config.get()))
    return [
        f"--{name} would change nothing: the configs know no such name. {did_you_mean(name, names)}".rstrip()
        for name, names in absent.items()
        if names is not None and ReferenceResolver.normalize_id(name) not in referred
    ]


def _section(config: ConfigParser, name: str) -> list[str] | None:
    """The names beside one that is not there; None where others refuse it: a component, or who reads the section."""
    parent, _ = ReferenceResolver.split_id(name, last=True)
    section = config.get(parent)
    if ConfigComponent.is_instantiable(section) or parent in _READERS_REFUSE:
        return None
    before = f"{parent}#" if parent else ""
    return [f"{before}{key}" for key in section] if isinstance(section, dict) else []


def _references(value: Any) -> Iterator[str]:
    """Every id that a config refers to."""
    if isinstance(value, str):
        yield from ReferenceResolver.match_refs_pattern(value)
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _references(one)
