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
What is finished stays. Written are answers.csv, one row per graded structure, and report.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))

from cross_validation.runs import split_arguments
from localizer_evaluation.pictures import looked_at

from monai_spine.crops import CropSpec
from monai_spine.degeneration import DEGENERATION, HEADS, DegenerationGrader
from monai_spine.studies.folds import patient_folds, write_splits
from monai_spine.studies.prepared import Datalist, read_datalist
from monai_spine.training.bundle_runs import interruptible
from monai_spine.training.decisions import Offset, balanced_weights, fit_offset, macro_f1_weights
from monai_spine.training.degeneration import degeneration_items
from monai_spine.weights import find_bundle

BINS = 10
ANSWERS = [f"{head} {name}" for head, names in HEADS.items() for name in names]
"""Columns of logits; after them the labels, one for each head."""


def train(fold: Path, data: list[str], overlays: list[str], arguments: list[str]) -> Path:
    """Train a fold's network on some prepared folders where that is not done; gives its weights."""
    run, config = fold / "run", find_bundle(DEGENERATION).root / "configs" / "train.json"
    if not (run / "done").is_file():
        places = {
            "dataset_dir": repr(data),
            "output_dir": str(run),
            "ckpt_path": str(run / "model.pt"),
            "val_interval": "@epochs",
        }
        given = [part for key, value in places.items() for part in (f"--{key}", value)]
        files = repr([str(config), *overlays])
        with interruptible():
            subprocess.run(
                [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files, *given, *arguments], check=True
            )
        (run / "done").touch()
    return run / "model.pt"


def grader_of(weights: Path, overlays: list[str]) -> DegenerationGrader:
    """The bundle with the network of its overlays and the weights of a fold."""
    bundle = find_bundle(DEGENERATION)
    parser = ConfigParser()
    parser.read_config([str(bundle.root / "configs" / "train.json"), *overlays])
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
    if lesions is None:
        return [str(fold)]
    copies = read_datalist(lesions)
    mine = [case.case for case in copies.cases if case.patient in names]
    write_splits(copies, fold / "lesions", splits={"training": mine, "validation": []})
    return [str(fold), str(fold / "lesions")]


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


def decision(head: str, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a head's answers: of a disc's grade for the best mean F1, of a vertebra's for the best balanced accuracy."""
    if head == "grade":
        return macro_f1_weights(probabilities, labels)
    return balanced_weights(labels, len(HEADS[head])) if head == "vertebra" else np.ones(len(HEADS[head]))


def out_of_fold(
    head: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and weights (N, C), those of a fold by what is fitted on the others; frequencies where nothing was found."""
    classes = logits.shape[1]
    probabilities, weights = np.tile(np.bincount(labels, minlength=classes) / len(labels), (len(labels), 1)), np.ones_like(logits)
    for fold in np.unique(folds):
        here, others = (folds == fold) & found, (folds != fold) & found
        offset = fit_offset(logits[others], labels[others]) if others.any() else Offset(1.0, np.zeros(classes))
        probabilities[here] = offset(logits[here])
        if others.any():
            weights[here] = decision(head, offset(logits[others]), labels[others])
    return probabilities, weights


def report(table: pd.DataFrame) -> dict[str, object]:
    """What answers out of fold come to; what is fitted for a fold is fitted on the others. What was not found is wrong."""
    said: dict[str, object] = {}
    for head, names in HEADS.items():
        rows = table[table[f"true {head}"] >= 0]
        logits, labels = rows[[f"{head} {name}" for name in names]].to_numpy(float), rows[f"true {head}"].to_numpy(int)
        folds, found, classes = rows["fold"].to_numpy(), rows["found"].to_numpy(bool), list(range(len(names)))
        even, weights = out_of_fold(head, logits, labels, folds, found)
        grade = np.where(found, (even * weights).argmax(axis=1), -1)
        by_fold = [
            f1_score(labels[folds == fold], grade[folds == fold], average="macro", labels=classes) for fold in np.unique(folds)
        ]
        whole = fit_offset(logits[found], labels[found])
        said[head] = {
            "rows": len(labels),
            "found": int(found.sum()),
            "macro_f1": f1_score(labels, grade, average="macro", labels=classes),
            "macro_f1_most_probable": f1_score(labels, np.where(found, even.argmax(axis=1), -1), average="macro", labels=classes),
            "macro_f1_sd_over_folds": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
            "f1": f1_score(labels, grade, average=None, labels=classes).tolist(),
            "balanced_accuracy": float(np.mean([(grade[labels == one] == one).mean() for one in classes])),
            "auroc_not_first": roc_auc_score(labels > 0, 1 - even[:, 0]),
            "calibration_error": calibration_error(even, labels),
            "confusion": confusion_matrix(labels, grade, labels=[-1, *classes]).tolist(),
            "temperature": whole.temperature,
            "offsets": whole.offsets.tolist(),
            "decision": decision(head, whole(logits[found]), labels[found]).tolist(),
        }
    return said


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the most probable answer, in bins of equal width."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs((sure - right)[bins == one].sum()) for one in range(BINS)) / len(labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--localizers", type=Path, required=True)
    parser.add_argument("--levels", type=Path, help="where found levels are kept; default: levels in OUT")
    parser.add_argument("--overlay", action="append", default=[], help="config that is laid over train.json")
    parser.add_argument("--lesions", type=Path, help="what `monai-spine prepare lesions` made of the pictures")
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures of each training")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--all", action="store_true", help="train on all pictures too: weights of which no figure can be said")
    given, passed_on = split_arguments(sys.argv[1:])
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    whole, rows = read_datalist(options.data), []
    for number, held_out in enumerate(patient_folds(whole.cases)):
        if number not in options.folds:
            continue
        fold = options.output / f"fold_{number}"
        others = [case.case for case in whole.cases if case.case not in held_out]
        names = np.random.default_rng(number).permutation(others)[: round(options.share * len(others))].tolist()
        weights = train(fold, fold_data(whole, fold, held_out, names, options.lesions), options.overlay, passed_on)
        levels, localizer = options.levels or options.output / "levels", options.localizers / f"fold_{number}"
        answers = fold_answers(grader_of(weights, options.overlay), fold, levels, localizer)
        rows += [[number, *row] for row in answers]
    if options.all:
        fold, names = options.output / "all", [case.case for case in whole.cases]
        data = fold_data(whole, fold, (), names, options.lesions)
        write_splits(whole, fold / "seen", splits={"training": [], "validation": names})  # a training needs some to validate
        print(train(fold, [*data, str(fold / "seen")], options.overlay, passed_on))
    table = pd.DataFrame(rows, columns=["fold", "case", "target", "found", *ANSWERS, *(f"true {head}" for head in HEADS)])
    table.to_csv(options.output / "answers.csv", index=False)
    said = report(table)
    (options.output / "report.json").write_text(json.dumps(said, indent=1))
    for head, numbers in said.items():
        print(head, json.dumps(numbers))


if __name__ == "__main__":
    main()
