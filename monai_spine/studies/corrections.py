"""Corrections of single findings that no rule can make, listed in a table with the reason for each.

    study_id,targets,action,reason

`targets` are slugs parted by spaces; empty for the whole study. Actions: `exclude` leaves out the study, or the points of its
findings; `swap_sides` gives findings the name of the other side, with point and grade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monai_spine.anatomy import TARGETS, Target
from monai_spine.errors import AnatomyError, TableError
from monai_spine.studies.source_table import SourceTable

__all__ = ["CORRECTIONS_PATH", "Correction", "read_corrections"]

CORRECTIONS_PATH = Path(__file__).with_name("rsna2024_corrections.csv")
_COLUMNS = ("study_id", "targets", "action", "reason")
_ACTIONS = ("exclude", "swap_sides")


@dataclass(frozen=True)
class Correction:
    """One line of the list.

    Attributes:
        targets: What it is about; None: the whole study.
        action: `exclude` or `swap_sides`.
        reason: What was seen.
    """

    targets: tuple[Target, ...] | None
    action: str
    reason: str

    @property
    def renamed(self) -> dict[Target, Target]:
        """Old to new names."""
        return {target: target.mirrored for target in self.targets or ()} if self.action == "swap_sides" else {}

    @property
    def dropped(self) -> tuple[Target, ...]:
        """Findings whose points are left out."""
        return (TARGETS if self.targets is None else self.targets) if self.action == "exclude" else ()


def read_corrections(path: Path | str = CORRECTIONS_PATH) -> Mapping[int, tuple[Correction, ...]]:
    """The corrections of each study.

    Raises:
        TableError: The list breaks its specification.
    """
    table = SourceTable.read(path, columns=_COLUMNS)
    actions, studies = table.one_of("action", _ACTIONS), table.whole_numbers("study_id")
    found: dict[int, list[Correction]] = defaultdict(list)
    for at, (targets, reason) in enumerate(zip(table.cells["targets"], table.cells["reason"], strict=True)):
        try:
            named = tuple(Target.parse(slug) for slug in targets.split()) or None
        except AnatomyError as error:
            raise TableError(f"{path}, line {table.cells.index[at]}: {error}") from error
        found[int(studies[at])].append(Correction(named, actions[at], reason))
    return {study: tuple(corrections) for study, corrections in found.items()}
