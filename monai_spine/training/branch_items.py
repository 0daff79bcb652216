"""Training items of targets that are graded on several series together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_spine.anatomy import Condition
from monai_spine.training.datalists import Datalist, grading_items

__all__ = ["branch_items"]


def branch_items(datalist: Datalist, split: str, condition: Condition | str, roles: Sequence[str]) -> list[dict[str, Any]]:
    """One item per graded target of a condition that at least one of the roles has a series for.

    Args:
        datalist: Of a prepared study.
        split: `training`, `validation` or `test`.
        condition: What is graded.
        roles: Kinds of series, such as `sagittal_t2` and `axial_t2`.

    Returns:
        Dicts as `grading_items` gives them, with `files` (absolute path by role; a role without a series is absent) in place of
        `image`.
    """
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for role in roles:
        for item in grading_items(datalist, split, condition, role):
            path = item.pop("image")
            items.setdefault((item["case"], item["target"]), {**item, "files": {}})["files"][role] = path
    order = {case.case: number for number, case in enumerate(datalist.cases_of(split))}
    return sorted(items.values(), key=lambda item: order[item["case"]])
