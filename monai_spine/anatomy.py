"""The vocabulary: levels, vertebrae, sides, conditions, severities and the 25 targets.

Every name that a person or a file sees is derived from here. Text for people is `label` ("L4/L5"), text for files, columns and
keys is `slug` ("l4_l5").
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import TypeVar

from monai_spine.errors import AnatomyError

__all__ = [
    "DISCS",
    "DISC_GRADES",
    "KINDS",
    "LEVELS",
    "TARGETS",
    "VERTEBRA_GRADES",
    "Condition",
    "Level",
    "Severity",
    "Side",
    "Target",
    "TargetKind",
    "Vertebra",
]

_Name = TypeVar("_Name", bound="_AnatomyEnum")


class _AnatomyEnum(str, Enum):
    """A closed list of names, each a string equal to its own value."""

    def __str__(self) -> str:
        return str(self.value)

    @property
    def label(self) -> str:
        """Text for people."""
        return str(self.value).replace("_", " ")

    @property
    def slug(self) -> str:
        """Text for files, columns and keys: lower case, words joined by `_`."""
        return str(self.value).lower().replace("/", "_")

    @classmethod
    def parse(cls: type[_Name], text: str) -> _Name:
        """Find a member by value or slug, whatever its case.

        Raises:
            AnatomyError: No member has this name; the message offers the nearest.
        """
        names = {name.lower(): member for member in cls for name in (member.value, member.slug)}
        wanted = text.strip().lower()
        if wanted in names:
            return names[wanted]
        near = get_close_matches(wanted, names, n=1)
        hint = f" Did you mean {names[near[0]].value!r}?" if near else ""
        choices = ", ".join(member.value for member in cls)
        raise AnatomyError(f"Unknown {cls.__name__.lower()} {text!r}.{hint} Choose from: {choices}.")


class Vertebra(_AnatomyEnum):
    """Vertebral bodies, from the head down. L6 exists in people with a transitional anatomy only."""

    T12 = "T12"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"
    L5 = "L5"
    L6 = "L6"
    S1 = "S1"


class Level(_AnatomyEnum):
    """Discs, named by the vertebra above and the one below, from the head down."""

    T12_L1 = "T12/L1"
    L1_L2 = "L1/L2"
    L2_L3 = "L2/L3"
    L3_L4 = "L3/L4"
    L4_L5 = "L4/L5"
    L5_S1 = "L5/S1"

    @property
    def label(self) -> str:
        return str(self.value)

    @property
    def vertebra_above(self) -> Vertebra:
        return Vertebra(self.value.split("/")[0])

    @property
    def vertebra_below(self) -> Vertebra:
        return Vertebra(self.value.split("/")[1])


LEVELS: tuple[Level, ...] = (Level.L1_L2, Level.L2_L3, Level.L3_L4, Level.L4_L5, Level.L5_S1)
"""The five levels that are graded, from the head down."""

DISCS: tuple[Level, ...] = (Level.T12_L1, *LEVELS)
"""The six discs that are looked for, from the head down; the uppermost is not graded."""


DISC_GRADES: tuple[str, ...] = ("normal", "bulge", "protrusion", "extrusion")
VERTEBRA_GRADES: tuple[str, ...] = ("normal", "degenerative")
"""Degeneration as one mid-sagittal T2 slice shows it, the mildest first."""


class Side(_AnatomyEnum):
    """The patient's own left and right."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def mirrored(self) -> Side:
        """The side after a left-right flip."""
        return Side.RIGHT if self is Side.LEFT else Side.LEFT


