"""Draw a simulated spine on the voxels of a scan: tissues painted one over the other, each with a soft edge.

All paint happens on lists of points (n,) in column coordinates; a canvas holds one signal per pulse sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import Side
from monai_spine.phantom.profiles import ColumnProfiles
from monai_spine.phantom.spine import Spine
from monai_spine.phantom.textures import Textures, Unevenness
from monai_spine.phantom.tissues import TISSUES, Sequence

__all__ = ["Patient", "Points", "marrow_texture", "paint_background", "paint_column"]

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.intp]

_EDGE_MM = 0.7


@dataclass(frozen=True)
class Patient:
    """A spine with the tables and textures that are the same in each of its series."""

    spine: Spine
    profiles: ColumnProfiles
    textures: Textures
    unevenness: Unevenness


@dataclass(frozen=True)
class Points:
    """Places to draw, in column coordinates (mm), each (n,)."""

    u: Floats
    v: Floats
    s: Floats

    def where(self, mask: npt.NDArray[np.bool_]) -> Points:
        return Points(self.u[mask], self.v[mask], self.s[mask])


class _Canvas:
    """Signals of n points under several sequences."""

    def __init__(self, sequences: Listed[Sequence], count: int) -> None:
        self.levels = np.array([[seq.signal(tissue) for tissue in TISSUES.values()] for seq in sequences], dtype=np.float32)
        self.index = {name: position for position, name in enumerate(TISSUES)}
        self.signal = np.zeros((len(sequences), count), dtype=np.float32)

    def lay(self, cover: Floats, tissue: str, *, texture: Floats | float = 1.0, at: Rows | None = None) -> None:
        """Lay a tissue over what is there, `cover` from 0 to 1, on all points or on those in `at`."""
        touched = np.flatnonzero(cover)
        grain = texture[touched] if isinstance(texture, np.ndarray) else np.float32(texture)
        levels = self.levels[:, self.index[tissue], None] * grain
        self._blend(cover[touched], levels, touched if at is None else at[touched])

    def mix(self, cover: Floats, first: str, second: str, share: Floats, *, at: Rows | None = None) -> None:
        """Lay a mixture: `share` of the second tissue, the rest the first."""
        touched = np.flatnonzero(cover)
        some = share[touched]
        levels = self.levels[:, self.index[first], None] * (1 - some) + self.levels[:, self.index[second], None] * some
        self._blend(cover[touched], levels, touched if at is None else at[touched])

    def _blend(self, cover: Floats, levels: Floats, rows: Rows) -> None:
        for row, level in zip(self.signal, levels, strict=True):
            below = row[rows]
            row[rows] = below + cover * (level - below)


def paint_background(patient: Patient, sequences: Listed[Sequence], points: Points) -> Floats:
    """Everything far from the canal: skin, fat, muscles, vessels, belly. Signals (sequences, n)."""
    spine, textures = patient.spine, patient.textures
    canvas = _Canvas(sequences, points.u.size)
    u, v, s = points.u, points.v, points.s
    fine, coarse = textures.streaks(u, v, s), textures.coarse(u, v, s)
    arch = -spine.canal_depth_mm - 6
    skin = arch - spine.muscle_mm - spine.fat_mm - 6 * np.cos(s / 40)
    canvas.mix(np.ones_like(u), "fat", "bowel", np.clip(0.7 + 1.1 * coarse + 0.3 * fine, 0.1, 1))
    behind = _soft(v - 6 - 0.25 * np.abs(u))
    streaks = np.clip(0.8 * fine + 0.35 * coarse + 0.9 * spine.muscle_fat - 0.25, 0.03, 0.7)
    canvas.mix(behind, "muscle", "fat", streaks)
    psoas = _ellipse(np.abs(u) - 36 - 0.05 * np.maximum(-s, 0), v - 6, 15 - 0.03 * s, 19)
    canvas.mix(_soft(psoas), "muscle", "fat", np.clip(1.5 * fine + 0.4 * spine.muscle_fat - 0.1, 0, 0.6))
    canvas.lay(_soft(_ellipse(u + 10, v - 47, 9.0, 9.0)), "air", texture=0.0)
    canvas.lay(_soft(_ellipse(u - 13, v - 46, 10.0, 7.0)), "air", texture=0.0)
    subcutaneous = _soft(v - (skin + spine.fat_mm) - 3 * np.sin(s / 25))
    canvas.lay(subcutaneous, "fat", texture=1 + 0.25 * fine)
    fascia = _soft(np.abs(v - (skin + spine.fat_mm) - 3 * np.sin(s / 25)) - 0.8)
    canvas.lay(fascia, "ligament")
    canvas.lay(_soft(v - skin), "air", texture=0.0)
    canvas.lay(_soft(-(v - spine.body_depth_mm["L3"] - 90 - 8 * coarse)), "air", texture=0.0)
    return canvas.signal


def marrow_texture(patient: Patient, points: Points) -> Floats:
    """Brightness of marrow relative to the textbook's: the patient's own share of fat, trabeculae and fatty islands."""
    fine, coarse = (texture(points.u, points.v, points.s) for texture in (patient.textures.fine, patient.textures.coarse))
    return np.asarray(patient.spine.marrow_brightness * (1 + 0.2 * fine + 0.28 * coarse))


def paint_column(patient: Patient, sequences: Listed[Sequence], points: Points, *, background: Floats, bone: Floats) -> Floats:
    """Bones, discs, canal, recesses and foramina over a background (sequences, n) of the same points; `bone` textures marrow."""
    spine, profiles, textures = patient.spine, patient.profiles, patient.textures
    canvas = _Canvas(sequences, points.u.size)
    canvas.signal[:] = background
    rows = profiles.index_of(points.s)
    names = ("into_body", "waist", "depth", "width", "from_disc", "from_body", "sacral")
    table = {name: profiles.at(name, rows) for name in names}
    _paint_arches(canvas, spine, points, table, bone)
    for side in Side:
        _paint_foramen(canvas, spine, profiles, points, side)
    _paint_canal_fat(canvas, spine, profiles, points)
    _paint_bodies(canvas, profiles, points, table, bone)
    _paint_canal(canvas, spine, profiles, points, textures)
    return canvas.signal


def _paint_arches(canvas: _Canvas, spine: Spine, points: Points, table: Mapping[str, Floats], bone: Floats) -> None:
    """Pedicles, laminae, facets and spinous processes: marrow in a dark shell."""
    near = np.flatnonzero(points.v < 9)
    u, v = np.abs(points.u[near]), points.v[near]
    up, from_disc, sacral = (table[name][near] for name in ("from_body", "from_disc", "sacral"))
    lumbar, bone = 1 - sacral, bone[near]
    half_canal, back = spine.canal_width_mm / 2, -spine.canal_depth_mm
    pedicle = np.maximum(_ellipse(u - half_canal - 4.5, up - 5.5, 5.0, 7.5), np.abs(v + 4) - 10)
    side, rear = u - half_canal - 5.0, v - back - 0.5
    facet = np.maximum(_ellipse(0.8 * side + 0.6 * rear, 0.8 * rear - 0.6 * side, 6.6, 9.5), np.abs(from_disc - 1) - 14)
    lamina = np.maximum(np.abs(v - back + 5 + 0.55 * u) - 3.4, np.maximum(u - 18, np.abs(up + 7) - 10))
    spinous = np.maximum(np.maximum(u - 3.6, np.abs(up + 9 - 0.18 * (v - back)) - 9.5), np.maximum(v - back + 7, back - 32 - v))
    sacral_wing = np.maximum(u - 52, np.abs(v + 12) - 26 + 0.2 * u)
    for shape, limit in ((lamina, lumbar), (spinous, lumbar), (facet, lumbar), (pedicle, lumbar), (sacral_wing, sacral)):
        canvas.lay(_soft(shape) * limit, "ligament", at=near)
        canvas.lay(_soft(shape + 1.3) * limit, "marrow", texture=bone, at=near)
    joint = np.maximum(np.abs(0.8 * side + 0.6 * rear + 0.02 * (0.8 * rear - 0.6 * side) ** 2 - 1) - 0.9, facet + 0.8)
    canvas.lay(_soft(joint) * lumbar, "ligament", at=near)
    canvas.lay(_soft(joint + 0.5) * lumbar * 0.8, "vein", at=near)


def _paint_foramen(canvas: _Canvas, spine: Spine, profiles: ColumnProfiles, points: Points, side: Side) -> None:
    """A keyhole of fat with the root in its upper part; lost space closes it from below, from the front and from behind."""
    sign = 1 if side is Side.RIGHT else -1
    near = np.flatnonzero((sign * points.u > 5) & (sign * points.u < 40) & (np.abs(points.v + 4) < 18))
    u, v, s = sign * points.u[near], points.v[near], points.s[near]
    rows = profiles.index_of(s)
    half, push, height, middle, forward, raised, from_disc, sacral = (
        profiles.at(name, rows)
        for name in (
            *(f"foramen_{name}_{side}" for name in ("open", "push", "height", "u", "v", "s")), "from_disc", "sacral",
        )
    )  # fmt: skip
    up = from_disc - 5.0 - raised
    along = _soft(np.abs(u - middle) - 7.5) * (1 - sacral)
    soft = np.maximum(_ellipse(up + 1, v + 4 - forward, 13.0, 9.0), np.abs(u - middle) - 7.5)
    canvas.lay(_soft(soft) * (1 - sacral) * 0.75, "muscle", texture=0.8, at=near)
    center = -4.0 + 0.5 * push + forward
    key = np.where(up > 1, half, half * (0.72 + 0.04 * np.clip(up, -7, 1)))
    opening = _ellipse(up - 0.12 * (9.8 - height), v - center, height, np.maximum(key, 0.35))
    canvas.lay(_soft(opening) * along, "fat", at=near)
    squeezed = np.minimum(2.7, np.maximum(half - 0.15, 0.7))
    root = _ellipse(up - 3.6 + 0.1 * (u - middle), v - center - 0.2, 2.7**2 / squeezed * 0.5 + 1.35, squeezed)
    canvas.lay(_soft(root) * _soft(np.abs(u - middle) - 11), "root", at=near)


def _paint_canal_fat(canvas: _Canvas, spine: Spine, profiles: ColumnProfiles, points: Points) -> None:
    """The canal's content behind the bodies: epidural fat within the flavum."""
    near = np.flatnonzero((np.abs(points.u) < 17) & (points.v < 3) & (points.v > -34))
    u, v = points.u[near], points.v[near]
    rows = profiles.index_of(points.s[near])
    flavum, from_disc = profiles.at("flavum", rows), profiles.at("from_disc", rows)
    wall = _ellipse(u, v + spine.canal_depth_mm / 2, spine.canal_width_mm / 2 + 0.8, spine.canal_depth_mm / 2 + 1.2)
    canvas.lay(_soft(wall), "flavum", at=near)
    back = profiles.at("sac_back", rows)
    corner = np.maximum(np.abs(u) - spine.epidural_fat_mm + 0.5 * np.abs(v + spine.canal_depth_mm), v - back)
    inner = np.maximum(wall + 0.5 * flavum, np.maximum(-(v - back - 7), -(v + spine.canal_depth_mm + 2.5)))
    canvas.lay(_soft(inner), "fat", texture=0.8, at=near)
    canvas.lay(_soft(np.maximum(corner, np.abs(from_disc - 6) - 12)), "fat", texture=0.9, at=near)


