"""Hold an analysis of simulated studies against what is true of them.

    monai-spine phantom work/test --studies 200 --seed 2
    monai-spine analyze work/test/train_images -o work/results --formats json
    python tools/evaluate_phantom.py work/test work/results
    python tools/evaluate_phantom.py work/replica work/cv_replica/test/submission.csv

Prints how far the level points lie from the true ones, and where the score lies between the best possible one (0) and that of
the class shares alone (1). Of a submission, the score alone, on the studies that it has.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.phantom.floor import floor, normalised_score
from monai_spine.training.score import official_score


def level_distances_mm(phantom: Path, results: Path) -> pd.DataFrame:
    """Distance of every true disc and canal point from the one found under the same name; infinite where none was found."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for path in sorted(results.glob("*/result.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        study = Path(document["study"]["source"]).name
        found |= {(study, level["level"]): level for level in document["levels"]}
    rows = []
    for true in pd.read_csv(phantom / "levels.csv", dtype={"study_id": str}).to_dict("records"):
        level = found.get((true["study_id"], true["level"]), {})
        rows.append(
            {
                "study": true["study_id"],
                "level": true["level"],
                "disc": _distance(level.get("point_ras_mm"), [true[f"disc_{axis}_mm"] for axis in "ras"]),
                "canal": _distance(level.get("canal_ras_mm"), [true[f"canal_{axis}_mm"] for axis in "ras"]),
            }
        )
    return pd.DataFrame(rows)


def _distance(point: list[float] | None, truth: list[float]) -> float:
    return np.inf if point is None else float(np.linalg.norm(np.subtract(point, truth)))


def print_levels(phantom: Path, results: Path) -> None:
    """How many level points lie near the true ones."""
    distances = level_distances_mm(phantom, results)
    print(f"levels: {len(distances)} in {distances.study.nunique()} studies")
    for what in ("disc", "canal"):
        values = distances[what]
        near, far = np.mean(values <= 5), np.mean(values <= 10)
        print(f"  {what:5} within 5 mm {near:.4f}  within 10 mm {far:.4f}  median {values.median():.2f} mm")


def print_score(phantom: Path, path: Path, *, chosen: bool) -> None:
    """Where a submission's score lies; with `chosen` on its own studies, otherwise on all."""
    solution = pd.read_csv(phantom / "train.csv", dtype=str, keep_default_na=False)
    submission = pd.read_csv(path, dtype=str, keep_default_na=False)
    studies = set(submission["row_id"].str.split("_").str[0]) if chosen else set(solution["study_id"])
    score, bounds = official_score(solution[solution["study_id"].isin(studies)], submission), floor(phantom, studies)
    print("score                 floor     ours     prior    (ours - floor) / (prior - floor)")
    lines = {name: (bounds.floor.parts[name], score.parts[name], bounds.prior.parts[name]) for name in score.parts}
    lines["score"] = (bounds.floor.score, score.score, bounds.prior.score)
    for name, share in normalised_score(score, bounds).items():
        low, ours, high = lines[name]
        print(f"  {name:18} {low:8.4f} {ours:8.4f} {high:8.4f}    {share:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", type=Path, help="folder that `monai-spine phantom` wrote")
    parser.add_argument("results", type=Path, help="folder that `monai-spine analyze` wrote, or a submission")
    arguments = parser.parse_args()
    if arguments.results.is_dir():
        print_levels(arguments.phantom, arguments.results)
        print_score(arguments.phantom, arguments.results / "submission.csv", chosen=False)
    else:
        print_score(arguments.phantom, arguments.results, chosen=True)


if __name__ == "__main__":
    main()
