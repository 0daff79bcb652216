"""The best score that any grader can reach on a set of simulated studies, and the score of knowing nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS
from monai_spine.errors import TableError
from monai_spine.phantom.readers import reader_posterior
from monai_spine.studies.priors import submission_prior
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.training.score import Score, match_rows, reweight, score_rows

__all__ = ["Bounds", "floor", "normalised_score"]


@dataclass(frozen=True)
class Bounds:
    """Scores between which an honest grader lies.

    Attributes:
        floor: Of the true probabilities of the simulated reader's grades, given the hidden narrowing.
        prior: Of the class shares per condition and level.
    """

    floor: Score
    prior: Score


def floor(folder: Path | str, studies: Collection[str] | None = None) -> Bounds:
    """Bounds of the score on a set that `monai-spine phantom` wrote.

    Args:
        folder: Holds `train.csv` and `latents.csv`.
        studies: Numbers of the studies that count; None: all.

    Raises:
        TableError: A table is missing, the two do not belong together, or a study is in neither.
    """
    folder = Path(folder)
    try:
        solution, latents = read_solution(folder / "train.csv"), _latents(folder / "latents.csv")
    except TableError as error:
        raise TableError(f"{error} The floor is known for sets that `monai-spine phantom` wrote only.") from error
    if studies is not None:
        absent = sorted(set(studies) - set(latents.index))
        if absent:
            raise TableError(
                f"{folder} lacks {len(absent)} of {len(studies)} studies, such as {absent[0]}. Give the set that they are of."
            )
        solution, latents = solution[solution["study"].isin(studies)], latents[latents.index.isin(studies)]
    best = reweight(reader_posterior(latents.to_numpy(float)))
    prior = np.broadcast_to([submission_prior(target) for target in TARGETS], best.shape)
    names = (str(folder / "train.csv"), str(folder / "latents.csv"))
    best_rows, prior_rows = (_submission(list(latents.index), probabilities) for probabilities in (best, prior))
    return Bounds(*(score_rows(match_rows(solution, rows, names=names)) for rows in (best_rows, prior_rows)))


def normalised_score(score: Score, bounds: Bounds) -> dict[str, float]:
    """How far a score lies from floor (0) to prior (1): the whole and each of its four parts."""
    parts = {name: (value, bounds.floor.parts[name], bounds.prior.parts[name]) for name, value in score.parts.items()}
    parts["score"] = (score.score, bounds.floor.score, bounds.prior.score)
    return {name: (value - low) / (high - low) for name, (value, low, high) in parts.items()}


def _latents(path: Path) -> pd.DataFrame:
    """The hidden narrowing of each target (slug) by study (text)."""
    table = SourceTable.read(path, columns=("study_id", *(target.slug for target in TARGETS)))
    table.unique(["study_id"])
    columns = {target.slug: table.numbers(target.slug) for target in TARGETS}
    return pd.DataFrame(columns, index=table.cells["study_id"].tolist())


def _submission(studies: list[str], probabilities: np.ndarray) -> pd.DataFrame:
    """Probabilities (studies, 25, 3) as `submissions.read_submission` gives them."""
    keys = [(study, target.slug) for study in studies for target in TARGETS]
    frame = pd.DataFrame(keys, columns=["study", "target"])
    frame[list(PROBABILITIES)] = probabilities.reshape(-1, 3)
    return frame