def _paint_bodies(canvas: _Canvas, profiles: ColumnProfiles, points: Points, table: Mapping[str, Floats], bone: Floats) -> None:
    """Vertebral bodies with endplates, discs with nucleus and annulus, veins at the back of the bodies."""
    near = np.flatnonzero((points.v > -16) & (np.abs(points.u) < 36))
    u, v, bone = points.u[near], points.v[near], bone[near]
    into, depth, width, waist = (table[name][near] for name in ("into_body", "depth", "width", "waist"))
    rows = profiles.index_of(points.s[near])
    degeneration, bulge = profiles.at("degeneration", rows), profiles.at("disc_bulge", rows)
    half_depth, half_width = depth / 2 * waist, width / 2 * waist
    section = _ellipse(u, v - depth / 2, half_width, half_depth * 1.12)
    section = np.maximum(section, -(v - 0.18 * (1 - waist) * depth))
    center_mm = np.clip(1 - (u / half_width) ** 2 - ((v - depth / 2) / half_depth) ** 2, 0, 1)
    body = np.maximum(section, -into + 1.6 * center_mm * (1 - degeneration * 0.5))
    margin = _ellipse(u, v - depth / 2 + 0.4 * bulge, width / 2 + 1.0 + 1.5 * degeneration, depth / 2 * 1.1 + 0.8 * degeneration)
    focal = bulge * np.exp(-((u / 9.0) ** 4))
    disc = np.maximum(np.minimum(margin, _back_bulge(u, v, focal, depth)), -(v + 0.6 + focal))
    disc = np.maximum(disc, into - 0.4)
    canvas.lay(_soft(disc), "annulus", at=near)
    nucleus = _ellipse(u, v - 0.48 * depth, 0.62 * width / 2, 0.56 * depth / 2)
    dark = np.clip(degeneration + 0.35 * _soft(np.abs(into + 3.2) - 0.8) * (degeneration < 0.7), 0, 1)
    canvas.mix(_soft(np.maximum(nucleus, into + 0.9), 3.0), "nucleus", "nucleus_degenerate", dark, at=near)
    canvas.lay(_soft(np.minimum(body, np.maximum(body - 0.7, -into - 1))), "ligament", at=near)
    canvas.lay(_soft(body + 1.0), "marrow", texture=bone, at=near)
    vein = np.maximum(np.abs(table["from_body"][near]) - 1.4, np.maximum(np.abs(u) - 4, np.abs(v - 6) - 6.5))
    canvas.lay(_soft(vein) * (1 - table["sacral"][near]) * 0.8, "vein", at=near)


