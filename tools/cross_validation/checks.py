"""What is asked of a cross-validation, checked before hours of training: whatever could be refused at its end is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from cross_validation.head import HeadPlan, refuse_unfit_heads
from cross_validation.runs import Plan, folds_of
from monai_spine.anatomy import Condition
from monai_spine.errors import AnatomyError, OutputError, TableError, WeightsError
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.suggestions import did_you_mean
from monai_spine.weights import find_bundle

__all__ = ["refuse_unfit", "refuse_unreadable", "true_labels"]


def refuse_unfit(plan: Plan, *, solution: Path | None = None, ship_to: Path | None = None, heads: HeadPlan | None = None) -> None:
    """Refuse a cross-validation that could not be ended. Nothing is written.

    Args:
        plan: What is to be run.
        solution: What is true; None: what the data lists say.
        ship_to: New folder of bundles.
        heads: Study heads that are to be added.

    Raises:
        TableError: A fold is not there or is named twice, an overlay cannot be read, or the solution lacks a study.
        WeightsError: A bundle grades nothing or is named twice.
        OutputError: The runs would mix with the prepared study, or the folder of bundles is there.
    """
    known = folds_of(plan.prepared)
    for fold in plan.folds:
        if fold not in known:
            hint = did_you_mean(fold, known)
            raise TableError(f"There is no fold {fold!r} in {plan.prepared}. {hint}Choose from: {', '.join(known)}.")
    for name in _twice(plan.folds):
        raise TableError(f"{name} is named twice: each fold is held out once. Name it once in --folds.")
    for name in _twice([bundle.name for bundle in plan.bundles]):
        raise WeightsError(f"{name} is named twice. Name it once in --bundles.")
    for bundle in plan.bundles:
        _refuse_no_grader(bundle)
    for overlay in (*plan.overlays, *plan.second):
        refuse_unreadable(overlay)
    if plan.output.resolve() in {folder.resolve() for folder in (plan.prepared, plan.test) if folder is not None}:
        raise OutputError(
            f"{plan.output} holds the prepared study, which the runs would mix with. Choose another folder with -o."
        )
    if ship_to is not None and ship_to.exists():
        raise OutputError(f"{ship_to} is there already. Choose another folder for the bundles with --ship, or remove it.")
    if heads is not None:
        refuse_unfit_heads(heads)
    if solution is not None:
        true_labels(solution, _predicted_cases(plan))


def true_labels(solution: Path, cases: Sequence[str]) -> dict[tuple[str, str], int]:
    """The label of each case and target (slug) as a solution has it; -1 where there is none.

    Raises:
        TableError: The solution cannot be read, or lacks a case.
    """
    true = read_solution(solution)
    absent = sorted(set(cases) - set(true["study"]))
    if absent:
        raise TableError(f"{solution} lacks {len(absent)} of {len(cases)} studies, such as {absent[0]}. Give the whole table.")
    return dict(zip(zip(true["study"], true["target"], strict=True), true["label"].astype(int), strict=True))


def _predicted_cases(plan: Plan) -> list[str]:
    """The cases that a fold or the test predicts."""
    tested = [] if plan.test is None else [case.case for case in read_datalist(plan.test).cases_of("test")]
    folds = [read_datalist(plan.prepared / "folds" / fold).cases_of("validation") for fold in plan.folds]
    return list(dict.fromkeys([*(case.case for cases in folds for case in cases), *tested]))


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _refuse_no_grader(bundle: Path) -> None:
    condition = find_bundle(bundle.name, bundle.parent).option("condition")
    try:
        Condition.parse(str(condition))
    except AnatomyError as error:
        raise WeightsError(
            f"{bundle.name} is no grader: its inference.json names no condition. Choose from: {', '.join(GRADERS.values())}."
        ) from error


def refuse_unreadable(overlay: Path) -> None:
    """Refuse a config that cannot be laid over another.

    Raises:
        TableError: It is not there, or cannot be read.
    """
    remedy = "Overlays lie in configs/training and beside it in the repository."
    if not overlay.is_file():
        raise TableError(f"There is no overlay {overlay}. {remedy}")
    try:
        ConfigParser.load_config_file(overlay)
    except Exception as error:  # JSON and YAML raise errors of many kinds for one cause
        raise TableError(f"The overlay {overlay} cannot be read ({error}). {remedy}") from error