class Severity(_AnatomyEnum):
    """The three grades of the RSNA 2024 challenge, mildest first."""

    NORMAL_MILD = "normal_mild"
    MODERATE = "moderate"
    SEVERE = "severe"

    @property
    def label(self) -> str:
        """As the challenge's tables write it: `Normal/Mild`, `Moderate`, `Severe`."""
        return {"normal_mild": "Normal/Mild", "moderate": "Moderate", "severe": "Severe"}[self.value]

    @property
    def slug(self) -> str:
        return str(self.value)

    @property
    def index(self) -> int:  # type: ignore[override]
        """Position in probability vectors: 0, 1 or 2."""
        return list(Severity).index(self)

    @property
    def weight(self) -> int:
        """Sample weight in the official score: 1, 2 or 4."""
        return int(2**self.index)

    @classmethod
    def parse(cls, text: str) -> Severity:
        return super().parse("normal_mild" if text.strip().lower() == "normal/mild" else text)


class Condition(_AnatomyEnum):
    """What is graded. Two of the three have a side."""

    SPINAL_CANAL_STENOSIS = "spinal_canal_stenosis"
    NEURAL_FORAMINAL_NARROWING = "neural_foraminal_narrowing"
    SUBARTICULAR_STENOSIS = "subarticular_stenosis"

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """The sides on which it is graded: `(None,)` or left and right."""
        return (None,) if self is Condition.SPINAL_CANAL_STENOSIS else (Side.LEFT, Side.RIGHT)

    @property
    def score_group(self) -> str:
        """The name of its part in the official score: `spinal`, `foraminal` or `subarticular`."""
        return {"spinal_canal_stenosis": "spinal", "neural_foraminal_narrowing": "foraminal"}.get(self.value, "subarticular")


@dataclass(frozen=True)
class TargetKind:
    """A condition on a side: what the challenge calls a condition, five in all."""

    condition: Condition
    side: Side | None

    def __post_init__(self) -> None:
        if self.side not in self.condition.sides:
            raise AnatomyError(f"{self.condition.label} has no side {self.side}. Choose from: {self.condition.sides}.")

    @property
    def slug(self) -> str:
        """As in column names: `left_neural_foraminal_narrowing`, `spinal_canal_stenosis`."""
        return self.condition.slug if self.side is None else f"{self.side.slug}_{self.condition.slug}"

    @property
    def label(self) -> str:
        """As in the table of coordinates: `Left Neural Foraminal Narrowing`."""
        return self.slug.replace("_", " ").title()

    @property
    def mirrored(self) -> TargetKind:
        return self if self.side is None else TargetKind(self.condition, self.side.mirrored)


KINDS: tuple[TargetKind, ...] = tuple(TargetKind(condition, side) for condition in Condition for side in condition.sides)
"""All five: the canal, then left and right of the two with a side. The competition's train.csv has its columns in this order."""


@dataclass(frozen=True)
class Target:
    """One finding to grade: a condition, its side where it has one, and a level."""

    condition: Condition
    side: Side | None
    level: Level

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise AnatomyError(f"{self.level.label} is not graded. Choose from: {', '.join(LEVELS)}.")
        TargetKind(self.condition, self.side)

    @property
    def kind(self) -> TargetKind:
        return TargetKind(self.condition, self.side)

    @property
    def slug(self) -> str:
        """As in columns and row ids: `left_subarticular_stenosis_l4_l5`."""
        return f"{self.kind.slug}_{self.level.slug}"

    @property
    def label(self) -> str:
        """Text for people: `Left Subarticular Stenosis L4/L5`."""
        return f"{self.kind.label} {self.level.label}"

    @property
    def mirrored(self) -> Target:
        """The target that takes this one's place after a left-right flip."""
        return Target(self.condition, self.kind.mirrored.side, self.level)

    @classmethod
    def parse(cls, slug: str) -> Target:
        """Read a slug back.

        Raises:
            AnatomyError: The slug names no target.
        """
        for target in TARGETS:
            if target.slug == slug.strip().lower():
                return target
        raise AnatomyError(f"Unknown target {slug!r}. A target looks like {TARGETS[0].slug!r}.")


TARGETS: tuple[Target, ...] = tuple(
    sorted(
        (Target(condition, side, level) for condition in Condition for side in condition.sides for level in LEVELS),
        key=lambda target: target.slug,
    )
)
"""All 25 targets in the order of the official submission file."""
