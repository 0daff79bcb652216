"""What a search may choose: names of the configs' values, each with its choices or its limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from optuna.trial import Trial

from monai_spine.errors import TableError
from monai_spine.training.given_names import given_to_run, unknown_names

__all__ = ["Space", "read_space", "refuse_unfit_space", "suggested"]

Space = Mapping[str, Any]


def read_space(path: Path) -> Space:
    """Read what is searched.

    Raises:
        TableError: The file cannot be read or names nothing, or an entry is neither a list of choices nor has it limits.
    """
    try:
        space = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read ({error}). Give a JSON file with --space.") from error
    if not isinstance(space, dict) or not space:
        raise TableError(
            f"{path} names nothing to search. Write a JSON object of names with their choices or limits, such as "
            '{"dropout": [0.2, 0.5], "learning_rate": {"low": 1e-5, "high": 1e-3, "log": true}}.'
        )
    for name, values in space.items():
        if not (_are_limits(values) or _are_choices(values)):
            raise TableError(
                f"{path}: {name} must be a list of numbers or words, or have low < high and perhaps log (true needs low > 0), "
                f"got {json.dumps(values)}."
            )
    return space


def refuse_unfit_space(space: Space, config: ConfigParser, arguments: Sequence[str] = ()) -> None:
    """Refuse to search what the configs do not know, what is given to all trainings, or fractions of what has none.

    Args:
        space: What is searched.
        config: The configs of a training, read; changed by this.
        arguments: What each training is given besides.

    Raises:
        TableError: There is such a name; the message has all of them.
    """
    given = given_to_run(["run", "training", *arguments])[1]
    problems = [f"--{name} is searched and stands after -- too: leave it out in one place." for name in space if name in given]
    problems += [
        f"{name} is {json.dumps(config[name])} in the configs, so that it takes no fractions: list its choices."
        for name, values in space.items()
        if isinstance(values, dict) and name in config and not _takes_fractions(config[name])
    ]
    samples = {name: values[0] if isinstance(values, list) else values["low"] for name, values in space.items()}
    problems += unknown_names(config, samples)
    if problems:
        raise TableError("\n".join([*problems, "Nothing was searched. What is searched stands in the file of --space."]))


def suggested(trial: Trial, space: Space) -> dict[str, Any]:
    """The values of a trial."""
    return {
        name: trial.suggest_categorical(name, values) if isinstance(values, list) else trial.suggest_float(name, **values)
        for name, values in space.items()
    }


def _are_choices(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(one is None or isinstance(one, (str, int, float)) for one in values)


def _are_limits(values: Any) -> bool:
    """Whether these are two finite numbers in their order, for a logarithm both above zero."""
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        return False
    low, high, log = values["low"], values["high"], values.get("log", False)
    if not isinstance(log, bool) or not all(type(one) in (int, float) and math.isfinite(one) for one in (low, high)):
        return False
    return bool(low < high and (low > 0 or not log))


def _takes_fractions(own: Any) -> bool:
    """Whether the configs' own value is one that a fraction can take the place of, or an expression that gives one."""
    return own is None or isinstance(own, float) or (isinstance(own, str) and own.startswith(("$", "@")))
