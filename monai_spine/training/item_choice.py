"""Some of a data list's items: of chosen levels and severities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_spine.anatomy import Level, Severity, Target
from monai_spine.errors import TableError

__all__ = ["chosen_items"]

Item = Mapping[str, Any]


def chosen_items(
    items: Sequence[Item], *, levels: Sequence[str] | None = None, severities: Sequence[str] | None = None
) -> list[Item]:
    """Those graded items that are of one of the levels and bear one of the severities.

    Args:
        items: Of `datalists.grading_items`.
        levels: Such as `L4/L5`; None: all.
        severities: Such as `severe`; None: all.

    Raises:
        AnatomyError: A level or severity is unknown.
        TableError: None is left.
    """
    at = {Level.parse(name) for name in levels or Level}
    labels = {Severity.parse(name).index for name in severities or Severity}
    chosen = [item for item in items if Target.parse(item["target"]).level in at and item["label"] in labels]
    if not chosen:
        raise TableError(
            f"None of {len(items)} items is at {', '.join(sorted(level.label for level in at))} with one of the labels "
            f"{sorted(labels)}: there is nothing to learn. Choose other levels or severities, or more items (limit)."
        )
    return chosen
