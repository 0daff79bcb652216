"""Deal patients into parts of given shares, so that each part has its share of every class, the rarest above all.

Iterative stratification: of the rarest class that is left, every patient goes to the part that lacks it most.

Source: Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from monai_spine.errors import TableError

__all__ = ["stratified_parts"]


def stratified_parts(classes: Mapping[str, Mapping[str, int]], shares: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """Names of the patients of each part, sorted; always the same for the same patients, in whatever order.

    Args:
        classes: Patient to how often each class occurs in them.
        shares: Of each part; they add up to 1.

    Raises:
        TableError: The shares do not add up to 1, or there are fewer patients than parts.
    """
    if not np.isclose(sum(shares), 1) or min(shares) <= 0:
        raise TableError(f"The shares {list(shares)} must be above 0 and add up to 1.")
    if len(classes) < len(shares):
        raise TableError(f"{len(classes)} patients cannot be dealt into {len(shares)} parts. Prepare more studies.")
    names = sorted(classes, key=lambda name: hashlib.sha256(name.encode()).digest())
    labels = sorted({label for found in classes.values() for label in found})
    counts = np.array([[classes[name].get(label, 0) for label in labels] for name in names], dtype=float).reshape(len(names), -1)
    part_of = _deal(counts, np.asarray(shares, dtype=float))
    return tuple(
        tuple(sorted(name for name, own in zip(names, part_of, strict=True) if own == part)) for part in range(len(shares))
    )


def _deal(counts: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]) -> list[int]:
    """The part of each patient: counts are (patients, classes)."""
    wanted, room = np.outer(shares, counts.sum(0)), shares * len(counts)
    part_of = np.full(len(counts), -1)
    waiting = Counter(dict(enumerate((counts > 0).sum(0).tolist())))
    while (part_of < 0).any():
        left = {label: count for label, count in waiting.items() if count > 0}
        rarest = min(left, key=lambda label: (left[label], label)) if left else None
        free = part_of < 0
        for patient in np.flatnonzero(free & (counts[:, rarest] > 0) if rarest is not None else free):
            lack = wanted[:, rarest] if rarest is not None else room
            part = max(range(len(shares)), key=lambda one: (lack[one], room[one], -one))
            part_of[patient] = part
            wanted[part] -= counts[patient]
            room[part] -= 1
            waiting.subtract(np.flatnonzero(counts[patient] > 0).tolist())
    return [int(part) for part in part_of]
