"""Cross-validate the graders on a prepared study: train and predict every fold, then say what they reach together.

    monai-spine prepare rsna2024 DATA -o work/rsna2024
    python tools/cross_validate.py work/rsna2024 -o work/cv [--solution DATA/train.csv]
    python tools/cross_validate.py work/rsna2024 -o work/cv_two_steps --bundles spinal_canal_stenosis_grading \\
        --overlays configs/training/mixing.json --second configs/training/weighted_head.json -- --epochs 20

Each fold runs the bundles' own commands; what stands after -- goes to all of them, --second-arguments to the second step alone.
What is finished stays, what was killed goes on. A training is validated once, after its last epoch, and that is kept: the studies
that are held out have no say in it. They are predicted at their labelled points; with --predicted-points where an analysis would
look, by the same trained weights, into OUT/at_predicted_points; with --augment each crop is looked at several times, moved,
turned and, where it has no side, mirrored, into OUT/augmented. Written are

    out_of_fold.csv    a submission of all studies by models that never saw them, calibrated by a temperature (that of each fold
                       fitted on the other folds) and weighted by 1, 2, 4
    frequencies.csv    the same, not weighted
    report.md          score, mean and standard deviation over folds; calibration; risk over the share that is graded
    *.csv *.png        the tables and pictures behind it
    test/              with --test: the same of studies that take no part in the folds, by the mean of all folds' models

--ship FOLDER writes bundles that do the same in an analysis: the mean of all folds' models, their temperature, and a referral of
the findings beyond --coverage of the surest:

    python tools/cross_validate.py work/rsna2024 -o work/cv_test --test work/rsna2024 --augment --ship work/bundles
    monai-spine analyze STUDY -o results_ensemble --bundles work/bundles

With --head, a study head is trained for each fold on what the graders of the other folds saw of the studies that they held out
(`tools/cross_validation/head.py`); what it comes to goes to OUT/head, with the score with and without it in comparison.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.checks import refuse_unfit, true_labels
from cross_validation.head import HeadPlan, comparison, head_predictions, run_heads
from cross_validation.held_out import averaged, fitted_temperatures, member_tables, with_temperature, write_test_report
from cross_validation.report import write_report
from cross_validation.runs import Plan, folds_of, hold_out, keep_settings, perform, said_of, split_arguments, steps
from cross_validation.shipping import ship

from monai_spine.console import progress_reporter
from monai_spine.errors import SpineError
from monai_spine.models import GRADERS
from monai_spine.referral import Referral
from monai_spine.studies.prepared import read_datalist
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.training.out_of_fold import calibrated, labels_of, out_of_fold_table
from monai_spine.training.referral_choice import choose_threshold, referral_effect
from monai_spine.weights import find_bundle


def run_all(plan: Plan) -> None:
    """Train and predict what is not finished.

    Raises:
        OutputError: The folder holds runs of other settings.
        WeightsError: A command fails.
    """
    keep_settings(plan)
    hold_out(plan)
    with progress_reporter() as reporter:
        planned = list(steps(plan))
        for number, step in enumerate(planned):
            reporter.step(number / len(planned), f"{said_of(step.name, step.made)} ({number + 1} of {len(planned)})")
            perform(step)


def table_of(plan: Plan, solution: Path | None = None, predictions: Mapping[str, Sequence[Path]] | None = None) -> pd.DataFrame:
    """The out-of-fold table of finished runs.

    Args:
        plan: What was run.
        solution: What is true; None: the labels of the data lists, which have those with a point only.
        predictions: Files of what is said of each fold's studies; None: those of the graders.

    Raises:
        TableError: A table breaks its format, or the solution lacks a study.
    """
    datalists = {fold: read_datalist(plan.datalist_of(fold)) for fold in plan.folds}
    members = {fold: [case.case for case in datalist.cases_of("validation")] for fold, datalist in datalists.items()}
    labels = {place: label for datalist in datalists.values() for place, label in labels_of(datalist).items()}
    if solution is not None:
        labels = true_labels(solution, [case for cases in members.values() for case in cases])
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


def tables_of_test(plan: Plan, solution: Path | None = None) -> dict[str, pd.DataFrame]:
    """What each fold's models say of the test; arguments and errors as of `table_of`."""
    cases = [case.case for case in read_datalist(plan.test_points).cases_of("test")]
    return member_tables(plan, None if solution is None else true_labels(solution, cases))


