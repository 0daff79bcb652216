"""Degeneration of discs and vertebrae as a grader learns it: which crops there are, the loss, and what metrics are fed.

A network gives eight logits (B, 8), split into the heads of `degeneration.HEADS`. Labels are (B, 3), one for each head, or
`losses.MISSING`, which counts for nothing: a disc has no grade of a vertebra, nor a vertebra that of a disc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_spine.anatomy import DISCS, Level, Vertebra
from monai_spine.degeneration import HEADS, refuse_unknown_heads, split_heads
from monai_spine.geometry import Point
from monai_spine.studies.prepared import PreparedCase, read_datalist
from monai_spine.training.losses import MISSING

__all__ = ["DegenerationLoss", "answers", "degeneration_items"]


def degeneration_items(
    dataset_dir: Path | str | Sequence[Path | str], split: str, *, role: str, limit: int | None = None
) -> list[dict[str, Any]]:
    """One item per graded disc and vertebra of a prepared folder or several, for `GradingCrops`, from the head down; the first
    `limit` where one is given.

    Returns:
        Dicts with `image` (absolute path), `point_ras_mm`, `mirror` (False), `label` (one of each head), `target` (`l4_l5`,
        `l4`), `case`. Cases without a series of this role are left out.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, (str, Path)) else list(dataset_dir)
    items = []
    for datalist, case in [(found, case) for found in map(read_datalist, folders) for case in found.cases_of(split)]:
        images = [str((datalist.root / volume.image).resolve()) for volume in case.volumes if volume.role == role]
        places: list[tuple[Level | Vertebra, Point]] = [*case.discs.items(), *case.vertebrae.items()]
        for structure, point in sorted(places if images else [], key=lambda place: -place[1][2]):
            label = _label(case, structure.label)
            if max(label) > MISSING:
                where = {"image": images[0], "point_ras_mm": list(point), "mirror": False}
                items.append({**where, "label": label, "target": structure.slug, "case": case.case})
    return items[:limit]


def _label(case: PreparedCase, structure: str) -> list[int]:
    grade, node = case.degeneration.get(structure), case.schmorl_nodes.get(structure)
    of_disc = structure in DISCS
    known = {"grade": grade if of_disc else None, "vertebra": None if of_disc else grade}
    places = {head: HEADS[head].index(found) for head, found in known.items() if found is not None}
    return [places.get("grade", MISSING), MISSING if node is None else int(node), places.get("vertebra", MISSING)]


class DegenerationLoss(nn.Module):
    """The sum of each head's cross-entropy over those rows that it has a label for.

    With weights w, rows count by the weight of their label, and q ∝ w p is held against it, the best prediction under these
    weights, so that p, the softmax of the logits, stays the frequencies (as in `losses.GradeLoss`).

    Args:
        weights: Of each head's answers; None or an absent head: all alike.
        shares: What each head counts in the sum.
        label_smoothing: Of all heads.

    Raises:
        WeightsError: A head is unknown.
    """

    def __init__(
        self,
        weights: Mapping[str, Sequence[float]] | None = None,
        *,
        shares: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_unknown_heads([*(weights or {}), *(shares or {})])
        self.weights = {head: torch.tensor((weights or {}).get(head, [1.0] * len(names))) for head, names in HEADS.items()}
        self.shares = {head: (shares or {}).get(head, 1.0) for head in HEADS}
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits (B, 8) against labels (B, 3)."""
        total = logits.new_zeros(())
        for head, column in zip(HEADS, labels.to(logits.device).T, strict=True):
            known, weights = column != MISSING, self.weights[head].to(logits.device)
            if known.any():
                scored = split_heads(logits.float())[head][known] + weights.log()
                loss = nn.functional.cross_entropy(scored, column[known], weight=weights, label_smoothing=self.label_smoothing)
                total = total + self.shares[head] * loss
        return total


def answers(output: Sequence[Mapping[str, Any]], head: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (B, classes) and labels (B,) of one head, of a decollated batch. Ignite's confusion matrix leaves out -1."""
    both = torch.stack([torch.as_tensor(row["pred"]).float() for row in output])
    labels = torch.stack([torch.as_tensor(row["label"]).long() for row in output])
    return split_heads(both)[head], labels[:, list(HEADS).index(head)]
