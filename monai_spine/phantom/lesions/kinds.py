"""Kinds of lesions, each a few numbers in mm in the frame of its level.

A lesion says of any points where their tissue came from and what is painted where tissue is new (`move`), and when it happens
(`order`): discs lose height and signal first, then walls move into the canal, and a vertebra slips last.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from monai_spine.anatomy import Side
from monai_spine.phantom.lesions.fields import (
    Local,
    behind_disc,
    bump,
    canal_walls,
    lowered,
    migrated,
    pushed_back,
    pushed_forward,
    slipped,
)
from monai_spine.phantom.lesions.sites import LevelSite

__all__ = [
    "Bulge",
    "DiscHeightLoss",
    "DiscSignalLoss",
    "EpiduralFat",
    "Extrusion",
    "FacetOvergrowth",
    "FlavumThickening",
    "Lesion",
    "Listhesis",
    "Moved",
    "Paint",
    "Protrusion",
    "described",
]


@dataclass(frozen=True)
class Paint:
    """Tissue that is new: which, how much of it (0 to 1, of the points' shape), and whether it only ever darkens."""

    tissue: str
    amount: Tensor
    brightness: float = 1.0
    darkens: bool = False


@dataclass(frozen=True)
class Moved:
    """What a lesion does at some points.

    Attributes:
        source: Where their tissue came from.
        paint: What is painted at these points; None: nothing.
        taken_mm: How much of the canal's depth is taken in front of, at and behind these points; None: nothing.
    """

    source: Local
    paint: Paint | None = None
    taken_mm: Tensor | None = None


class Lesion(ABC):
    """One change at one level. Units are mm; aside grows to the patient's right, up to the head."""

    order: ClassVar[int] = 1

    @abstractmethod
    def move(self, at: Local, site: LevelSite) -> Moved:
        """Where the tissue at some points came from, and what is new there."""


def _within(owner: object, name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{type(owner).__name__}.{name} must be in [{low:g}, {high:g}], got {value:g}.")


@dataclass(frozen=True)
class _DiscPush(Lesion):
    """The disc's back margin moves into the canal.

    Attributes:
        depth_mm: How far, at its middle.
        aside_mm: Where the middle lies: to the patient's right; negative to the left.
        half_width_mm, half_height_mm: From the middle to where 1/e of the push is left.
        brightness: Of the new tissue, against the disc's back.
    """

    depth_mm: float
    aside_mm: float = 0.0
    half_width_mm: float = 7.0
    half_height_mm: float = 5.5
    brightness: float = 1.0

    def __post_init__(self) -> None:
        _within(self, "depth_mm", self.depth_mm, 0, 20)
        _within(self, "aside_mm", self.aside_mm, -20, 20)
        _within(self, "half_width_mm", self.half_width_mm, 2, 30)
        _within(self, "half_height_mm", self.half_height_mm, 2, 15)
        _within(self, "brightness", self.brightness, 0, 2)

    def amount_mm(self, at: Local, site: LevelSite) -> Tensor:
        """The push at some points."""
        up = at.up - site.margin_up_mm
        across = bump(at.aside - self.aside_mm, self.half_width_mm) * behind_disc(at)
        return self.depth_mm * across * bump(up, self._half_height(up), 3)

    def _half_height(self, up: Tensor) -> float | Tensor:
        return self.half_height_mm

    def move(self, at: Local, site: LevelSite) -> Moved:
        source, distance, amount = pushed_back(at, site, self.amount_mm(at, site))
        beside_disc = 1 - bump(at.up - site.margin_up_mm, site.disc_half_height_mm)
        new = torch.sigmoid((amount - 0.9 - distance) / 0.35) * torch.sigmoid((distance + 0.2) / 0.4)
        paint = Paint("disc", new * (amount / (amount + 1)) * (0.25 + 0.65 * beside_disc), self.brightness)
        return Moved(source, paint, amount)


@dataclass(frozen=True)
class Bulge(_DiscPush):
    """A broad bulge of the disc's whole back margin."""

    half_width_mm: float = 20.0
    half_height_mm: float = 5.5


@dataclass(frozen=True)
class Protrusion(_DiscPush):
    """A focal push with a base wider than it is deep."""


@dataclass(frozen=True)
class Extrusion(_DiscPush):
    """A focal push that is deep and blunt, and may migrate.

    Attributes:
        migration_mm: How much farther it reaches upwards (downwards if negative) than half_height_mm.
    """

    half_width_mm: float = 6.0
    half_height_mm: float = 6.0
    migration_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "migration_mm", self.migration_mm, -12, 12)

    def _half_height(self, up: Tensor) -> float | Tensor:
        if not self.migration_mm:
            return self.half_height_mm
        along = up * math.copysign(1.0, self.migration_mm)
        return torch.where(along > 0, self.half_height_mm + abs(self.migration_mm), self.half_height_mm)

    def _dragged(self, at: Local, site: LevelSite) -> Local:
        if not self.migration_mm:
            return at
        return migrated(at, site, by_mm=0.4 * self.migration_mm, center_up_mm=site.margin_up_mm + 0.5 * self.migration_mm)

    def move(self, at: Local, site: LevelSite) -> Moved:
        return super().move(self._dragged(at, site), site)


@dataclass(frozen=True)
class _ArchPush(Lesion):
    """Tissue of the arch moves forward into the canal.

    Attributes:
        depth_mm: How far.
        half_height_mm: From the disc's height to where 1/e is left.
    """

    depth_mm: float
    half_height_mm: float = 8.0

    tissue: ClassVar[str] = "ligament"
    covered: ClassVar[float] = 0.75

    def __post_init__(self) -> None:
        _within(self, "depth_mm", self.depth_mm, 0, 20)
        _within(self, "half_height_mm", self.half_height_mm, 3, 25)

    @abstractmethod
    def across(self, aside: Tensor) -> Tensor:
        """The push from left to right, 1 at its most."""

    def amount_mm(self, at: Local, site: LevelSite) -> Tensor:
        """The push at some points."""
        return self.depth_mm * self.across(at.aside) * bump(at.up - site.margin_up_mm, self.half_height_mm)

    def move(self, at: Local, site: LevelSite) -> Moved:
        source, distance, amount = pushed_forward(at, site, self.amount_mm(at, site))
        new = torch.sigmoid((amount - 0.6 - distance) / 0.35) * torch.sigmoid((distance + 0.4) / 0.4)
        return Moved(source, Paint(self.tissue, self.covered * new * amount / (amount + 1)), amount)


@dataclass(frozen=True)
class FlavumThickening(_ArchPush):
    """Both flava grow forward, less so in the midline where they meet."""

    def across(self, aside: Tensor) -> Tensor:
        return bump((aside**2 + 4).sqrt() - 5.0, 6.0)


@dataclass(frozen=True)
class FacetOvergrowth(_ArchPush):
    """One side's facet grows into recess and foramen.

    Attributes:
        side: The patient's own.
    """

    side: Side = Side.LEFT

    covered: ClassVar[float] = 0.55

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "side", Side(self.side))

    def across(self, aside: Tensor) -> Tensor:
        return bump(aside - (13.0 if self.side is Side.RIGHT else -13.0), 7.5)