def referrals_of(table: pd.DataFrame, test: pd.DataFrame | None, coverage: float, source: str) -> dict[str, Referral]:
    """The threshold of each condition (slug) that keeps so much out of fold, and what it comes to on the test where there is one.

    Args:
        table: Out-of-fold predictions with temperature.
        test: Those of the ensemble, with temperature.
        coverage: Share that is kept.
        source: What the studies are, for the reader of a report.
    """
    found = {}
    for condition, rows in _labelled(table).groupby("condition"):
        threshold = choose_threshold(*_values(rows), coverage=coverage)
        tested = rows if test is None else _labelled(test.loc[test["condition"] == condition])
        effect = referral_effect(*_values(rows if tested.empty else tested), threshold)
        found[str(condition)] = Referral(threshold, effect.sentence(source))
    return found


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["predicted"] & (table["label"] >= 0)]


def _values(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows[list(PROBABILITIES)].to_numpy(float), rows["label"].to_numpy(np.int64)


def main(arguments: Sequence[str] | None = None) -> int:
    given, passed_on = split_arguments(sys.argv[1:] if arguments is None else arguments)
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
            augment=chosen.augment,
            test=chosen.test,
        )
        heads = None
        if chosen.head is not None:
            heads = HeadPlan(plan, chosen.head == "features", tuple(shlex.split(chosen.head_arguments)))
        refuse_unfit(plan, solution=chosen.solution, ship_to=chosen.ship, heads=heads)
        run_all(plan)
        table = conclude(plan, chosen.solution, ship_to=chosen.ship, coverage=chosen.coverage)
        if heads is not None:
            print(add_heads(heads, table, chosen.solution))
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on with what is there.", file=sys.stderr)
        return 130
    print(f"Everything is in {plan.place}")
    return 0


def conclude(plan: Plan, solution: Path | None = None, *, ship_to: Path | None = None, coverage: float = 0.9) -> pd.DataFrame:
    """Say what finished runs reach, on the folds and on the test where there is one, and ship their ensemble where it is wanted.

    Args:
        plan: What was run.
        solution: What is true; None: what the data lists say.
        ship_to: New folder of bundles.
        coverage: Share of the findings that these do not refer.

    Returns:
        As `table_of`.

    Raises:
        TableError: A table breaks its format, or the solution lacks a study.
        OutputError: Something cannot be written.
        WeightsError: The networks cannot be shipped.
    """
    table = table_of(plan, solution)
    print(write_report(table, plan.place))
    temperatures = fitted_temperatures(table)
    tables = None if plan.test is None else tables_of_test(plan, solution)
    if tables is not None:
        print(write_test_report(tables, temperatures, plan.place / "test"))
    if ship_to is not None:
        tested = None if tables is None else with_temperature(averaged(tables), temperatures)
        source = "studies that its folds held out" if tested is None else "a test that it has never seen"
        referrals = referrals_of(calibrated(table)[0], tested, coverage, source)
        ship(plan, ship_to, temperatures, referrals)
        print(f"Bundles for `monai-spine analyze --bundles {ship_to}`:")
        print("\n".join(f"- {condition}: {one.expected_risk:.4f}. {one.meaning}" for condition, one in referrals.items()))
    return table


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share above 0 and up to 1")
    return value


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
    parser.add_argument("--augment", action="store_true", help="look at each crop several times: test-time augmentation")
    parser.add_argument("--test", type=Path, help="prepared study whose split `test` is left to the ensemble of all folds")
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="write bundles that grade with the ensemble")
    parser.add_argument("--coverage", type=_share, default=0.9, help="share of findings that these do not refer; default: 0.9")
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
