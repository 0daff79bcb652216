"""Abstention: how often the grader errs on those findings that it is surest of.

Findings are kept by the probability of their most probable severity. Coverage is the share that is kept, risk the share of these
whose grade is wrong; what is not kept is left to a reader.

Source: El-Yaniv, Wiener, On the foundations of noise-free selective classification, JMLR 11, 2010; Geifman, El-Yaniv, Selective
classification for deep neural networks, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_spine.anatomy import Severity

__all__ = ["RiskCoverage", "risk_coverage"]


@dataclass(frozen=True)
class RiskCoverage:
    """Risk at every coverage that a threshold can reach, from few findings to all; rows of equal confidence go together.

    Attributes:
        threshold: Least confidence that is kept, (K,), falling.
        coverage: Share that is kept, (K,), up to 1.
        risk: Share of wrong grades among those, (K,).
        findings: How many there are in all.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    findings: int

    @property
    def area(self) -> float:
        """Mean risk over all coverages from 0 to 1; lower is better."""
        steps = np.diff(self.coverage, prepend=0.0)
        return float((steps * self.risk).sum())

    def coverage_at(self, risk: float) -> float:
        """The largest share that can be kept with no more than this risk; 0 where none can."""
        allowed = self.coverage[self.risk <= risk]
        return float(allowed.max()) if len(allowed) else 0.0

    def risk_at(self, coverage: float) -> float:
        """The risk where at least this share is kept."""
        return float(self.risk[np.searchsorted(self.coverage, min(coverage, self.coverage[-1]) - 1e-12)])


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Risk and coverage of frequencies (N, 3) against labels (N,).

    Raises:
        ValueError: The shapes do not fit, or there is no row.
    """
    if probabilities.shape != (len(labels), len(Severity)) or not len(labels):
        raise ValueError(f"Probabilities must be (N, 3) and labels (N,), N > 0, got {probabilities.shape} and {labels.shape}.")
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) < 0, True))
    kept = ends + 1
    return RiskCoverage(confidence[order][ends], kept / len(labels), wrong[order].cumsum()[ends] / kept, len(labels))