def _back_bulge(u: Floats, v: Floats, focal: Floats, depth: Floats) -> Floats:
    """The tongue of disc that stands out of the back margin."""
    return np.asarray(np.maximum(np.maximum(-(v + 0.6 + focal), v - 0.4 * depth), np.abs(u) - 13))


def _paint_canal(canvas: _Canvas, spine: Spine, profiles: ColumnProfiles, points: Points, textures: Textures) -> None:
    """Lateral recesses with their roots, then the sac with CSF (darker where it pulses), roots and the cord's end."""
    near = np.flatnonzero((np.abs(points.u) < 17) & (points.v < 3) & (points.v > -34))
    local = Points(points.u[near], points.v[near], points.s[near])
    rows = profiles.index_of(local.s)
    for side in Side:
        _paint_recess(canvas, spine, profiles, local, near, rows, side)
    front, back, half_width, csf, cord = (
        profiles.at(name, rows) for name in ("sac_front", "sac_back", "sac_half_width", "csf_share", "cord")
    )
    half_depth, middle = (front - back) / 2, (front + back) / 2
    sac = _ellipse(local.u, local.v - middle, half_width, half_depth)
    canvas.lay(_soft(sac - 0.7), "ligament", texture=2.0, at=near)
    backward = np.clip((middle - local.v) / np.maximum(half_depth, 0.5), -1, 1)
    threads = textures.threads(local.u, local.v, local.s)
    roots = np.clip((threads - (csf - 0.55 - 0.35 * backward * csf)) * 3.5 + 0.5, 0, 1)
    flow = spine.csf_flow * np.clip(0.4 + 1.2 * textures.coarse(local.u, local.v, 0.6 * local.s), 0, 1)
    canvas.mix(_soft(sac), "csf", "root", np.clip(roots + flow, 0, 1), at=near)
    conus = _ellipse(local.u, local.v - middle, np.maximum(4.6 * cord, 0.1), np.maximum(3.6 * cord, 0.1))
    canvas.lay(_soft(conus + 0.6) * (cord > 0.05), "cord", at=near)


