"""What changes along the column, tabulated over arc length: endplates, canal walls, recesses, foramina.

A point looks its values up by its s; that is what makes a study quick to draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import LEVELS, Condition, Level, Side, Target
from monai_spine.phantom.spine import BODIES, DiscState, Spine

__all__ = [
    "FORAMEN_HALF_HEIGHT_MM",
    "FORAMEN_HALF_WIDTH_MM",
    "FORAMEN_HEIGHT_LOST",
    "FORAMEN_WIDTH_LOST",
    "ColumnProfiles",
    "tabulate_profiles",
]

Floats = npt.NDArray[np.floating[Any]]
Table = npt.NDArray[np.float64]

STEP_MM = 0.25

FORAMEN_HALF_WIDTH_MM, FORAMEN_HALF_HEIGHT_MM = 4.6, 9.8
FORAMEN_WIDTH_LOST, FORAMEN_HEIGHT_LOST = 0.92, 0.42
"""A foramen's opening from front to back and from below to above, and which share of each goes with the narrowing."""


@dataclass(frozen=True)
class ColumnProfiles:
    """Tables over s, one value every `STEP_MM` from `start_mm` on; lengths in mm.

    Attributes:
        into_body: Distance from the nearest endplate: positive inside a body, negative inside a disc.
        waist: How much narrower a body is here than at its ends, as a factor.
        depth, width: Of the body.
        from_disc, from_body: Offset from the nearest disc's and the nearest body's middle, upwards.
        degeneration: Of the nearest disc, 0 to 1.
        disc_bulge: How far the disc's or body's back margin stands into the canal in the midline.
        sac_front, sac_back: v of the thecal sac's front and back wall.
        sac_half_width: Of the thecal sac.
        csf_share: Share of the sac that is not filled by roots.
        flavum: Thickness of the flavum.
        recess_depth, recess_front: Of the lateral recess, by side.
        foramen_open, foramen_push: Half-width of the foramen's opening in v, and how far its front wall moved back, by side.
        foramen_u: Distance of the foramen's middle from the midline.
        foramen_v, foramen_s, recess_u, recess_v: How far these lie off their textbook place, by side; 0 unless a spine says so.
        cord: 1 where the cord fills the sac, falling to 0 at the end of the conus.
    """

    start_mm: float
    tables: dict[str, Floats]

    def at(self, name: str, index: npt.NDArray[np.intp]) -> Floats:
        """Values of one table at indices from `index_of`."""
        return np.asarray(self.tables[name][index])

    def index_of(self, s_mm: Floats) -> npt.NDArray[np.intp]:
        """The table row nearest to each s."""
        length = len(next(iter(self.tables.values())))
        return np.clip(((s_mm - self.start_mm) / STEP_MM + 0.5).astype(np.intp), 0, length - 1)


def tabulate_profiles(spine: Spine, rng: np.random.Generator) -> ColumnProfiles:
    """Tabulate a spine."""
    s = np.arange(spine.curve.s_mm[0], spine.curve.s_mm[-1], STEP_MM)
    tables = _body_tables(spine, s) | _canal_tables(spine, s, rng)
    for side in Side:
        tables |= _side_tables(spine, s, side, tables["sac_front"], rng)
    return ColumnProfiles(float(s[0]), {name: table.astype(np.float32) for name, table in tables.items()})


def _body_tables(spine: Spine, s: Table) -> dict[str, Table]:
    low, high = np.array([spine.body_s_mm[name] for name in BODIES]).T
    middle = (low + high) / 2
    inside = np.max(np.minimum(s[:, None] - low, high - s[:, None]), axis=1)
    nearest = np.argmin(np.abs(s[:, None] - middle), axis=1)
    gaps = (low[:-1] + high[1:]) / 2
    from_disc = s[:, None] - gaps
    disc = np.argmin(np.abs(from_disc), axis=1)
    relative = np.abs(s - middle[nearest]) / ((high - low)[nearest] / 2)
    graded = {level.vertebra_above.value: state.degeneration for level, state in spine.discs.items()}
    degeneration = np.array([graded.get(name, 0.15) for name in BODIES])[disc]
    return {
        "into_body": inside,
        "waist": 1 - 0.09 * (1 - np.clip(relative, 0, 1) ** 2),
        "depth": spine.depth_at(s),
        "width": np.interp(s, middle[::-1], [spine.body_width_mm[name] for name in BODIES[::-1]]),
        "from_disc": from_disc[np.arange(len(s)), disc],
        "from_body": s - middle[nearest],
        "degeneration": degeneration,
        "sacral": _ramp(high[BODIES.index("S1")] - 4 - s, 6.0),
    }


