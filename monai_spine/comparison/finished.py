"""What finished runs left behind: read if it is whole, otherwise named with what to remove."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd

from monai_spine.comparison.answers import Answers, read_answers
from monai_spine.comparison.built import built
from monai_spine.comparison.plan import Plan, Run, testing_config
from monai_spine.comparison.questions import QUESTIONS
from monai_spine.errors import TableError, WeightsError

__all__ = ["answers_of", "epochs_of"]


def answers_of(plan: Plan) -> Iterator[tuple[Run, dict[str, Answers]]]:
    """What each run says of every target of its test, by the question's name.

    Raises:
        TableError: Answers are cut or broken.
        WeightsError: A run is not finished.
    """
    whole = set()  # reading a data list takes long: runs of one fold with answers to the same are held against it once
    for run in plan.runs():
        if not run.answers.is_file():
            raise WeightsError(f"{run.name} is not finished: there is no {run.answers}. Go on with the comparison first.")
        said = read_answers(run.answers, QUESTIONS[run.bundle.name])
        given = frozenset(place for one in said.values() for place in zip(one.case, one.target, strict=True))
        if (run.bundle, run.fold, given) not in whole:
            _refuse_cut(run, given)
            whole.add((run.bundle, run.fold, given))
        yield run, said


def _refuse_cut(run: Run, given: Collection[tuple[str, str]]) -> None:
    lacking = _lacking(run, given)
    if lacking:
        first = lacking[0]
        raise TableError(
            f"{run.answers} is cut: it lacks {len(lacking)} targets of the test, such as {first['target']} of case "
            f"{first['case']}. Remove it and run the comparison again."
        )


def _lacking(run: Run, given: Collection[tuple[str, str]]) -> Sequence[Mapping[str, Any]]:
    """The test's targets without an answer. Only where there are some are crops cut, as those outside their scans get none."""
    config = testing_config(run.plan, run.bundle, run.contender, run.plan.fold(run.fold))
    absent = [item for item in built(config, "validate#data") if (item["case"], item["target"]) not in given]
    config["validate#data"] = absent
    try:
        return list(built(config, "validate#dataset").items) if absent else []
    except TableError:  # none of them is asked
        return []


def epochs_of(run: Run) -> pd.DataFrame:
    """A run's table of epochs, as `EpochRecord` writes it.

    Raises:
        TableError: It is missing, cut or broken.
    """
    try:
        text = run.epochs.read_text(encoding="utf-8")
        table = pd.read_csv(StringIO(text), dtype=float)
        whole = text.endswith("\n") and len(table) > 0 and {"epoch", "seconds", "mean_train_loss"} <= set(table)
    except (FileNotFoundError, ValueError):
        whole = False
    if not whole:
        raise TableError(
            f"{run.epochs} is missing, cut or broken. Remove the folder {run.folder} and run the comparison again, which trains "
            "this run anew."
        )
    return table
