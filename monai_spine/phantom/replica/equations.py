"""Linear equations between named unknowns, solved so that a few gross errors among them do not count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["Equations"]

Floats = npt.NDArray[np.float64]

_ROUNDS = 12
_GROSS = 2.0  # sigmas from which an equation begins to lose weight


class Equations:
    """Weighted least squares with Cauchy weights on the equations that may be wrong.

    Wrong equations often come together (all points of one side), and may pull a first guess so far that they look right to it.
    So the search starts once with all equations and once without each group, and the best end counts.

    Example:
        >>> equations = Equations()
        >>> for value in (1.0, 1.1, 0.9, 40.0):
        ...     equations.add({"x": 1.0}, value, sigma=0.1)
        >>> round(equations.solve()["x"], 1)
        1.0
    """

    def __init__(self) -> None:
        self._terms: list[Mapping[str, float]] = []
        self._values: list[float] = []
        self._sigmas: list[float] = []
        self._groups: list[str | None] = []

    def add(self, terms: Mapping[str, float], value: float, *, sigma: float, group: str | None = "") -> None:
        """State that the sum of factor × unknown is `value`, give or take `sigma`.

        Args:
            terms: Factor by the unknown's name.
            value: What they add up to.
            sigma: By how much it is usually off.
            group: Equations that are wrong together, if so; None for one that always counts.
        """
        self._terms.append(dict(terms))
        self._values.append(value)
        self._sigmas.append(sigma)
        self._groups.append(group)

    def solve(self) -> dict[str, float]:
        """The unknowns' values; one that no equation fixes stays as near to 0 as the others allow."""
        names = sorted({name for terms in self._terms for name in terms})
        matrix = np.array([[terms.get(name, 0.0) for name in names] for terms in self._terms])
        groups = sorted({group for group in self._groups if group})
        starts = [np.ones(len(matrix)), *(np.array([0.01 if own == group else 1.0 for own in self._groups]) for group in groups)]
        ends = [self._descend(matrix, start) for start in starts]
        best = min(ends, key=lambda end: end[1])[0]
        return dict(zip(names, best.tolist(), strict=True))

    def _descend(self, matrix: Floats, weights: Floats) -> tuple[Floats, float]:
        """Solution and cost that reweighting ends at, from one set of first weights."""
        values, sigmas = np.array(self._values), np.array(self._sigmas)
        doubted = np.array([group is not None for group in self._groups])
        weights = weights / sigmas
        for _ in range(_ROUNDS):
            found, *_ = np.linalg.lstsq(matrix * weights[:, None], values * weights, rcond=None)
            off = (matrix @ found - values) / sigmas
            weights = np.where(doubted, 1 / np.sqrt(1 + (off / _GROSS) ** 2), 1.0) / sigmas
        cost = np.where(doubted, _GROSS**2 * np.log1p((off / _GROSS) ** 2), off**2).sum()
        return np.asarray(found, dtype=np.float64), float(cost)
