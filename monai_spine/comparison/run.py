"""Measure, train and test all contenders; what is finished stays, what was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

from monai_spine.comparison.built import built, cause_of
from monai_spine.comparison.contenders import Contender
from monai_spine.comparison.cost import Cost, cost_of
from monai_spine.comparison.plan import Plan, Run, begun, parsed_config, refuse_other_runs, steps_of, write_down
from monai_spine.console import Reporter
from monai_spine.degeneration import DEGENERATION
from monai_spine.errors import ArchitectureError, SpineError, TableError, TrainingError
from monai_spine.training.bundle_runs import Step, perform, said_of
from monai_spine.whole_files import write_text

__all__ = ["measure_all", "train_all"]


def measure_all(
    plan: Plan, reporter: Reporter, *, leave_out: bool = False
) -> tuple[Plan, dict[tuple[str, str], Cost], list[str]]:
    """Build and measure all networks, then write down what is compared.

    Nothing is written down before: a network that does not fit stops nothing later, and the command can be corrected for the same
    folder.

    Args:
        plan: What is compared.
        reporter: Told of each step.
        leave_out: A contender that does not fit its crops is left out; otherwise it is an error.

    Returns:
        The plan without those that were left out, what each network costs by the names of bundle and contender, and why the
        others were left out.

    Raises:
        ArchitectureError: A contender does not fit, or none does.
        OutputError: The folder holds runs of other settings.
        TableError: The study cannot be used.
        WeightsError: The crop section makes no crop.
    """
    refuse_other_runs(plan)
    costs: dict[tuple[str, str], Cost] = {}
    reasons: dict[Contender, str] = {}
    for contender in plan.contenders:
        reporter.step(0.0, f"{contender.label}: measuring")
        try:
            costs |= {(bundle.name, contender.label): _measured(plan, bundle, contender) for bundle in plan.bundles}
        except ArchitectureError as error:
            if not leave_out:
                raise
            reasons[contender] = str(error)
    fitting = tuple(contender for contender in plan.contenders if contender not in reasons)
    if not fitting:
        raise ArchitectureError(next(iter(reasons.values())))
    plan = replace(plan, contenders=fitting)
    write_down(plan)
    for bundle, contender in product(plan.bundles, plan.contenders):
        write_text(_cost_path(plan, bundle, contender), json.dumps(asdict(costs[bundle.name, contender.label])) + "\n")
    return plan, costs, list(reasons.values())


def train_all(plan: Plan, reporter: Reporter, *, inherit: Sequence[int] = ()) -> tuple[Plan, list[str]]:
    """Make the runs of a plan that are not finished.

    Args:
        plan: As `measure_all` wrote it down.
        reporter: Told of each step.
        inherit: Open files that the trainings hold too, as `at_work.alone_in` gives them.

    Returns:
        The plan without contenders of which a training has come apart, and why each is left out.

    Raises:
        TrainingError: All have.
        WeightsError: A training fails otherwise.
    """
    steps = [(run, step) for run in plan.runs() for step in steps_of(run)]
    apart: dict[Contender, TrainingError] = {}
    for number, (run, step) in enumerate(steps):
        if run.contender in apart:
            continue
        share, counted = number / len(steps), f"({number + 1} of {len(steps)})"
        said = said_of(step.name, step.made)
        try:
            perform(step, watch=partial(_say, reporter, run, step, share, counted), inherit=inherit)
        except TrainingError as error:
            apart[run.contender] = error
            said = f"{run.contender.label} is left out: {error}"
        reporter.step((number + 1) / len(steps), f"{said} {counted}")
        (run.folder / "last.pt").unlink(missing_ok=True)
    left = tuple(contender for contender in plan.contenders if contender not in apart)
    if not left:
        raise next(iter(apart.values()))
    return replace(plan, contenders=left), [" ".join(str(error).split()) for error in apart.values()]


def _say(reporter: Reporter, run: Run, step: Step, share: float, counted: str) -> None:
    """What is being done, with the number of the epoch that is done."""
    epochs = max(0, len(run.epochs.read_text(encoding="utf-8").splitlines()) - 1) if run.epochs.is_file() else 0
    reporter.step(share, f"{step.name}{f', {epochs} epochs done' if step.made == run.weights else ''} {counted}")


def _measured(plan: Plan, bundle: Path, contender: Contender) -> Cost:
    if begun(plan.runs_of(bundle, contender)):  # otherwise it may have been of other settings
        with suppress(FileNotFoundError, TypeError, ValueError):
            return Cost(**json.loads(_cost_path(plan, bundle, contender).read_text(encoding="utf-8")))
    try:
        return _measured_now(plan, bundle, contender)
    except SpineError:
        raise
    except Exception as error:  # whatever a network makes of settings that are none
        if not plan.settings:
            raise
        given = ", ".join(f"{name}={value}" for name, value in plan.settings.items())
        raise ArchitectureError(
            f"{contender.label} cannot be built with {given}: {cause_of(error)}. Correct these settings."
        ) from error


def _measured_now(plan: Plan, bundle: Path, contender: Contender) -> Cost:
    parser = parsed_config(plan, bundle, contender)
    shape: Sequence[int] = parser.get_parsed_content("crop")["shape"]
    network = built(parser, "network_def")
    parser["validate#data"] = []
    with suppress(TableError):  # that there is nothing; the crop section is read before
        built(parser, "validate#dataset")
    shape = shape[1:] if bundle.name == DEGENERATION else shape
    return cost_of(network, (1, *shape), device=parser.get_parsed_content("device"))


def _cost_path(plan: Plan, bundle: Path, contender: Contender) -> Path:
    return plan.runs_of(bundle, contender) / "cost.json"
