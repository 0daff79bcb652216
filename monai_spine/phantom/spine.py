"""One simulated spine: sizes, posture and degeneration, drawn around textbook means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, TARGETS, Condition, Level, Side, Target, Vertebra
from monai_spine.geometry import Point, Triple
from monai_spine.phantom.column import ColumnCurve, bend_column
from monai_spine.phantom.readers import Reading

__all__ = ["BODIES", "DiscState", "Spine", "sample_spine", "usual_shift_mm"]

Floats = npt.NDArray[np.float64]

BODIES = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2", "S3")
"""Vertebral bodies that are drawn, from the head down."""

_BODY_HEIGHT_MM = dict(zip(BODIES, (22, 23, 25, 26, 27, 27, 27, 25, 27, 23, 20), strict=True))
_DISC_HEIGHT_MM = {"T10": 5, "T11": 6, "T12": 7, "L1": 8, "L2": 9, "L3": 10, "L4": 11, "L5": 10, "S1": 3, "S2": 1.5}
# The sacrum tapers: front to back at mid-height, as a share of L5's; and its back wall leans more than its upper endplate does.
_SACRAL_DEPTH = {"S1": 0.72, "S2": 0.5, "S3": 0.38}
_SACRAL_TOP = 0.95
_SACRAL_LEAN_DEG, _STEEPEST_DEG = np.array([9.0, 11.0, 1.0]), 68.0
# Share of the lordosis L1–S1 that is bent at each disc, from L1/L2 to L5/S1.
_LORDOSIS_SHARE = np.array([0.08, 0.13, 0.18, 0.25, 0.36])
# Outward, front and up: where the points of RSNA 2024 lie in the median off the textbook place; foramina from L1/L2 to L5/S1.
_FORAMEN_USUAL_MM = dict(
    zip(LEVELS, ((0.0, -1.5, 3.0), (-0.3, -0.8, 3.0), (0.0, 0.7, 3.3), (0.0, 3.5, 3.7), (0.3, 6.0, 3.0)), strict=True)
)
_RECESS_USUAL_MM = (-0.7, -0.3, 0.0)
_SHIFT_DEVIATION_MM = {Condition.NEURAL_FORAMINAL_NARROWING: (1.0, 1.8, 2.0), Condition.SUBARTICULAR_STENOSIS: (0.6, 0.8, 0.0)}


def usual_shift_mm(target: Target) -> Triple:
    """How far a foramen or recess usually lies outward, in front of and above its textbook place."""
    return _FORAMEN_USUAL_MM[target.level] if target.condition is Condition.NEURAL_FORAMINAL_NARROWING else _RECESS_USUAL_MM


@dataclass(frozen=True)
class DiscState:
    """What is wrong at one disc.

    Attributes:
        degeneration: 0 healthy and bright to 1 dark and low.
        canal: Share of the thecal sac's section that is lost.
        recess: Share of the lateral recess's depth that is lost, by side.
        foramen: Share of the foramen that is lost, by side.
        from_front: Share of the loss that comes from the disc rather than from the flavum and facets.
        extent_mm: Half-length of the narrowing along the column.
        offset_mm: Where along the column it is deepest, relative to the disc's centre.
    """

    degeneration: float
    canal: float
    recess: Mapping[Side, float]
    foramen: Mapping[Side, float]
    from_front: float
    extent_mm: float
    offset_mm: float


@dataclass(frozen=True)
class Spine:
    """A patient's lumbar spine in mm, without any scanner.

    Attributes:
        curve: The back wall of the vertebral bodies.
        body_s_mm: Lower and upper end of each body along the curve, by name.
        body_depth_mm: Front to back at mid-height, by name.
        body_width_mm: Side to side, by name.
        canal_depth_mm: Back wall of the bodies to the laminae.
        canal_width_mm: Between the pedicles.
        discs: State of each graded disc.
        fat_mm: Thickness of the fat under the skin of the back.
        muscle_mm: From the laminae to that fat.
        muscle_fat: Share of fat streaks in the muscles.
        marrow_brightness: Of the marrow, relative to the textbook's.
        epidural_fat_mm: Half-width of the fat behind the sac.
        root_bulk: Size of the roots relative to the textbook's.
        csf_flow: Share of the signal of CSF that its pulsation takes away where it is strongest.
        seed: Fixes all textures.
        shifts_mm: How far the foramen or recess of a target lies outward, in front of and above its textbook place.
        recess_trim_mm: How far the recess's outer wall lies inside its textbook place, so that it does not cover near foramina.
    """

    curve: ColumnCurve
    body_s_mm: Mapping[str, tuple[float, float]]
    body_depth_mm: Mapping[str, float]
    body_width_mm: Mapping[str, float]
    canal_depth_mm: float
    canal_width_mm: float
    discs: Mapping[Level, DiscState]
    fat_mm: float
    muscle_mm: float
    muscle_fat: float
    marrow_brightness: float
    epidural_fat_mm: float
    root_bulk: float
    csf_flow: float
    seed: int
    shifts_mm: Mapping[Target, Triple] = field(default_factory=dict)
    recess_trim_mm: float = 0.0

    def depth_at(self, s_mm: Floats) -> Floats:
        """Front to back of the bodies at arc lengths, in mm; the sacrum is nearly as deep as L5 on top, and tapers."""
        knots = [(sum(self.body_s_mm[name]) / 2, self.body_depth_mm[name]) for name in BODIES]
        knots.insert(BODIES.index("S1"), (self.body_s_mm["S1"][1], _SACRAL_TOP * self.body_depth_mm["L5"]))
        at, depth = np.array(knots[::-1]).T
        return np.asarray(np.interp(s_mm, at, depth))

    def disc_s_mm(self, level: Level) -> float:
        """Arc length at the middle of a disc."""
        return (self.body_s_mm[level.vertebra_above.value][0] + self.body_s_mm[level.vertebra_below.value][1]) / 2

    def disc_point(self, level: Level) -> Point:
        """Centre of a disc, RAS+ mm."""
        depth = self.body_depth_mm[level.vertebra_above.value]
        return self.curve.to_ras(0.0, depth / 2, self.disc_s_mm(level))

    def canal_point(self, level: Level) -> Point:
        """Centre of the canal at the height of a disc, RAS+ mm."""
        return self.curve.to_ras(0.0, -self.canal_depth_mm / 2, self.disc_s_mm(level))

    def body_point(self, vertebra: Vertebra) -> Point:
        """Centre of a vertebral body, RAS+ mm."""
        low, high = self.body_s_mm[vertebra.value]
        return self.curve.to_ras(0.0, self.body_depth_mm[vertebra.value] / 2, (low + high) / 2)

    def target_point(self, target: Target) -> Point:
        """Where a reader would put the mark of a finding, RAS+ mm."""
        s = self.disc_s_mm(target.level)
        sign = 0 if target.side is None else (1 if target.side is Side.RIGHT else -1)
        out, front, up = self.shift_mm(target)
        if target.condition is Condition.NEURAL_FORAMINAL_NARROWING:
            return self.curve.to_ras(sign * (self.foramen_u_mm(target.level) + out), -4.0 + front, s + 5.0 + up)
        if target.condition is Condition.SUBARTICULAR_STENOSIS:
            return self.curve.to_ras(sign * (self.recess_u_mm + out), -3.5 + front, s + up)
        return self.canal_point(target.level)

    def shift_mm(self, target: Target) -> Triple:
        """How far a foramen or recess lies off its textbook place: outward, to the front and up."""
        return self.shifts_mm.get(target, (0.0, 0.0, 0.0))

    @property
    def recess_u_mm(self) -> float:
        """Distance of the lateral recess's middle from the midline."""
        return 0.42 * self.canal_width_mm + 0.5

    def foramen_u_mm(self, level: Level) -> float:
        """Distance of the foramen's middle from the midline; it grows downwards."""
        return self.canal_width_mm / 2 + 4.5 + 0.8 * LEVELS.index(level)


