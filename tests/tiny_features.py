"""Features of made-up studies in which one hidden narrowing lies behind all findings, and a grader sees each through noise."""

from __future__ import annotations

import numpy as np

from monai_spine.training.study_features import StudyFeatures


def correlated(count: int, seed: int) -> StudyFeatures:
    """The graders' probabilities are the best that one crop alone allows."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-4, 4, 41)
    truth = 0.9 * rng.normal(size=(count, 1)) + 0.44 * rng.normal(size=(count, 25))
    label = np.digitize(truth, (0.8, 1.6))
    seen = truth + rng.normal(0, 1.0, size=truth.shape)
    weight = np.exp(-0.5 * grid**2 - 0.5 * (seen[..., None] - grid) ** 2)
    probabilities = np.stack([weight[..., np.digitize(grid, (0.8, 1.6)) == at].sum(axis=-1) for at in range(3)], axis=-1)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    features = seen[..., None] * np.array([1.0, -0.5, 0.3, 0.0]) + rng.normal(0, 0.3, size=(*truth.shape, 4))
    return StudyFeatures(
        case=np.array([f"{seed}{number:05d}" for number in range(count)]),
        logits=np.log(probabilities).astype(np.float32),
        features=features.astype(np.float32),
        present=rng.random(truth.shape) < 0.9,
        label=np.where(rng.random(truth.shape) < 0.05, -1, label).astype(np.int8),
        widths=np.array([4, 4, 4]),
        grader=np.array(["", "", ""]),
        source=np.array("simulated"),
    )
