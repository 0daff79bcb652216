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
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_spine.errors import SpineError, TableError, UnreadableInputError
from monai_spine.phantom.floor import floor, normalised_score
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import read_submission
from monai_spine.training.score import match_rows, score_rows

_PLACES = ("disc", "canal")
_POINTS = ("point_ras_mm", "canal_ras_mm")
"""Where a result has the two."""


def level_distances_mm(phantom: Path, results: Path) -> pd.DataFrame:
    """Distance of every true disc and canal point from the one found under the same name; infinite where none was found.

    Raises:
        TableError: The true levels cannot be read, or there is no result.
        UnreadableInputError: A result cannot be read.
    """
    columns = {place: [f"{place}_{axis}_mm" for axis in "ras"] for place in _PLACES}
    table = SourceTable.read(phantom / "levels.csv", columns=("study_id", "level", *columns["disc"], *columns["canal"]))
    paths = sorted(results.glob("*/result.json"))
    if not paths:
        raise TableError(f"{results} holds no study with a result.json. Give the folder that `monai-spine analyze` wrote.")
    found = {key: points for path in paths for key, points in _points_of(path).items()}
    keys = list(zip(table.cells["study_id"], table.cells["level"], strict=True))
    distances = pd.DataFrame(keys, columns=["study", "level"])
    for at, place in enumerate(_PLACES):
        truth = np.stack([table.numbers(column) for column in columns[place]], axis=1)
        points = np.array([found[key][at] if key in found else [np.inf] * 3 for key in keys]).reshape(-1, 3)
        distances[place] = np.linalg.norm(points - truth, axis=1)
    return distances


def _points_of(path: Path) -> Mapping[tuple[str, str], list[list[float]]]:
    """Where a result has the disc and the canal of each level, RAS+ mm, by study and level; infinite where it has none."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        study = Path(document["study"]["source"]).name
        return {(study, level["level"]): [_triple(level.get(name)) for name in _POINTS] for level in document["levels"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableInputError(
            f"{path} is no result of an analysis ({type(error).__name__}: {error}). Analyse the study again."
        ) from error


def _triple(point: Sequence[float] | None) -> list[float]:
    r, a, s = (np.inf,) * 3 if point is None else point
    return [float(r), float(a), float(s)]


def print_levels(phantom: Path, results: Path) -> None:
    """How many level points lie near the true ones."""
    distances = level_distances_mm(phantom, results)
    print(f"levels: {len(distances)} in {distances.study.nunique()} studies")
    for what in _PLACES:
        values = distances[what]
        near, far = np.mean(values <= 5), np.mean(values <= 10)
        print(f"  {what:5} within 5 mm {near:.4f}  within 10 mm {far:.4f}  median {values.median():.2f} mm")


def print_score(phantom: Path, path: Path, *, chosen: bool) -> None:
    """Where a submission's score lies; with `chosen` on its own studies, otherwise on all.

    Raises:
        TableError: A table breaks its specification, or the submission is not of this set.
    """
    truth = phantom / "train.csv"
    solution, submission = read_solution(truth), read_submission(path)
    studies = set((submission if chosen else solution)["study"])
    bounds = floor(phantom, studies)
    rows = match_rows(solution[solution["study"].isin(studies)], submission, names=(str(truth), str(path)))
    score = score_rows(rows)
    print("score                 floor     ours     prior    (ours - floor) / (prior - floor)")
    lines = {name: (bounds.floor.parts[name], score.parts[name], bounds.prior.parts[name]) for name in score.parts}
    lines["score"] = (bounds.floor.score, score.score, bounds.prior.score)
    for name, share in normalised_score(score, bounds).items():
        low, ours, high = lines[name]
        print(f"  {name:18} {low:8.4f} {ours:8.4f} {high:8.4f}    {share:.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", type=Path, help="folder that `monai-spine phantom` wrote")
    parser.add_argument("results", type=Path, help="folder that `monai-spine analyze` wrote, or a submission")
    given = parser.parse_args(arguments)
    try:
        if given.results.is_dir():
            print_levels(given.phantom, given.results)
            print_score(given.phantom, given.results / "submission.csv", chosen=False)
        else:
            print_score(given.phantom, given.results, chosen=True)
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
