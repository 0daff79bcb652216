"""Cross-validate `lumbar_disc_degeneration_grading` on mid-sagittal pictures: five folds, graded where the localiser looks.

    monai-spine prepare midsagittal DATA -o work/pictures
    monai-spine prepare lesions work/pictures -o work/lesions --copies 10
    python tools/cross_validate_discs.py work/pictures -o work/cv --localizers work/folds [--lesions work/lesions] [-- --epochs 9]
    python tools/cross_validate_discs.py work/pictures -o work/resnet --localizers work/folds --levels work/cv/levels \\
        --overlay configs/degeneration/resnet50.json

The folder of localisers holds fold_0 … fold_4, each with localizer.pt, namer.pt and refiner.pt of `tools/evaluate_localizer.py`,
which never saw that fold's pictures. With --lesions a training also learns from lesions simulated on the discs of its own
pictures. What stands after -- goes to every training; each is validated once, after its last epoch.
With --all one more network learns from all pictures, into OUT/all/run/model.pt, to be shipped.
What is finished stays, what was killed goes on. Written are answers.csv, one row per graded structure, and report.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.checks import refuse_unreadable
from cross_validation.disc_report import ANSWERS, COLUMNS, report
from cross_validation.pictures import train, write_lesions
from cross_validation.runs import split_arguments
from localizer_evaluation.pictures import looked_at

from monai_spine.console import Reporter, progress_reporter
from monai_spine.crops import CropSpec
from monai_spine.degeneration import DEGENERATION, DegenerationGrader
from monai_spine.errors import SpineError
from monai_spine.studies.folds import patient_folds, write_splits
from monai_spine.studies.prepared import Datalist, read_datalist
from monai_spine.training.bundle_runs import keep, sha256_of
from monai_spine.training.degeneration import degeneration_items
from monai_spine.weights import find_bundle


def grader_of(weights: Path, overlays: Sequence[Path]) -> DegenerationGrader:
    """The bundle with the network of its overlays and the weights of a fold."""
    bundle = find_bundle(DEGENERATION)
    parser = ConfigParser()
    parser.read_config([str(bundle.root / "configs" / "train.json"), *map(str, overlays)])
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return DegenerationGrader(bundle, CropSpec.from_config(parser["crop"]), network)


def fold_data(whole: Datalist, fold: Path, held_out: Collection[str], names: Sequence[str], lesions: Path | None) -> list[str]:
    """Write what a fold learns from and what it holds out; gives the folders.

    Args:
        whole: All pictures.
        fold: Folder of the fold.
        held_out: Names of pictures.
        names: Those of the pictures to learn from.
        lesions: Copies of all pictures with lesions, of which those of `names` are learnt from too.
    """
    write_splits(whole, fold, splits={"training": sorted(names), "validation": sorted(held_out)})
    return [str(fold)] if lesions is None else [str(fold), write_lesions(lesions, fold / "lesions", names)]


def fold_answers(grader: DegenerationGrader, fold: Path, levels: Path, localizer: Path) -> Iterator[list[object]]:
    """Rows (case, target, found, logits, labels) of what a fold holds out, graded where its localiser looks."""
    items = degeneration_items(fold, "validation", role=grader.spec.role)
    for case in sorted({item["case"] for item in items}):
        mine = [item for item in items if item["case"] == case]
        volume, seen = looked_at(levels / f"{case}.json", Path(mine[0]["image"]), localizer)
        answers = {one.slug: row.tolist() for one, (_, row) in grader.logits(volume, seen).items()}
        for item in mine:
            logits = answers.get(item["target"], [0.0] * len(ANSWERS))
            yield [case, item["target"], item["target"] in answers, *logits, *item["label"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--localizers", type=Path, required=True)
    parser.add_argument("--levels", type=Path, help="where found levels are kept; default: levels in OUT")
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="config that is laid over train.json")
    parser.add_argument("--lesions", type=Path, help="what `monai-spine prepare lesions` made of the pictures")
    parser.add_argument("--share", type=_share, default=1.0, help="of the pictures of each training")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(5), default=[0, 1, 2, 3, 4])
    parser.add_argument("--all", action="store_true", help="train on all pictures too: weights of which no figure can be said")
    given, passed_on = split_arguments(sys.argv[1:])
    options = parser.parse_args(given)
    absent = [str(one) for fold in options.folds if not (one := options.localizers / f"fold_{fold}" / "localizer.pt").is_file()]
    if absent:
        parser.error(f"there is no {', '.join(absent)}: make the localisers of the folds by tools/evaluate_localizer.py first")
    torch.set_num_threads(1)
    try:
        with progress_reporter() as reporter:
            said = cross_validated(options, passed_on, reporter)
    except SpineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    for head, numbers in said.items():
        print(head, json.dumps(numbers))
    return 0


def cross_validated(options: argparse.Namespace, passed_on: list[str], reporter: Reporter) -> dict[str, dict[str, object]]:
    """Train, grade and report what the command line asks for; gives the report."""
    for overlay in options.overlay:
        refuse_unreadable(overlay)
    whole, rows = read_datalist(options.data), []
    keep(
        options.output,
        {
            "data": sha256_of([options.data / "datalist.json"]),
            "lesions": {} if options.lesions is None else sha256_of([options.lesions / "datalist.json"]),
            "share": options.share,
            "configs": sha256_of([find_bundle(DEGENERATION).root / "configs" / "train.json", *options.overlay]),
            "arguments": passed_on,
        },
    )
    for number, held_out in enumerate(patient_folds(whole.cases)):
        if number not in options.folds:
            continue
        fold = options.output / f"fold_{number}"
        others = [case.case for case in whole.cases if case.case not in held_out]
        names = np.random.default_rng(number).permutation(others)[: round(options.share * len(others))].tolist()
        data = fold_data(whole, fold, held_out, names, options.lesions)
        weights = train(DEGENERATION, fold, data, options.overlay, passed_on, reporter)
        levels, localizer = options.levels or options.output / "levels", options.localizers / f"fold_{number}"
        answers = fold_answers(grader_of(weights, options.overlay), fold, levels, localizer)
        rows += [[number, *row] for row in answers]
    if options.all:
        fold, names = options.output / "all", [case.case for case in whole.cases]
        data = fold_data(whole, fold, (), names, options.lesions)
        write_splits(whole, fold / "seen", splits={"training": [], "validation": names})  # a training needs some to validate
        train(DEGENERATION, fold, [*data, str(fold / "seen")], options.overlay, passed_on, reporter)
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.to_csv(options.output / "answers.csv", index=False)
    said = report(table)
    (options.output / "report.json").write_text(json.dumps(said, indent=1))
    return said


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"a share of the pictures is above 0 and at most 1, got {text}")
    return share


if __name__ == "__main__":
    raise SystemExit(main())