@dataclass(frozen=True)
class EpiduralFat(_ArchPush):
    """Fat behind the sac presses it forward."""

    half_height_mm: float = 13.0

    tissue: ClassVar[str] = "fat"
    covered: ClassVar[float] = 0.85

    def across(self, aside: Tensor) -> Tensor:
        return bump(aside, 9.0)


@dataclass(frozen=True)
class Listhesis(Lesion):
    """The vertebra above slips.

    Attributes:
        slip_mm: To the front, 2 to 10 mm; to the back if negative.
    """

    slip_mm: float

    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _within(self, "slip_mm", abs(self.slip_mm), 0, 10)

    def move(self, at: Local, site: LevelSite) -> Moved:
        return Moved(slipped(at, site, self.slip_mm))


@dataclass(frozen=True)
class DiscHeightLoss(Lesion):
    """The disc loses a share of its height."""

    share: float

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _within(self, "share", self.share, 0, 0.7)

    def move(self, at: Local, site: LevelSite) -> Moved:
        return Moved(lowered(at, site, self.share))


@dataclass(frozen=True)
class DiscSignalLoss(Lesion):
    """The nucleus loses a share of its brightness over its ligament-dark surroundings on T2."""

    share: float

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _within(self, "share", self.share, 0, 1)

    def move(self, at: Local, site: LevelSite) -> Moved:
        front, _ = canal_walls(at, site)
        along = (at.behind - site.disc_behind_mm) / (front - site.disc_behind_mm).clamp_min(8.0)
        over = (at.up - site.disc_height_at(at.behind)) / site.disc_half_height_mm
        away = along.square().square() + over.square().square() + (at.aside / 22.0).square().square()
        inside = torch.sigmoid(5 * (1 - away))
        return Moved(at, Paint("dry disc", self.share * inside, darkens=True))


def described(lesion: Lesion) -> dict[str, Any]:
    """The lesion's kind and parameters, as JSON holds them."""
    fields = asdict(lesion)  # type: ignore[call-overload]
    return {"kind": type(lesion).__name__} | {
        name: value.value if isinstance(value, Enum) else float(value) for name, value in fields.items()
    }
