"""The official RSNA 2024 score: as a function of two tables, and as an Ignite metric that works over several processes.

The arithmetic lies in `score.py`, which needs no torch; what belongs to the score can be had from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from monai_spine.anatomy import Severity, Target
from monai_spine.training.score import PARTS, Score, ScoredRows, official_score, reweight, score_rows

__all__ = ["PARTS", "OfficialScoreMetric", "Score", "official_score", "reweight", "score_rows"]

_ROW = tuple[int, tuple[float, ...]]
_CHOICES = ("score", "mean_of_parts", *PARTS)


class OfficialScoreMetric(Metric):
    """The official score, or a part of it, over an epoch. Lower is better.

    An update is `(targets, studies, probabilities, labels)`, sequences of equal length: slugs of targets; names or numbers of
    studies; three probabilities each (N, 3), already through a softmax; indices of severities, where -1 or None is a row without
    a label and not scored. With MONAI's engines, `output_transform=from_engine(["target", "case", "pred", "label"])` gives this
    from decollated batches.

    A row is known by study and target. One that comes twice, as when a distributed sampler repeats cases to make the shares of
    all processes equal, counts once, with the prediction of the lowest rank and there the last one. With several processes,
    `compute` is a collective call and returns the same number on each.

    Args:
        part: "score", one of `PARTS`, or "mean_of_parts": the mean of those parts that have labels, for a model that grades one
            condition only.
        reweighted: Scale probabilities by 1/2/4 first (`reweight`): for a model that is trained without these weights.
        output_transform: Takes an engine's output to an update.
        device: Where tensors of a distributed reduction would lie; the rows themselves are kept on the CPU.

    Raises:
        ValueError: The part is unknown.
    """

    def __init__(
        self,
        part: str = "score",
        *,
        reweighted: bool = False,
        output_transform: Any = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        if part not in _CHOICES:
            raise ValueError(f"Unknown part {part!r} of the official score. Choose from: {', '.join(_CHOICES)}.")
        self.part = part
        self.reweighted = reweighted
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all rows."""
        self._rows: dict[tuple[str, str], _ROW] = {}

    @reinit__is_reduced
    def update(self, output: tuple[Sequence[str], Sequence[Any], Any, Any]) -> None:
        """Take the rows of a batch.

        Raises:
            ValueError: The four differ in length, a row has not three probabilities, one of them is not finite or below 0, or a
                label is no severity.
            AnatomyError: A target is unknown.
        """
        targets, studies, probabilities, labels = output
        counts = [len(targets), len(studies), len(probabilities), len(labels)]
        if len(set(counts)) > 1:
            raise ValueError(f"Targets, studies, probabilities and labels must be of one length, got {counts}.")
        for target, study, row, label in zip(targets, studies, probabilities, labels, strict=True):
            index = _label_index(label)
            values = _probability_row(row)
            if index >= 0:
                self._rows[(_plain(study), Target.parse(target).slug)] = (index, values)

    def compute(self) -> float:
        """The chosen part.

        Raises:
            NotComputableError: No process has a row with a label.
        """
        score = self.compute_score()
        return float(getattr(score, self.part))

    def compute_score(self) -> Score:
        """The whole score with its four parts.

        Raises:
            NotComputableError: No process has a row with a label.
        """
        rows = self._gathered()
        if not rows:
            raise NotComputableError("The official score needs at least one row with a label before it can be computed.")
        labels = np.array([label for label, _ in rows.values()], dtype=np.int64)
        probabilities = np.array([values for _, values in rows.values()], dtype=np.float64)
        return score_rows(
            ScoredRows(
                study=np.array([study for study, _ in rows], dtype=object),
                group=np.array([Target.parse(target).condition.score_group for _, target in rows], dtype=object),
                label=labels,
                weight=np.array([severity.weight for severity in Severity], dtype=np.float64)[labels],
                probabilities=reweight(probabilities) if self.reweighted else probabilities,
            )
        )

    def _gathered(self) -> dict[tuple[str, str], _ROW]:
        """Rows of all processes, sorted so that the sum does not depend on who had which."""
        shares = idist.all_gather(self._rows) if idist.get_world_size() > 1 else [self._rows]
        merged: dict[tuple[str, str], _ROW] = {}
        for share in reversed(shares):
            merged.update(share)
        return dict(sorted(merged.items()))


def _plain(study: Any) -> str:
    return str(study.item() if isinstance(study, torch.Tensor) else study)


def _label_index(label: Any) -> int:
    """-1 for no label, else 0, 1 or 2."""
    if label is None:
        return -1
    values = np.asarray(label, dtype=np.float64).reshape(-1)
    index = int(values[0]) if values.size == 1 and np.isfinite(values[0]) else len(Severity)
    if index != values[0] or not -1 <= index < len(Severity):
        raise ValueError(f"A label must be 0, 1, 2, or -1 for none, got {values.tolist()}.")
    return index


def _probability_row(row: Any) -> tuple[float, ...]:
    values = torch.as_tensor(row).detach().cpu().to(torch.float64)
    if values.shape != (len(Severity),):
        raise ValueError(f"A row must have {len(Severity)} probabilities, got shape {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not float(values.sum()) > 0:
        raise ValueError(
            f"Probabilities must be finite, 0 or more and not all 0, got {values.tolist()}. Softmax the logits first."
        )
    return tuple(values.tolist())
