"""`monai-spine compare`. Nothing heavy is imported up front."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_spine.cli_options import Bundles, Debug, Output, Quiet, UsageError

if TYPE_CHECKING:
    from monai_spine.comparison.plan import Plan

__all__ = ["compare"]

_CANAL = "spinal_canal_stenosis_grading"


def compare(
    study: Annotated[Path, typer.Option(help="Folder of a prepared study.")],
    output: Output,
    architectures: Annotated[
        str | None, typer.Option("--architectures", help="Names joined by commas; own: the bundle's; all: it and every one.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Task, architectures and split of configs/experiments, e.g. document_000.")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help=f"Bundles joined by commas. Default: {_CANAL}.")] = None,
    dims: Annotated[
        str | None, typer.Option(help="3: volumes, 2: slices, 2,3: both. Default: 3; of an experiment, and of pictures, 2.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Parts of the patients; 1: one split. Default: 5; of an experiment 1.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold.")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training. Default: as the configs say.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value of the configs, for all. Repeatable.")
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(metavar="CASE[:TARGET]", help="Show where all look in this case: Grad-CAM, maps, filters. Repeatable."),
    ] = None,
    bundles: Bundles = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train architectures under one budget on one split, and write one table with its pictures. Goes on where it was stopped."""
    from monai_spine.comparison.budget import wrong_settings
    from monai_spine.comparison.contenders import ALL

    if experiment is None and architectures is None:
        raise UsageError("Nothing to compare: give --architectures all, some names joined by commas, or --experiment.")
    if study.resolve() == output.resolve():
        raise UsageError(f"{output} is the study: what is written would lie among its data lists. Choose another --output.")
    budget = {**({} if epochs is None else {"epochs": epochs}), **dict(_setting(one) for one in settings or ())}
    names = None if architectures is None else [name.strip().lower() for name in architectures.split(",")]
    plan = _plan(
        study,
        output,
        experiment=experiment,
        names=names,
        bundle=bundle,
        dims=dims,
        folds=folds,
        seeds=seeds,
        budget=budget,
        folder=bundles,
    )
    if problems := wrong_settings(plan):
        raise UsageError("\n".join(problems))
    page = _compared(plan, explain or (), leave_out=names is not None and ALL in names, quiet=quiet)
    if not quiet:
        typer.echo(page.with_suffix(".md").read_text(encoding="utf-8"))
        typer.echo(page)


def _compared(plan: Plan, explain: Sequence[str], *, leave_out: bool, quiet: bool) -> Path:
    """Train what is not trained yet, and write the page."""
    from monai_spine.comparison.at_work import alone_in
    from monai_spine.comparison.explained import choose_case, explain_case
    from monai_spine.comparison.report import write_comparison
    from monai_spine.comparison.run import measure_all, train_all
    from monai_spine.console import progress_reporter

    with alone_in(plan.output) as held, progress_reporter(quiet=quiet) as reporter:
        plan, costs, left_out = measure_all(plan, reporter, leave_out=leave_out)
        chosen = [choose_case(plan, text) for text in explain]
        plan, apart = train_all(plan, reporter, inherit=held)
        left_out += apart
        reporter.step(1.0, "writing the report")
        page = write_comparison(plan, costs, left_out=left_out)
        sheets: dict[Path, str] = {}
        for one in chosen:
            reporter.step(1.0, f"explaining {one.case}")
            sheets |= explain_case(plan, one, plan.output / "explained")
        return write_comparison(plan, costs, left_out=left_out, explained=sheets) if sheets else page


def _plan(
    study: Path,
    output: Path,
    *,
    experiment: str | None,
    names: list[str] | None,
    bundle: str | None,
    dims: str | None,
    folds: int | None,
    seeds: int,
    budget: dict[str, Any],
    folder: Path | None,
) -> Plan:
    from monai_spine.comparison.contenders import contenders_of
    from monai_spine.comparison.experiments import find_experiment
    from monai_spine.comparison.plan import Plan
    from monai_spine.comparison.questions import questions_of
    from monai_spine.degeneration import DEGENERATION
    from monai_spine.weights import find_bundle

    found = None if experiment is None else find_experiment(experiment)
    wanted = (bundle or (found.bundle if found else _CANAL)).split(",")
    for name in wanted:
        questions_of(name)
    if DEGENERATION in wanted and found is not None:
        raise UsageError(f"{found.name} asks about stenosis, {DEGENERATION} about discs. Choose another --bundle.")
    if DEGENERATION in wanted and dims not in (None, "2"):
        raise UsageError(f"Crops of {DEGENERATION} are pictures: give no --dims but 2.")
    plan = Plan(
        study=study,
        output=output,
        bundles=tuple(find_bundle(name, folder).root for name in wanted),
        contenders=contenders_of(
            names or list(found.architectures if found else ()),
            _whole_numbers(dims or ("2" if found else "3")),
            bundles=wanted,
            settings=found.architectures if found else None,
        ),
        folds=folds or (1 if found else 5),
        seeds=tuple(range(seeds)),
        settings=budget,
    )
    if found is None:
        return plan
    return replace(plan, shares=found.shares, overlays=(found.path,), questions=found.questions)


def _setting(text: str) -> tuple[str, Any]:
    """`learning_rate=0.001` as a name and a value."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise UsageError(f"{text!r} sets nothing. Write --set KEY=VALUE, such as --set batch_size=16.")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--dims takes 2, 3 or 2,3, got {text!r}.") from error
