"""What a comparison says: tables as CSV, Markdown and HTML, pictures, and the same for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from monai_spine.comparison.answers import Answers
from monai_spine.comparison.cost import Cost
from monai_spine.comparison.finished import answers_of, epochs_of
from monai_spine.comparison.pictures import confusions, costs, learning_curves, reliabilities, save_figure
from monai_spine.comparison.plan import Plan
from monai_spine.comparison.questions import QUESTIONS, SEVERITY, Question, questions_of
from monai_spine.comparison.scores import COSTS, FIGURES, official_score_of, scores_of
from monai_spine.comparison.table import TESTED, Cell, cells, markdown, mean_and_deviation, paired_tests
from monai_spine.models import GRADERS
from monai_spine.report.html import template_environment
from monai_spine.result import RESEARCH_NOTICE
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.table_output import write_rows
from monai_spine.whole_files import write_text

__all__ = ["ALL_CONDITIONS", "NOTES", "Section", "write_comparison"]

ALL_CONDITIONS = "all conditions"
"""In the place of a bundle's name: the three graders' answers together."""
_TESTED = [figure.title for figure in FIGURES if figure.key in TESTED]
NOTES = (
    "Mean ± standard deviation (n − 1) over folds, seeds of a fold averaged first. Bold: the best of a column. †: differs from "
    "the best, p < 0.05, by a paired t test corrected for the overlap of training sets (Nadeau and Bengio) and for the number of "
    f"pairs (Holm); all pairs are in tests.csv. Only these columns are tested: {'; '.join(_TESTED)}. "
    "Studies of the test have no say in training: the weights are those of the epoch that was best in validation."
)


@dataclass(frozen=True)
class Section:
    """One question of one bundle, ready to be shown.

    Attributes:
        title: `spinal_canal_stenosis_grading: severity`.
        figures: Titles and meanings of the columns.
        names: Of the rows.
        rows: Cells by column.
        pictures: Files and captions.
        text: The same table in Markdown.
    """

    title: str
    figures: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pictures: tuple[tuple[str, str], ...]
    text: tuple[str, ...]


Found = dict[tuple[str, str], dict[str, dict[tuple[int, int], Answers]]]
"""Answers by bundle and question, contender, fold and seed."""


def write_comparison(
    plan: Plan,
    measured: Mapping[tuple[str, str], Cost],
    *,
    left_out: Sequence[str] = (),
    explained: Mapping[Path, str] | None = None,
) -> Path:
    """Write everything that the runs of a plan say. All of them have to be finished.

    Args:
        plan: What was run.
        measured: What each network costs, by the names of bundle and contender; others may be among them.
        left_out: Why contenders are missing.
        explained: Sheets of `explain_case` with their captions.

    Returns:
        The page.

    Raises:
        OutputError: Something cannot be written.
        TableError: Answers or epochs of a run are cut or broken.
        WeightsError: A run is not finished.
    """
    found = _answers(plan)
    runs = _runs(plan, found, measured)
    tests = paired_tests(runs, test_to_training=plan.test_to_training)
    means = mean_and_deviation(runs, (*FIGURES, *COSTS))
    for name, table in {"runs": runs, "comparison": means, "tests": tests}.items():
        write_rows(plan.output / f"{name}.csv", list(table.columns), table.itertuples(index=False))
    figures = _figures(plan, found, means)
    for name, (figure, _) in figures.items():
        save_figure(figure, plan.output / f"{name}.png")
    sections = [_section(place, means, tests, {name: caption for name, (_, caption) in figures.items()}) for place in found]
    facts = _facts(plan, measured, left_out)
    sheets = [(str(path.relative_to(plan.output)), caption) for path, caption in (explained or {}).items()]
    write_text(plan.output / "comparison.md", _markdown(facts, sections, sheets))
    page = template_environment().get_template("comparison.html")
    write_text(
        plan.output / "comparison.html",
        page.render(facts=facts, sections=sections, notes=NOTES, research_notice=RESEARCH_NOTICE, sheets=sheets),
    )
    _write_events(plan, means, figures)
    return plan.output / "comparison.html"


def _answers(plan: Plan) -> Found:
    found: Found = {}
    for run, said in answers_of(plan):
        for question in questions_of(run.bundle.name, plan.questions):
            place = found.setdefault((run.bundle.name, question.name), {})
            place.setdefault(run.contender.label, {})[run.fold, run.seed] = said[question.name]
    graders = [(bundle, SEVERITY.name) for bundle in GRADERS.values()]
    if set(graders) <= set(found):
        first, *others = (found[place] for place in graders)
        found[ALL_CONDITIONS, SEVERITY.name] = {
            label: {at: one.and_also([other[label][at] for other in others]) for at, one in of.items()}
            for label, of in first.items()
        }
    return found


def _runs(plan: Plan, found: Found, measured: Mapping[tuple[str, str], Cost]) -> pd.DataFrame:
    """One row per run and question, as `table.mean_and_deviation` takes it."""
    seconds = {
        (run.bundle.name, run.contender.label, run.fold, run.seed): float(epochs_of(run)["seconds"].median())
        for run in plan.runs()
    }
    rows = []
    for (bundle, question), contenders in found.items():
        for label, of in contenders.items():
            cost = measured.get((bundle, label))
            for (fold, seed), answers in of.items():
                row = {"bundle": bundle, "question": question, "contender": label, "fold": fold, "seed": seed}
                row |= scores_of(answers, _question(bundle, question))
                if bundle == ALL_CONDITIONS:
                    row["official_score"] = official_score_of([answers])
                if cost is not None:
                    row |= {"parameters": cost.parameters, "flops": cost.flops, "inference_ms": cost.inference_ms}
                    row["seconds_per_epoch"] = seconds[bundle, label, fold, seed]
                rows.append(row)
    return pd.DataFrame(rows)


def _question(bundle: str, name: str) -> Question:
    return next((one for one in QUESTIONS.get(bundle, ()) if one.name == name), SEVERITY)


def _figures(plan: Plan, found: Found, means: pd.DataFrame) -> dict[str, tuple[Figure, str]]:
    """Pictures with their captions, by the names of their files."""
    made: dict[str, tuple[Figure, str]] = {}
    for (bundle, question), contenders in found.items():
        name = f"{bundle}_{question}".replace(" ", "_")
        joined = {label: next(iter(of.values())).and_also(list(of.values())[1:]) for label, of in contenders.items()}
        made[f"confusion_{name}"] = (
            confusions(joined, _question(bundle, question)),
            "Rows are true, columns called; all folds; the darker, the larger the share of the row.",
        )
        made[f"reliability_{name}"] = (
            reliabilities(joined),
            "On the grey line, probabilities are what they say. All folds together: the error is less than their mean.",
        )
        part = means[(means["bundle"] == bundle) & (means["question"] == question)]
        if bundle != ALL_CONDITIONS:
            made[f"cost_{name}"] = costs(part, "accuracy", "accuracy"), "The larger a dot, the more weights; bars are one SD."
    for root in plan.bundles:
        tables: dict[str, list[pd.DataFrame]] = {}
        for run in plan.runs():
            if run.bundle == root:
                tables.setdefault(run.contender.label, []).append(epochs_of(run))
        metric = "validation_log_loss" if "validation_log_loss" in next(iter(tables.values()))[0] else "validation_loss"
        caption = "One line per fold and seed; what leaves the picture lies far above."
        made[f"learning_{root.name}"] = learning_curves(tables, metric), caption
    return made


def _section(place: tuple[str, str], means: pd.DataFrame, tests: pd.DataFrame, captions: Mapping[str, str]) -> Section:
    bundle, question = place
    part = means[(means["bundle"] == bundle) & (means["question"] == question)]
    figures, rows = cells(part, tests[(tests["bundle"] == bundle) & (tests["question"] == question)])
    name, names = f"{bundle}_{question}".replace(" ", "_"), tuple(part["contender"])
    wanted = [f"cost_{name}", f"confusion_{name}", f"reliability_{name}", f"learning_{bundle}"]
    return Section(
        title=f"{bundle}: {question}",
        figures=tuple((figure.title, figure.meaning) for figure in figures),
        names=names,
        rows=tuple(tuple(row.values()) for row in rows),
        pictures=tuple((f"{picture}.png", captions[picture]) for picture in wanted if picture in captions),
        text=tuple(markdown(names, figures, rows)),
    )


def _facts(plan: Plan, measured: Mapping[tuple[str, str], Cost], left_out: Sequence[str]) -> tuple[str, ...]:
    """What was compared on what, and how."""
    datalist = read_datalist(plan.study)
    counts = ", ".join(f"{len(cases)} for {split}" for split, cases in read_datalist(plan.fold(0)).splits.items())
    labels = {contender.label for contender in plan.contenders}
    split = f"{plan.folds} folds by patient" if plan.folds > 1 else "one split by patient"
    return (
        f"Study {datalist.study} ({datalist.source} images), {split}, {len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}; "
        f"studies of the first fold: {counts}.",
        f"Budget: {', '.join(f'{key} {value}' for key, value in plan.settings.items()) or 'that of the configs'}.",
        *_measured_on({place: cost for place, cost in measured.items() if place[1] in labels}),
        *(f"Left out: {reason}" for reason in left_out),
    )


def _measured_on(measured: Mapping[tuple[str, str], Cost]) -> list[str]:
    """What inference was measured on; where that differs, with those whose it is."""
    bundles = {bundle for bundle, _ in measured}
    of: dict[str, list[str]] = {}
    for (bundle, label), cost in measured.items():
        of.setdefault(cost.measured_on, []).append(label if len(bundles) == 1 else f"{label} ({bundle})")
    if len(of) == 1:
        return [f"Inference was measured on: {next(iter(of))}."]
    return [f"Inference of {', '.join(names)} was measured on: {where}." for where, names in of.items()]


def _markdown(facts: Sequence[str], sections: Sequence[Section], sheets: Sequence[tuple[str, str]]) -> str:
    lines = ["# Comparison", "", RESEARCH_NOTICE, "", *(f"- {fact}" for fact in facts), ""]
    for section in sections:
        lines += [f"## {section.title}", "", *section.text, ""]
        lines += [f"![{caption}]({file})\n" for file, caption in section.pictures]
    lines += ["## Where the contenders look\n"] * bool(sheets) + [f"![{caption}]({file})\n" for file, caption in sheets]
    return "\n".join([*lines, "", NOTES, ""])


def _write_events(plan: Plan, means: pd.DataFrame, figures: Mapping[str, tuple[Figure, str]]) -> None:
    """Pictures and the table for TensorBoard; the runs' own curves lie in their folders."""
    folder = plan.output / "tensorboard"
    for old in folder.glob("events.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, (figure, _) in figures.items():
            writer.add_figure(name, figure)
        keys = [figure.key for figure in (*FIGURES, *COSTS) if figure.key in means]
        for row in means.to_dict("records"):
            place = f"{row['bundle']}/{row['question']}/{row['contender']}".replace(" ", "_")
            for key in keys:
                writer.add_scalar(f"{place}/{key}", float(row[key]))