def sample_spine(rng: np.random.Generator, reading: Reading) -> Spine:
    """Draw a patient whose narrowings are those of a reading."""
    size = rng.normal(1.0, 0.06)
    discs = {level: _sample_disc(rng, reading, level) for level in LEVELS}
    body_s = _stack_bodies(rng, size, discs)
    width = {name: size * (38 + 1.3 * index) * rng.normal(1, 0.02) for index, name in enumerate(BODIES)}
    depth = {name: size * (28 + 0.8 * index) * rng.normal(1, 0.02) for index, name in enumerate(BODIES)}
    depth |= {name: depth["L5"] * share for name, share in _SACRAL_DEPTH.items()}
    return Spine(
        curve=_sample_curve(rng, body_s),
        body_s_mm=body_s,
        body_depth_mm=depth,
        body_width_mm=width,
        canal_depth_mm=float(np.clip(rng.normal(17, 2.3), 13, 22)) * size**0.5,
        canal_width_mm=float(np.clip(rng.normal(23.5, 2.6), 18, 30)) * size**0.5,
        discs=discs,
        fat_mm=float(rng.uniform(6, 45)),
        muscle_mm=float(rng.uniform(28, 45)),
        muscle_fat=float(rng.beta(2, 4)),
        marrow_brightness=float(rng.uniform(0.7, 1.2)),
        epidural_fat_mm=float(rng.uniform(2, 9)),
        root_bulk=float(rng.uniform(0.6, 1.7)),
        csf_flow=float(rng.uniform(0, 1)),
        seed=int(rng.integers(2**31)),
        shifts_mm={target: _sample_shift(rng, target) for target in TARGETS if target.side is not None},
    )