def _canal_tables(spine: Spine, s: Table, rng: np.random.Generator) -> dict[str, Table]:
    """The sac narrows from its normal size; depth takes about two thirds of the loss on a logarithmic scale, width the rest."""
    taper = np.interp(s, [spine.body_s_mm["S3"][0], spine.body_s_mm["S2"][0], spine.body_s_mm["L5"][0]], [0.12, 0.3, 1.0])
    depth = 0.80 * spine.canal_depth_mm * taper * _wobble(s, rng, 0.04)
    half_width = 0.38 * spine.canal_width_mm * taper**0.6 * _wobble(s, rng, 0.03)
    lost = {level: state.canal for level, state in spine.discs.items()}
    share = rng.uniform(0.55, 0.8)
    front = -1.3 - 3.0 * _bump(s - spine.disc_s_mm(Level.L5_S1), 18.0) * rng.uniform(0.2, 1.0)
    bulge, back = 0.0 * s, front - depth
    for level, state in spine.discs.items():
        kept = 1 - lost[level] * _bump(s - spine.disc_s_mm(level) - state.offset_mm, state.extent_mm)
        gone = depth * (1 - kept**share)
        front, back = front - state.from_front * gone, back + (1 - state.from_front) * gone
        half_width = half_width * kept ** (1 - share)
        bulge = bulge + state.from_front * gone * _bump(s - spine.disc_s_mm(level), state.extent_mm)
    section = np.pi * half_width * (front - back) / 2
    roots = spine.root_bulk * np.interp(s, [spine.disc_s_mm(Level.L5_S1) - 40, spine.disc_s_mm(Level.L1_L2)], [12.0, 62.0])
    conus = spine.disc_s_mm(Level.L1_L2) + rng.normal(0, 12)
    return {
        "sac_front": front,
        "sac_back": back,
        "sac_half_width": half_width,
        "csf_share": np.clip(1 - roots / np.maximum(section, 1.0), 0.06, 0.95),
        "disc_bulge": bulge,
        "flavum": 2.8 + 0.8 * (back - (front - depth)).clip(0),
        "cord": _ramp(s - conus, 14.0),
    }


def _side_tables(spine: Spine, s: Table, side: Side, sac_front: Table, rng: np.random.Generator) -> dict[str, Table]:
    """Recess and foramen of one side. A recess is lost along the disc and the upper facet, a foramen over its whole height."""
    recess = np.full_like(s, rng.normal(5.6, 0.4))
    recess_front, foramen_open, foramen_push = 0.0 * s, np.full_like(s, FORAMEN_HALF_WIDTH_MM * rng.normal(1, 0.07)), 0.0 * s
    height, center = np.full_like(s, 9.5), 0.0 * s
    for level, state in spine.discs.items():
        at = s - spine.disc_s_mm(level)
        lost = state.recess[side] * _bump(at - state.offset_mm, state.extent_mm + 1.0)
        recess_front = recess_front - _front_share(state) * recess * lost
        recess = recess * (1 - lost)
        near = np.abs(at) < 18
        narrow = state.foramen[side]
        foramen_open = np.where(near, foramen_open * (1 - FORAMEN_WIDTH_LOST * narrow), foramen_open)
        foramen_push = np.where(near, foramen_push - _front_share(state) * 2 * FORAMEN_HALF_WIDTH_MM * 0.8 * narrow, foramen_push)
        height = np.where(near, FORAMEN_HALF_HEIGHT_MM * (1 - FORAMEN_HEIGHT_LOST * narrow), height)
    foramina = {level: Target(Condition.NEURAL_FORAMINAL_NARROWING, side, level) for level in LEVELS}
    offset = [spine.foramen_u_mm(level) + spine.shift_mm(foramina[level])[0] for level in LEVELS[::-1]]
    return {
        f"recess_depth_{side}": recess,
        f"recess_front_{side}": np.minimum(recess_front, 0) + 0.35 * (sac_front + 1.3),
        f"foramen_open_{side}": foramen_open,
        f"foramen_push_{side}": foramen_push + center,
        f"foramen_height_{side}": height,
        f"foramen_u_{side}": np.interp(s, [spine.disc_s_mm(level) for level in LEVELS[::-1]], offset),
    } | _shift_tables(spine, s, side)


def _shift_tables(spine: Spine, s: Table, side: Side) -> dict[str, Table]:
    """Shifts of one side: foramina have those of the nearest level, recesses drift between levels."""
    levels = LEVELS[::-1]
    at = np.array([spine.disc_s_mm(level) for level in levels])
    foramina, recesses = (
        np.array([spine.shift_mm(Target(condition, side, level)) for level in levels])
        for condition in (Condition.NEURAL_FORAMINAL_NARROWING, Condition.SUBARTICULAR_STENOSIS)
    )
    nearest = np.argmin(np.abs(s[:, None] - at - 5.0), axis=1)
    return {
        f"foramen_v_{side}": foramina[nearest, 1],
        f"foramen_s_{side}": foramina[nearest, 2],
        f"recess_u_{side}": np.interp(s, at, recesses[:, 0]),
        f"recess_v_{side}": np.interp(s, at, recesses[:, 1]),
    }


def _front_share(state: DiscState) -> float:
    return 0.3 + 0.5 * state.from_front


def _bump(offset_mm: Table, extent_mm: float) -> Table:
    """1 at the middle, falling off like a Gaussian with a flat top."""
    return np.asarray(np.exp(-((np.abs(offset_mm) / (1.5 * extent_mm)) ** 3)))


def _ramp(value_mm: Table, width_mm: float) -> Table:
    """0 below -width/2, 1 above width/2, linear between."""
    return np.asarray(np.clip(value_mm / width_mm + 0.5, 0, 1))


def _wobble(s: Table, rng: np.random.Generator, amount: float) -> Table:
    """A slow, small variation around 1 along the column."""
    phase, wavelength = rng.uniform(0, 2 * np.pi), rng.uniform(60, 120)
    return np.asarray(1 + amount * np.sin(2 * np.pi * s / wavelength + phase))
