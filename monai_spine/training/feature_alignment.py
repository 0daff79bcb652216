"""Features of one training brought into the terms of another.

Two trainings of the same network find much the same features, but in another order and mixed otherwise: their numbers cannot be
put side by side. Where both have looked at the same crops, a rotation can be found that brings one as near to the other as it
goes.

Source: Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31, 1966.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import orthogonal_procrustes

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.errors import TableError
from monai_spine.training.study_features import StudyFeatures

__all__ = ["aligned", "stacked"]

_CONDITION = np.array([list(Condition).index(target.condition) for target in TARGETS])


def aligned(studies: StudyFeatures, anchors: StudyFeatures, reference: StudyFeatures) -> StudyFeatures:
    """Studies with their features in the terms of another grader: shifted, rotated and scaled as its look at the anchors asks.

    Args:
        studies: Seen by one grader.
        anchors: Other studies, seen by the same grader.
        reference: The anchors, seen by the grader in whose terms the features shall be.

    Returns:
        The studies; the weights behind them are said to be those of the reference.

    Raises:
        TableError: The graders have different numbers of features, or the anchors are different ones or too few.
    """
    if not np.array_equal(anchors.case, reference.case) or not np.array_equal(anchors.widths, reference.widths):
        raise TableError(
            f"Features of {len(anchors)} anchors with {anchors.widths.tolist()} features each cannot be held against those of "
            f"{len(reference)} with {reference.widths.tolist()}. Write them again with graders of one kind, on the same studies."
        )
    features = np.zeros_like(studies.features)
    for number, width in enumerate(studies.widths.tolist()):
        own = number == _CONDITION
        both = anchors.present & reference.present & own
        if width == 0:
            continue
        if both.sum() < 2:
            raise TableError(f"The anchors have {both.sum()} targets of {list(Condition)[number].label}; give more of them.")
        features[:, own, :width] = _moved(
            studies.features[:, own, :width], anchors.features[both, :width], reference.features[both, :width]
        )
    return replace(studies, features=features, grader=reference.grader)


def stacked(parts: list[StudyFeatures]) -> StudyFeatures:
    """The studies of several files one after the other.

    Raises:
        TableError: There is none, they differ in their numbers of features, or a study lies in two of them.
    """
    if not parts or any(not np.array_equal(part.widths, parts[0].widths) for part in parts):
        raise TableError("Features of different graders cannot be put together. Write them with graders of one kind.")
    cases = np.concatenate([part.case for part in parts])
    if len(set(cases.tolist())) < len(cases):
        raise TableError("A study lies in two files of features. Give each study once.")
    rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "features", "present", "label")}
    graders = [one if all(part.grader[at] == one for part in parts) else "" for at, one in enumerate(parts[0].grader.tolist())]
    return replace(parts[0], case=cases, **rows, grader=np.array(graders))


def _moved(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Values (…, F) moved as `start` (N, F) has to be to come nearest to `end` (N, F)."""
    first, last = start.mean(axis=0), end.mean(axis=0)
    turn, _ = orthogonal_procrustes(start - first, end - last)
    scale = np.linalg.norm(end - last) / max(np.linalg.norm(start - first), np.finfo(np.float32).tiny)
    moved: np.ndarray = (values - first) @ turn * scale + last
    return moved.astype(np.float32)
