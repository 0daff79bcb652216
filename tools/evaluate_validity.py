"""Hold canal grades on real pictures against the grades of their discs, which no training saw: do they rank real disease?

    monai-spine prepare midsagittal DATA -o work/pictures
    python tools/evaluate_validity.py work/pictures -o work/validity --localizers work/folds \\
        --graders "phantom=work/phantom_only.pt" "lesions=work/lesions/fold_{fold}.pt"

The grades of `midsagittal` are of discs, not of the canal; but extrusions and protrusions narrow it. Each picture is looked at by
the networks of its fold (`tools/evaluate_localizer.py`), which never saw it, and so is each grader whose path has {fold} in it.
For the expected severity of the canal (0 mild, 1 moderate, 2 severe) at each disc that was found are printed how well it tells
discs of each grade from normal ones (AUROC), its rank correlation with the grades, and how often severe is more likely than not.
Written are answers.csv, one row per grader and disc, and report.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))

from localizer_evaluation.pictures import looked_at

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.errors import SpineError, TableError, WeightsError
from monai_spine.grades import Grader, grade_targets, load_grader
from monai_spine.misfits import why_not
from monai_spine.models import GRADERS
from monai_spine.studies.folds import patient_folds
from monai_spine.studies.prepared import PreparedCase, read_datalist
from monai_spine.volume import Volume
from monai_spine.weights import find_bundle

CONDITION = Condition.SPINAL_CANAL_STENOSIS
GRADES = ("normal", "bulge", "protrusion", "extrusion")
"""Of discs, from the mildest to the worst."""

PROBABILITIES = ("normal_mild", "moderate", "severe")


def grader_of(bundle: str, weights: Path) -> Grader:
    """A bundle of the canal with other weights.

    Raises:
        WeightsError: The file holds no weights, or those of another network.
    """
    grader, state = load_grader(find_bundle(bundle)), None
    try:
        state = torch.load(weights, weights_only=True)
        grader.network.load_state_dict(state)
    except Exception as error:  # torch raises what it likes of files that are none of its own
        raise WeightsError(f"{weights} does not fit {bundle}: {why_not(state, grader.network, error)}.") from error
    return replace(grader, network=grader.network.eval())


def answers(case: PreparedCase, volume: Volume, levels: object, grader: Grader) -> list[list[object]]:
    """Level, grade of the disc and probabilities, of each graded disc that was found."""
    targets = [target for target in TARGETS if target.condition is CONDITION]
    grades = grade_targets(targets, levels, {grader.spec.role: (volume,)}, {CONDITION: grader})  # type: ignore[arg-type]
    found = [(grade.target.level.label, grade.probabilities) for grade in grades if grade.probabilities is not None]
    return [[level, case.degeneration[level], *shares] for level, shares in found if level in case.degeneration]


def report(table: pd.DataFrame) -> str:
    """A line per grader, in Markdown."""
    lines = ["| grader | discs | extrusion | protrusion | bulge | rank correlation | severe of normal discs |", "|---" * 7 + "|"]
    for grader, rows in table.groupby("grader", sort=False):
        expected = rows["moderate"] + 2 * rows["severe"]
        normal = rows["grade"] == "normal"
        told = []
        for grade in GRADES[:0:-1]:
            pair = normal | (rows["grade"] == grade)
            told.append(f"{roc_auc_score(~normal[pair], expected[pair]):.3f}")
        rank = spearmanr(rows["grade"].map(GRADES.index), expected).statistic
        severe = (rows.loc[normal, "severe"] > 0.5).mean()
        lines.append(f"| {grader} | {len(rows)} | {' | '.join(told)} | {rank:.3f} | {100 * severe:.1f} % |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared pictures with grades")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--localizers", type=Path, required=True, help="folder of fold_0 … fold_4")
    parser.add_argument("--levels", type=Path, help="where found levels are kept; default: levels in OUTPUT")
    parser.add_argument("--bundle", default=GRADERS[CONDITION], help="whose weights these are; default: %(default)s")
    parser.add_argument("--graders", nargs="+", required=True, metavar="NAME=WEIGHTS", help="{fold} stands for the fold's number")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(5), default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    named = dict(one.partition("=")[::2] for one in options.graders)
    if len(named) < len(options.graders) or not all(named.values()):
        parser.error("--graders takes NAME=WEIGHTS, each NAME once")
    files = {(name, fold): Path(weights.format(fold=fold)) for name, weights in named.items() for fold in options.folds}
    kinds = ("localizer", "namer", "refiner")
    files |= {(kind, fold): options.localizers / f"fold_{fold}" / f"{kind}.pt" for kind in kinds for fold in options.folds}
    absent = sorted({str(path) for path in files.values() if not path.is_file()})
    if absent:
        parser.error(
            f"there is no {', '.join(absent)}. tools/evaluate_localizer.py writes the localisers of folds, "
            "tools/cross_validate_slices.py graders."
        )
    torch.set_num_threads(1)
    try:
        table = pd.DataFrame(
            graded(options, list(named), files), columns=["grader", "fold", "case", "level", "grade", *PROBABILITIES]
        )
    except SpineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    table = table[table["grade"].isin(GRADES)]
    if set(table["grade"]) != set(GRADES):
        print(
            f"Error: {options.data} has no found discs of each grade ({', '.join(GRADES)}): nothing to compare.", file=sys.stderr
        )
        return TableError.exit_code
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "answers.csv", index=False)
    (options.output / "report.md").write_text(report(table) + "\n", encoding="utf-8")
    print(report(table))
    return 0


def graded(options: argparse.Namespace, names: Sequence[str], files: Mapping[tuple[str, int], Path]) -> Iterator[list[object]]:
    """Rows of what all graders say of the folds' pictures."""
    whole = read_datalist(options.data)
    cases, folds = {case.case: case for case in whole.cases}, patient_folds(whole.cases)
    levels = options.levels or options.output / "levels"
    for fold in options.folds:
        graders = {name: grader_of(options.bundle, files[name, fold]) for name in names}
        for name in sorted(folds[fold]):
            case = cases[name]
            image = whole.root / case.volumes[0].image
            volume, seen = looked_at(levels / f"{name}.json", image, options.localizers / f"fold_{fold}")
            for label, grader in graders.items() if seen.levels else ():
                yield from ([label, fold, name, *row] for row in answers(case, volume, seen, grader))


if __name__ == "__main__":
    raise SystemExit(main())