def _paint_recess(
    canvas: _Canvas, spine: Spine, profiles: ColumnProfiles, local: Points, near: Rows, rows: Rows, side: Side,
) -> None:  # fmt: skip
    """Fat around the descending root; the root is touched when a third of the depth is lost and flat when two thirds are."""
    sign = 1 if side is Side.RIGHT else -1
    depth, front = profiles.at(f"recess_depth_{side}", rows), profiles.at(f"recess_front_{side}", rows)
    out, forward = profiles.at(f"recess_u_{side}", rows), profiles.at(f"recess_v_{side}", rows)
    u = sign * local.u - spine.recess_u_mm - out
    wall = _ellipse(u + spine.recess_trim_mm / 2, local.v + 3.8 - forward, 5.6 - spine.recess_trim_mm / 2, 5.2)
    canvas.lay(_soft(wall), "flavum", at=near)
    middle = -1.0 + front + forward - depth / 2
    space = _ellipse(u, local.v - middle, 3.9, depth / 2)
    canvas.lay(_soft(space), "fat", at=near)
    thick = np.minimum(1.75, np.maximum(depth / 2 - 0.25, 0.5))
    root = _ellipse(u, local.v - middle, 1.75**2 / thick * 0.6 + 0.7, thick)
    canvas.lay(_soft(root + 0.1), "root", at=near)


def _ellipse(x: Floats, y: Floats, half_x: Floats | float, half_y: Floats | float) -> Floats:
    """Signed distance to an ellipse, good near its edge: negative inside."""
    scaled_x, scaled_y = x / half_x, y / half_y
    radius = np.sqrt(scaled_x * scaled_x + scaled_y * scaled_y)
    slope = np.sqrt((scaled_x / half_x) ** 2 + (scaled_y / half_y) ** 2)
    return np.asarray((radius - 1) * radius / np.maximum(slope, 1e-3), dtype=np.float32)


def _soft(distance_mm: Floats, width_mm: float = _EDGE_MM) -> Floats:
    """Cover from a signed distance: 1 inside, 0 outside, linear across the edge."""
    return np.asarray(np.clip(0.5 - distance_mm / width_mm, 0, 1))
