"""Train `spinal_canal_slice_grading` on lesions simulated on mid-sagittal pictures: five folds by picture, as of the localisers.

    monai-spine prepare midsagittal DATA -o work/pictures
    monai-spine prepare lesions work/pictures -o work/lesions --copies 30 --seed 7
    python tools/cross_validate_slices.py work/pictures -o work/slices --lesions work/lesions [--beside work/phantom]
    python tools/evaluate_validity.py work/pictures -o work/validity --localizers work/folds \\
        --bundle spinal_canal_slice_grading --graders "both=work/slices/fold_{fold}/run/model.pt"

A fold learns from the copies of the other folds' pictures, and is validated once, after its last epoch, on those of its own.
Grades of discs decide only which discs are normal and bear lesions. With --beside it also learns from other prepared studies.
With --all one more network learns from all pictures, into OUT/all/run/model.pt, to be shipped. What is finished stays, what was
killed goes on; what stands after -- goes to every training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.pictures import train, write_lesions
from cross_validation.runs import split_arguments

from monai_spine.anatomy import Condition
from monai_spine.console import Reporter, progress_reporter
from monai_spine.errors import SpineError
from monai_spine.models import SLICE_GRADERS
from monai_spine.studies.folds import patient_folds
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.bundle_runs import keep, sha256_of
from monai_spine.weights import find_bundle

BUNDLE = SLICE_GRADERS[Condition.SPINAL_CANAL_STENOSIS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared pictures")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--lesions", type=Path, required=True, help="what `monai-spine prepare lesions` made of the pictures")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="prepared studies that every fold learns from too")
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="config that is laid over train.json")
    parser.add_argument("--folds", type=int, nargs="*", choices=range(5), default=[0, 1, 2, 3, 4])
    parser.add_argument("--all", action="store_true", help="train on all pictures too: weights of which no figure can be said")
    given, passed_on = split_arguments(sys.argv[1:])
    options = parser.parse_args(given)
    try:
        with progress_reporter() as reporter:
            for weights in trained(options, passed_on, reporter):
                print(weights)
    except SpineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def trained(options: argparse.Namespace, passed_on: list[str], reporter: Reporter) -> list[Path]:
    """The weights of the folds that the command line asks for, each trained where that is not done."""
    lists = [read_datalist(folder).root / "datalist.json" for folder in (options.data, options.lesions, *options.beside)]
    configs = [find_bundle(BUNDLE).root / "configs" / "train.json", *options.overlay]
    keep(options.output, {"data": [sha256_of([path]) for path in lists], "configs": sha256_of(configs), "arguments": passed_on})
    cases = read_datalist(options.data).cases
    names, folds = {case.case for case in cases}, patient_folds(cases)
    parts = [(f"fold_{number}", names - folds[number], folds[number]) for number in options.folds]
    if options.all:
        parts.append(("all", names, folds[0]))  # a training needs some to validate; they have no say
    weights = []
    for name, learnt, validated in parts:
        fold = options.output / name
        data = [write_lesions(options.lesions, fold / "lesions", learnt)]
        data += [write_lesions(options.lesions, fold / "validation", (), validated), *map(str, options.beside)]
        weights.append(train(BUNDLE, fold, data, options.overlay, passed_on, reporter))
    return weights


if __name__ == "__main__":
    raise SystemExit(main())
