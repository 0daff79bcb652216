"""Cross-validate the graders on a prepared study: train and predict every fold, then say what they reach together.

    monai-spine prepare rsna2024 DATA -o work/rsna2024
    python tools/cross_validate.py work/rsna2024 -o work/cv [--solution DATA/train.csv]
    python tools/cross_validate.py work/rsna2024 -o work/cv_two_steps --bundles spinal_canal_stenosis_grading \\
        --overlays configs/training/mixing.json --second configs/training/weighted_head.json -- --epochs 20

Each fold runs the bundles' own commands; what stands after -- goes to all of them, --second-arguments to the second step alone.
What is finished stays, what was killed goes on. A training is validated once, after its last epoch, and that is kept: the studies
that are held out have no say in it. They are predicted at their labelled points; with --predicted-points where an analysis would
look, by the same trained weights, into OUT/at_predicted_points. Written are

    out_of_fold.csv    a submission of all studies by models that never saw them, calibrated by a temperature (that of each fold
                       fitted on the other folds) and weighted by 1, 2, 4
    frequencies.csv    the same, not weighted
    report.md          score, mean and standard deviation over folds; calibration; risk over the share that is graded
    *.csv *.png        the tables and pictures behind it

With --head, a study head is trained for each fold on what the graders of the other folds saw of the studies that they held out
(`tools/cross_validation/head.py`); what it comes to goes to OUT/head, with the score with and without it in comparison.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.head import HeadPlan, comparison, head_predictions, run_heads
from cross_validation.report import write_report
from cross_validation.runs import Plan, folds_of, keep_settings, perform, steps

from monai_spine.console import progress_reporter
from monai_spine.errors import SpineError, TableError
from monai_spine.models import GRADERS
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.training.out_of_fold import labels_of, out_of_fold_table
from monai_spine.weights import find_bundle


def run_all(plan: Plan) -> None:
    """Train and predict what is not finished.

    Raises:
        OutputError: The folder holds runs of other settings.
        WeightsError: A command fails.
    """
    keep_settings(plan)
    with progress_reporter() as reporter:
        planned = list(steps(plan))
        for number, step in enumerate(planned):
            reporter.step(number / len(planned), f"{step.name} ({number + 1} of {len(planned)})")
            perform(step)


def table_of(plan: Plan, solution: Path | None = None, predictions: Mapping[str, Sequence[Path]] | None = None) -> pd.DataFrame:
    """The out-of-fold table of finished runs.

    Args:
        plan: What was run.
        solution: What is true; None: the labels of the data lists, which have those with a point only.
        predictions: Files of what is said of each fold's studies; None: those of the graders.

    Raises:
        TableError: A table breaks its format, or the solution has none of the studies.
    """
    datalists = {fold: read_datalist(plan.datalist_of(fold)) for fold in plan.folds}
    members = {fold: [case.case for case in datalist.cases_of("validation")] for fold, datalist in datalists.items()}
    labels = {place: label for datalist in datalists.values() for place, label in labels_of(datalist).items()}
    if solution is not None:
        true = read_solution(solution)
        absent = sorted({case for cases in members.values() for case in cases} - set(true["study"]))
        if absent:
            raise TableError(f"{solution} lacks {len(absent)} studies of the folds, such as {absent[0]}. Give the whole table.")
        labels = dict(zip(zip(true["study"], true["target"], strict=True), true["label"].astype(int), strict=True))
    files = {fold: [plan.predictions_of(bundle, fold) for bundle in plan.bundles] for fold in plan.folds}
    return out_of_fold_table(members, predictions or files, labels)


def add_heads(heads: HeadPlan, alone: pd.DataFrame, solution: Path | None = None) -> str:
    """Train a study head for each fold, write what they come to, and return the score with and without them.

    Raises:
        SpineError: As in `run_heads` and `table_of`.
    """
    run_heads(heads)
    together = table_of(heads.plan, solution, head_predictions(heads))
    write_report(together, heads.output)
    text = comparison(alone, together)
    (heads.output / "comparison.md").write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    given, passed_on = _split(list(sys.argv[1:] if arguments is None else arguments))
    parser = _parser()
    chosen = parser.parse_args(given)
    try:
        plan = Plan(
            prepared=chosen.prepared,
            output=chosen.output,
            bundles=tuple(find_bundle(name, chosen.bundle_folder).root for name in chosen.bundles),
            folds=tuple(chosen.folds or folds_of(chosen.prepared)),
            overlays=tuple(chosen.overlays),
            second=tuple(chosen.second),
            arguments=tuple(passed_on),
            second_arguments=tuple(shlex.split(chosen.second_arguments)),
            predicted_points=chosen.predicted_points,
        )
        run_all(plan)
        place = plan.output / "at_predicted_points" if plan.predicted_points else plan.output
        table = table_of(plan, chosen.solution)
        print(write_report(table, place))
        if chosen.head is not None:
            heads = HeadPlan(plan, chosen.head == "features", tuple(shlex.split(chosen.head_arguments)))
            print(add_heads(heads, table, chosen.solution))
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"Everything is in {place}")
    return 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is meant for this tool, and what stands after the first --."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder that `monai-spine prepare rsna2024` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs and the report")
    parser.add_argument("--bundles", nargs="+", default=list(GRADERS.values()), help="grading bundles; default: all three")
    parser.add_argument("--bundle-folder", type=Path, help="where they lie; default: those of the repository")
    parser.add_argument("--folds", nargs="+", metavar="fold_0", help="default: all")
    parser.add_argument("--overlays", nargs="+", type=Path, default=[], help="configs laid over each train.json")
    parser.add_argument(
        "--second", nargs="+", type=Path, default=[], help="configs of a second step, from the first one's weights"
    )
    parser.add_argument("--second-arguments", default="", help="more arguments of the second step, in one string")
    parser.add_argument("--predicted-points", action="store_true", help="predict where an analysis would look")
    parser.add_argument("--solution", type=Path, help="train.csv: labels without a point are scored too, with the prior")
    parser.add_argument(
        "--head",
        choices=("answers", "features"),
        help="add a study head that learns from the graders' answers alone, or from their features too",
    )
    parser.add_argument("--head-arguments", default="", help="more arguments of the heads' training, in one string")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
