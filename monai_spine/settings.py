"""What the caller chooses about an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_spine.anatomy import LEVELS, Level
from monai_spine.errors import AnatomyError, SeriesSelectionError
from monai_spine.series import Role, SeriesTable

__all__ = ["Settings", "parse_levels", "parse_role", "parse_series", "read_descriptions"]


@dataclass(frozen=True)
class Settings:
    """Choices of one analysis; the defaults suit a study that is in order.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        bundles: Folder of the bundles; None searches the usual places.
        series: SeriesInstanceUID to take for a role, whatever the headers say.
        descriptions: Description by study and series, from a table that is trusted more than the headers; see `assign_roles`.
        nifti_role: What a NIfTI file shows. None: a sagittal scan of unknown weighting.
        levels: Levels to grade; all five are localised.
    """

    device: str = "auto"
    bundles: Path | None = None
    series: Mapping[Role, str] = field(default_factory=dict)
    descriptions: SeriesTable = field(default_factory=dict)
    nifti_role: Role | None = None
    levels: tuple[Level, ...] = LEVELS

    def __post_init__(self) -> None:
        """Take the names of levels and roles for what they name.

        Raises:
            AnatomyError, SeriesSelectionError: There is no such level or role.
        """
        object.__setattr__(self, "levels", tuple(Level.parse(level) for level in self.levels))
        object.__setattr__(self, "series", {parse_role(role): uid for role, uid in self.series.items()})
        object.__setattr__(self, "nifti_role", None if self.nifti_role is None else parse_role(self.nifti_role))

    def to_json(self) -> dict[str, Any]:
        """The choices as they are recorded in every result."""
        return {
            "device": self.device,
            "series": {role.value: uid for role, uid in self.series.items()},
            "series_table": bool(self.descriptions),
            "nifti_role": self.nifti_role.value if self.nifti_role else None,
            "levels": [level.label for level in self.levels],
        }


def parse_series(choices: Sequence[str]) -> dict[Role, str]:
    """Read `sagittal_t2=1.2.3` from the command line.

    Raises:
        SeriesSelectionError: A choice has no `=`, an unknown role, no UID, or names a role twice.
    """
    chosen: dict[Role, str] = {}
    for choice in choices:
        name, equals, uid = choice.partition("=")
        if not equals or not uid.strip():
            raise _ChoiceError(f"--series {choice!r} is not ROLE=UID. Write for example --series sagittal_t2=1.2.840.1")
        role = parse_role(name)
        if role in chosen:
            raise _ChoiceError(f"--series names {role.value} twice. Give one series for each role.")
        chosen[role] = uid.strip()
    return chosen


def parse_role(name: str) -> Role:
    """Read a role's name.

    Raises:
        SeriesSelectionError: There is no such role.
    """
    choices = [role for role in Role if role is not Role.PICTURE]
    for role in choices:
        if name.strip().lower() == role.value:
            return role
    raise _ChoiceError(f"Unknown role {name!r}. Choose from: {', '.join(role.value for role in choices)}.")


def parse_levels(text: str) -> tuple[Level, ...]:
    """Read `L4/L5,L5/S1`, in any case and order, with `/` or `_`.

    Raises:
        AnatomyError: A level is unknown or not one of the five that are graded.
    """
    wanted = [Level.parse(name) for name in text.split(",") if name.strip()]
    strange = [level for level in wanted if level not in LEVELS]
    if strange or not wanted:
        named = strange[0].label if strange else repr(text)
        raise AnatomyError(f"--levels {named} is not graded. Choose from: {', '.join(LEVELS)}.")
    return tuple(level for level in LEVELS if level in wanted)


def read_descriptions(path: Path) -> dict[tuple[str, str], str]:
    """Read the competition's table of series: study id and series id, as text, to description.

    Raises:
        TableError: The table breaks its specification.
    """
    from monai_spine.studies.rsna2024 import read_series_descriptions

    table = read_series_descriptions(path)
    rows = zip(table["study_id"], table["series_id"], table["series_description"], strict=True)
    return {(str(study), str(series)): str(description) for study, series, description in rows}


class _ChoiceError(SeriesSelectionError):
    """A choice on the command line cannot be read: usage, not the study, is at fault."""

    exit_code = 2
