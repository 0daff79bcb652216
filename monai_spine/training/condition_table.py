"""Write what both heads say of each crop as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from monai_spine.anatomy import KINDS, Severity
from monai_spine.training.condition_heads import split_heads
from monai_spine.training.predictions import SaveRows

__all__ = ["COLUMNS", "SaveConditions"]

COLUMNS: tuple[str, ...] = (
    "case",
    "target",
    "condition",
    "severity",
    *(kind.slug for kind in KINDS),
    *(severity.slug for severity in Severity),
    "true_condition",
    "true_severity",
)
"""What was asked, the most probable condition and severity, all probabilities, and what is true; empty: nobody graded it."""


class SaveConditions(SaveRows):
    """Write one row per crop, see `COLUMNS`."""

    def columns(self) -> Sequence[str]:
        return COLUMNS

    def row(self, example: Mapping[str, Any], answer: torch.Tensor) -> Sequence[str]:
        heads = split_heads(answer)
        called = [KINDS[int(heads["condition"].argmax())].slug, list(Severity)[int(heads["severity"].argmax())].slug]
        kind, severity = (int(value) for value in example["label"])
        true = [KINDS[kind].slug, list(Severity)[severity].slug if severity >= 0 else ""]
        numbers = [f"{float(value):.6f}" for value in answer]
        return [str(example["case"]), str(example["target"]), *called, *numbers, *true]
