"""Name the discs of a column all at once: a dynamic programme over candidates and names.

A path goes from the head down and gives some candidates a name, each lower candidate a lower name. Its score is the sum of

- the evidence for each name where it is given, and a price for each name that is given to nobody (outside the field of view),
- a price for candidates that get no name although the network saw a disc there,
- the likelihood of each distance between neighbours (log-normal about 35 mm; a name left out in between doubles it),
- the evidence for the body between two neighbours, so that the bodies have a say in the numbering.

The best path (Viterbi) gives the names, the sum over all paths (forward-backward) the probability of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import DISCS
from monai_spine.level_candidates import Candidate

__all__ = ["DISC_SPACING_MM", "NAMED_PRIOR", "STANDARD_PRIOR", "ColumnPrior", "Numbering", "number_column"]

Floats = npt.NDArray[np.float64]
BodyEvidence = Callable[[Candidate, Candidate], Sequence[float]]

DISC_SPACING_MM = 35.0
"""Mean distance of neighbouring disc centres in adults (usual range 29–42)."""

_TINY = -1e9


@dataclass(frozen=True)
class ColumnPrior:
    """What is expected of a lumbar column.

    Attributes:
        spacing_mm: Mean distance of neighbouring discs.
        spacing_spread: Standard deviation of its logarithm.
        absent: Evidence below which a name is rather given to nobody.
        skipped: Probability that a disc between two seen ones was not seen.
        body_weight: How much the evidence of the bodies counts beside the discs'.
        floor: Added to every evidence, so that no single channel can forbid a name.
        same_disc_mm: Candidates nearer than this are two views of one disc.
    """

    spacing_mm: float = DISC_SPACING_MM
    spacing_spread: float = 0.2
    absent: float = 0.1
    skipped: float = 0.03
    body_weight: float = 0.5
    floor: float = 0.02
    same_disc_mm: float = 15.0


STANDARD_PRIOR = ColumnPrior()
"""Where the names are the localiser's own."""

NAMED_PRIOR = ColumnPrior(body_weight=0.0)
"""Where the names come from the naming network, which has seen the bodies too."""


@dataclass(frozen=True)
class Numbering:
    """Which candidate bears which name.

    Attributes:
        assigned: For each of `DISCS`, the position of its candidate, or None.
        probability: (candidates, levels): probability that the candidate's disc bears that name, over all numberings. Candidates
            nearer to each other than `ColumnPrior.same_disc_mm` are one disc, and share their probabilities.
        score: How much likelier this numbering is than that no disc bears a name: the logarithm of the ratio.
    """

    assigned: tuple[int | None, ...]
    probability: Floats
    score: float = 0.0


def number_column(candidates: Sequence[Candidate], body_evidence: BodyEvidence, prior: ColumnPrior = STANDARD_PRIOR) -> Numbering:
    """Name the candidates.

    Args:
        candidates: From the head down.
        body_evidence: Takes two candidates; gives for each body L1 … L5, S1 the probability that it is the one between them.
        prior: What is expected of a column.
    """
    if not candidates:
        return Numbering((None,) * len(DISCS), np.zeros((0, len(DISCS))))
    node = _node_scores(candidates, prior)
    edge = _edge_scores(candidates, body_evidence, prior)
    assigned, score = _viterbi(node, edge)
    points = np.array([candidate.point_ras_mm for candidate in candidates])
    same = np.linalg.norm(points[:, None] - points[None], axis=-1) < prior.same_disc_mm
    return Numbering(assigned, np.minimum(same.astype(float) @ _marginals(node, edge), 1.0), score)


def _node_scores(candidates: Sequence[Candidate], prior: ColumnPrior) -> Floats:
    """Gain of naming candidate c with level l over leaving both alone, (C, L)."""
    evidence = np.array([candidate.evidence for candidate in candidates])
    unused = np.log(1 - np.minimum(evidence.sum(1), 0.95))
    return np.asarray(np.log(evidence + prior.floor) - np.log(prior.absent) - unused[:, None])


def _edge_scores(candidates: Sequence[Candidate], body_evidence: BodyEvidence, prior: ColumnPrior) -> Floats:
    """Score of candidate c named l being followed by candidate d named m, (C, L, C, L)."""
    count, levels = len(candidates), len(DISCS)
    points = np.array([candidate.point_ras_mm for candidate in candidates])
    scores = np.full((count, levels, count, levels), _TINY)
    for upper, lower in combinations(range(count), 2):
        distance = float(np.linalg.norm(points[lower] - points[upper]))
        bodies = body_evidence(candidates[upper], candidates[lower]) if distance < 2 * prior.spacing_mm else [0.5] * levels
        for gap, price in ((1, 0.0), (2, np.log(prior.skipped))):
            deviation = np.log(distance / (gap * prior.spacing_mm)) / prior.spacing_spread
            for level in range(levels - gap):
                body = bodies[level] if gap == 1 else 0.5
                gain = prior.body_weight * np.log(2 * (body + prior.floor))
                scores[upper, level, lower, level + gap] = price - 0.5 * deviation**2 + gain
    return scores


def _viterbi(node: Floats, edge: Floats) -> tuple[tuple[int | None, ...], float]:
    """The best path's candidates, one or none for each name, and its score."""
    count, levels = node.shape
    best, origin = node.copy(), np.full((count, levels, 2), -1)
    for lower in range(count):
        for level in range(levels):
            arriving = best[:lower, :] + edge[:lower, :, lower, level]
            if arriving.size and arriving.max() > 0:
                origin[lower, level] = np.unravel_index(int(arriving.argmax()), arriving.shape)
                best[lower, level] = node[lower, level] + arriving.max()
    assigned: list[int | None] = [None] * levels
    score = max(float(best.max()), 0.0)
    if score == 0:
        return tuple(assigned), score
    candidate, level = (int(index) for index in np.unravel_index(int(best.argmax()), best.shape))
    while candidate >= 0:
        assigned[level] = candidate
        candidate, level = (int(index) for index in origin[candidate, level])
    return tuple(assigned), score


def _marginals(node: Floats, edge: Floats) -> Floats:
    """Probability of each name for each candidate, over all paths and the empty one."""
    count, levels = node.shape
    forward, backward = node.copy(), np.zeros_like(node)
    for lower in range(count):
        for level in range(levels):
            arriving = (forward[:lower, :] + edge[:lower, :, lower, level]).ravel()
            forward[lower, level] = node[lower, level] + _log_sum(np.append(arriving, 0.0))
    for upper in reversed(range(count)):
        for level in range(levels):
            leaving = (edge[upper, level, upper + 1 :] + node[upper + 1 :] + backward[upper + 1 :]).ravel()
            backward[upper, level] = _log_sum(np.append(leaving, 0.0))
    total = _log_sum(np.append(forward.ravel(), 0.0))
    return np.asarray(np.exp(np.minimum(forward + backward - total, 0.0)))


def _log_sum(values: Floats) -> float:
    largest = float(values.max())
    return largest + float(np.log(np.exp(values - largest).sum()))