def _sample_shift(rng: np.random.Generator, target: Target) -> Triple:
    """Around the usual place, at most two standard deviations off."""
    drawn = np.clip(rng.normal(size=3), -2, 2) * _SHIFT_DEVIATION_MM[target.condition]
    out, front, up = (usual_shift_mm(target) + drawn).tolist()
    return out, front, up


def _sample_disc(rng: np.random.Generator, reading: Reading, level: Level) -> DiscState:
    """Degeneration rises with the narrowing at a level, loosely."""
    lost = {target: reading.narrowing_of(target) for target in _targets_at(level)}
    foramen = {side: lost[Target(Condition.NEURAL_FORAMINAL_NARROWING, side, level)] for side in Side}
    recess = {side: lost[Target(Condition.SUBARTICULAR_STENOSIS, side, level)] for side in Side}
    worst = max(lost.values())
    return DiscState(
        degeneration=float(np.clip(rng.normal(0.3 + 0.3 * worst, 0.3), 0, 1)),
        canal=lost[Target(Condition.SPINAL_CANAL_STENOSIS, None, level)],
        recess=recess,
        foramen=foramen,
        from_front=float(rng.uniform(0.35, 0.9)),
        extent_mm=float(rng.uniform(4.5, 8.0)),
        offset_mm=float(rng.normal(-0.5, 1.2)),
    )


def _targets_at(level: Level) -> list[Target]:
    return [Target(condition, side, level) for condition in Condition for side in condition.sides]


def _stack_bodies(rng: np.random.Generator, size: float, discs: Mapping[Level, DiscState]) -> dict[str, tuple[float, float]]:
    """Lower and upper ends of the bodies along the curve, with the middle of L3 at 0."""
    ends: dict[str, tuple[float, float]] = {}
    top = 0.0
    degenerate = {level.vertebra_above.value: state.degeneration for level, state in discs.items()}
    for name in BODIES:
        height = size * _BODY_HEIGHT_MM[name] * rng.normal(1, 0.035)
        ends[name] = (top - height, top)
        loss = 1 - 0.5 * degenerate.get(name, 0.1) ** 1.5
        top -= height + size * _DISC_HEIGHT_MM.get(name, 1) * max(0.35, rng.normal(1, 0.1)) * loss
    middle = sum(ends["L3"]) / 2
    return {name: (low - middle, high - middle) for name, (low, high) in ends.items()}


def _sample_curve(rng: np.random.Generator, body_s: Mapping[str, tuple[float, float]]) -> ColumnCurve:
    """Lordosis, sacral slope, thoracic start, scoliosis and where the patient lies."""
    lordosis = float(np.clip(rng.normal(48, 10), 22, 75))
    slope = float(np.clip(0.62 * lordosis + rng.normal(9, 5), 18, 58))
    share = _LORDOSIS_SHARE * rng.normal(1, 0.12, 5)
    lumbar = slope - lordosis * np.cumsum((share / share.sum())[::-1])[::-1]
    sacral = np.minimum(slope + _SACRAL_LEAN_DEG * rng.uniform(0.6, 1.6), _STEEPEST_DEG)
    thoracic = lumbar[0] + np.cumsum(rng.uniform(1, 4, 3))[::-1]
    tilts = np.concatenate([thoracic, lumbar, sacral])
    anchors = np.array([sum(body_s[name]) / 2 for name in BODIES])
    cobb = rng.normal(0, 5) if rng.random() < 0.8 else rng.normal(0, 14)
    leans = rng.normal(0, 2) + cobb * np.sin((anchors - rng.uniform(-40, 40)) / rng.uniform(35, 60))
    origin = (float(rng.normal(0, 6)), float(rng.normal(-20, 12)), float(rng.normal(0, 15)))
    return bend_column(anchors[::-1], tilts[::-1], leans[::-1], origin_ras_mm=origin)
