"""How far brightness alone gets: a logistic regression on the intensity histogram of the crops of simulated studies.

    python tools/histogram_baseline.py work/histograms --training 240 --validation 120 --seed 41

Simulates the studies into the folder (those that are there are kept), cuts the graders' crops at the labelled points, and prints,
per condition, the weighted log loss of the best possible grader (floor), of the regression, and of the class shares per condition
and level (prior). What gets far below 0.8 of the way from floor to prior could be graded by looking at a histogram.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.phantom import prepare_phantom
from monai_spine.phantom.readers import reader_posterior
from monai_spine.phantom.simulate import FIRST_STUDY_ID, simulate_patient
from monai_spine.studies.priors import submission_prior
from monai_spine.training.grading_crops import GradingCrops, items_of
from monai_spine.training.score import reweight
from monai_spine.weights import find_bundle

Floats = npt.NDArray[np.float64]

BINS = np.linspace(-2.5, 4.0, 25)
WEIGHTS = np.array([1.0, 2.0, 4.0])


def histograms(crops: GradingCrops) -> Floats:
    """Share of voxels per bin of brightness, in deviations from the crop's mean, (n, bins)."""
    rows = []
    for index in range(len(crops)):
        crop = crops.crop(index)
        scaled = np.clip((crop - crop.mean()) / max(float(crop.std()), 1e-6), BINS[0], BINS[-1])
        rows.append(np.histogram(scaled, BINS)[0] / crop.size)
    return np.asarray(rows)


def weighted_log_loss(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The official score of one condition."""
    return float(np.average(-np.log(probabilities[np.arange(len(labels)), labels]), weights=WEIGHTS[labels]))


def bounds(items: Sequence[Mapping[str, Any]], seed: int) -> tuple[Floats, Floats]:
    """Probabilities (n, 3) that the best possible grader and the class shares give."""
    best, prior = [], []
    readings: dict[str, Floats] = {}
    slugs = [target.slug for target in TARGETS]
    for item in items:
        case, row = str(item["case"]), slugs.index(item["target"])
        if case not in readings:
            index = int(case) - FIRST_STUDY_ID - 1000 * seed
            readings[case] = reader_posterior(simulate_patient(index, seed=seed).reading.latents)
        best.append(readings[case][row])
        prior.append(submission_prior(TARGETS[row]))
    return reweight(np.array(best)), np.array(prior)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the simulated studies")
    parser.add_argument("--training", type=int, default=240)
    parser.add_argument("--validation", type=int, default=120)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    splits = {"training": arguments.training, "validation": arguments.validation}
    prepare_phantom(arguments.folder, splits=splits, seed=arguments.seed, jobs=arguments.jobs)
    print("weighted log loss               floor  histogram  prior   (histogram - floor) / (prior - floor)")
    for condition in Condition:
        crop = find_bundle(f"{condition.slug}_grading").config("crop")
        items = {split: items_of(arguments.folder, split, condition=condition.slug, role=crop["role"]) for split in splits}
        crops = {split: GradingCrops(items[split], crop) for split in splits}
        regression = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]},
            scoring="neg_log_loss",
            cv=GroupKFold(4),
        )
        groups = [item["case"] for item in crops["training"].items]
        regression.fit(histograms(crops["training"]), crops["training"].labels, groups=groups)
        labels = np.array(crops["validation"].labels)
        best, prior = bounds(crops["validation"].items, arguments.seed)
        seen = reweight(regression.predict_proba(histograms(crops["validation"])))
        floor, ours, worst = (weighted_log_loss(answer, labels) for answer in (best, seen, prior))
        print(f"{condition.slug:30} {floor:6.3f} {ours:10.3f} {worst:6.3f}   {(ours - floor) / (worst - floor):.3f}")


if __name__ == "__main__":
    main()
