"""Cross-validate `lumbar_disc_degeneration_grading` on mid-sagittal pictures: five folds, graded where the localiser looks.

    monai-spine prepare midsagittal DATA -o work/pictures
    monai-spine prepare lesions work/pictures -o work/lesions --copies 10
    python tools/cross_validate_discs.py work/pictures -o work/cv --localizers work/folds [--lesions work/lesions] [-- --epochs 9]
    python tools/cross_validate_discs.py work/pictures -o work/resnet --localizers work/folds --levels work/cv/levels \\
        --overlay configs/degeneration/resnet50.json

The folder of localisers holds fold_0 … fold_4, each with localizer.pt, namer.pt and refiner.pt of `tools/evaluate_localizer.py`,
which never saw that fold's pictures. With --lesions a training also learns from lesions simulated on the discs of its own
pictures. With --members several networks of a fold, each from a seed of its own, answer as one. What stands after -- goes to
every training; each is validated once, after its last epoch.
What is finished stays. Written are answers.csv, one row per graded structure, and report.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
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
from monai_spine.ensemble import Ensemble, joined_state
from monai_spine.studies.folds import patient_folds, write_splits
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.bundle_runs import interruptible
from monai_spine.training.degeneration import degeneration_items
from monai_spine.training.scaling import fit_temperature, tempered
from monai_spine.weights import find_bundle

BINS = 10
ANSWERS = [f"{head} {name}" for head, names in HEADS.items() for name in names]
"""Columns of logits; after them the labels, one for each head."""


def train(data: list[str], output: Path, overlays: list[str], seed: int, arguments: list[str]) -> Path:
    """Train one network of a fold on some prepared folders where that is not done; gives its weights."""
    weights, config = output / "model.pt", find_bundle(DEGENERATION).root / "configs" / "train.json"
    if not (output / "done").is_file():
        places = [
            "--dataset_dir",
            repr(data),
            "--output_dir",
            str(output),
            "--ckpt_path",
            str(weights),
            "--val_interval",
            "@epochs",
            "--seed",
            str(seed),
        ]
        files = repr([str(config), *overlays])
        with interruptible():
            subprocess.run(
                [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files, *places, *arguments], check=True
            )
        (output / "done").touch()
    return weights


def grader_of(weights: list[Path], overlays: list[str]) -> DegenerationGrader:
    """The bundle with the network of its overlays and the weights of a fold; with several of them, an ensemble."""
    bundle = find_bundle(DEGENERATION)
    parser = ConfigParser()
    parser.read_config([str(bundle.root / "configs" / "train.json"), *overlays])
    parser["members"] = ["%network_def"] * len(weights)
    network = Ensemble(parser.get_parsed_content("members"), heads=[len(names) for names in HEADS.values()]).eval()
    network.load_state_dict(joined_state([torch.load(path, weights_only=True) for path in weights]))
    return DegenerationGrader(bundle, CropSpec.from_config(parser["crop"]), network)


def report(table: pd.DataFrame, decision: dict[str, list[float]]) -> dict[str, object]:
    """What answers out of fold come to; temperatures of a fold are fitted on the others. What was not found is wrong."""
    said: dict[str, object] = {}
    for head, names in HEADS.items():
        rows = table[table[f"true {head}"] >= 0]
        labels, folds, found = rows[f"true {head}"].to_numpy(int), rows["fold"].to_numpy(), rows["found"].to_numpy(bool)
        raw = torch.tensor(rows[[f"{head} {name}" for name in names]].to_numpy(float)).softmax(dim=1).numpy()
        raw[~found] = np.bincount(labels, minlength=len(names)) / len(labels)
        even = np.array(raw)
        for fold in np.unique(folds):
            others = (folds != fold) & found
            if not others.any():
                continue
            even[folds == fold] = tempered(raw[folds == fold], fit_temperature(raw[others], labels[others]))
        grade = np.where(found, (even * decision.get(head, [1.0] * len(names))).argmax(axis=1), -1)
        plain = np.where(found, even.argmax(axis=1), -1)
        classes = list(range(len(names)))
        by_fold = [
            f1_score(labels[folds == fold], grade[folds == fold], average="macro", labels=classes) for fold in np.unique(folds)
        ]
        said[head] = {
            "rows": len(labels),
            "found": int(found.sum()),
            "macro_f1": f1_score(labels, grade, average="macro", labels=classes),
            "macro_f1_plain": f1_score(labels, plain, average="macro", labels=classes),
            "macro_f1_sd_over_folds": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
            "f1": f1_score(labels, grade, average=None, labels=classes).tolist(),
            "balanced_accuracy": float(np.mean([(grade[labels == one] == one).mean() for one in classes])),
            "auroc_not_first": roc_auc_score(labels > 0, 1 - even[:, 0]),
            "calibration_error": [calibration_error(values, labels) for values in (raw, even)],
            "temperature": fit_temperature(raw[found], labels[found]),
            "confusion": confusion_matrix(labels, grade, labels=[-1, *classes]).tolist(),
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
    parser.add_argument("--members", type=int, default=1, help="networks of each fold")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given, passed_on = split_arguments(sys.argv[1:])
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    whole, rows = read_datalist(options.data), []
    for number, held_out in enumerate(patient_folds(whole.cases)):
        if number not in options.folds:
            continue
        folder = options.output / f"fold_{number}"
        names = [case.case for case in whole.cases if case.case not in held_out]
        few = np.random.default_rng(number).permutation(names)[: round(options.share * len(names))].tolist()
        write_splits(whole, folder, splits={"training": sorted(few), "validation": sorted(held_out)})
        data = [str(folder)]
        if options.lesions is not None:
            lesions = read_datalist(options.lesions)
            copies = [case.case for case in lesions.cases if case.patient in few]
            write_splits(lesions, folder / "lesions", splits={"training": copies, "validation": []})
            data.append(str(folder / "lesions"))
        weights = [train(data, folder / f"member_{seed}", options.overlay, seed, passed_on) for seed in range(options.members)]
        grader = grader_of(weights, options.overlay)
        items = degeneration_items(folder, "validation", role=grader.spec.role)
        levels = options.levels or options.output / "levels"
        for case in sorted(held_out):
            mine = [item for item in items if item["case"] == case]
            volume, seen = looked_at(levels / f"{case}.json", Path(mine[0]["image"]), options.localizers / f"fold_{number}")
            answers = {one.slug: row.tolist() for one, (_, row) in grader.logits(volume, seen).items()}
            for item in mine:
                logits = answers.get(item["target"], [0.0] * len(ANSWERS))
                rows.append([number, case, item["target"], item["target"] in answers, *logits, *item["label"]])
    table = pd.DataFrame(rows, columns=["fold", "case", "target", "found", *ANSWERS, *(f"true {head}" for head in HEADS)])
    table.to_csv(options.output / "answers.csv", index=False)
    said = report(table, find_bundle(DEGENERATION).option("decision") or {})
    (options.output / "report.json").write_text(json.dumps(said, indent=1))
    for head, numbers in said.items():
        print(head, json.dumps(numbers))


if __name__ == "__main__":
    main()
