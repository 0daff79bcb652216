"""One study of the tables as a simulated patient: anatomy that fits the points, slices where the tables have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_spine.anatomy import LEVELS, Level, Target
from monai_spine.geometry import Point
from monai_spine.phantom.profiles import tabulate_profiles
from monai_spine.phantom.protocol import PlannedSeries, sample_exposure
from monai_spine.phantom.readers import Reading, sample_reading_of
from monai_spine.phantom.render import Patient
from monai_spine.phantom.replica.anatomy import bend_spine, fit_width, shift_findings
from monai_spine.phantom.replica.axial import AxialFit, fit_axial
from monai_spine.phantom.replica.fit import Canal, fit_canal, fit_midline
from monai_spine.phantom.replica.frames import sagittal_frames
from monai_spine.phantom.replica.slices import Slices, axial_slices, sagittal_slices, scale_of
from monai_spine.phantom.replica.tables import TablePoint, TableSeries, TableStudy
from monai_spine.phantom.scanner import SliceStack
from monai_spine.phantom.simulate import SimulatedPatient
from monai_spine.phantom.spine import Spine, sample_spine
from monai_spine.phantom.textures import Textures, Unevenness
from monai_spine.phantom.tissues import Sequence as PulseSequence
from monai_spine.phantom.tissues import sample_axial_t2, sample_sagittal_t1, sample_sagittal_t2, sample_stir

__all__ = ["Replica", "replicate"]

_RECESS_FRONT_MM = 4.7
_STIR_SHARE = 0.15


@dataclass(frozen=True)
class Replica:
    """A study of the tables, ready to be scanned.

    Attributes:
        table: What the tables say.
        simulated: The patient and the planned series, in the order of the tables.
        slices: For each series where each instance lies.
        scales: For each series, stored pixels per pixel of the real matrix.
        spacing_tags: For each series, which of SliceThickness and SpacingBetweenSlices its files have.
    """

    table: TableStudy
    simulated: SimulatedPatient
    slices: tuple[Slices, ...]
    scales: tuple[float, ...]
    spacing_tags: tuple[tuple[str, ...], ...]

    def locate(self, point: TablePoint) -> Point:
        """Where a point of the tables lies in this patient, RAS+ mm."""
        index = [series.series_id for series in self.table.series].index(point.series_id)
        return self.slices[index].locate(point.instance, point.x * self.scales[index], point.y * self.scales[index])


def replicate(table: TableStudy, *, seed: int, max_matrix: int = 640) -> Replica:
    """Build the patient of one study and plan its series. Quick: nothing is scanned yet.

    Args:
        table: What the tables say.
        seed: Fixes all that the tables leave open; a study does not depend on the others.
        max_matrix: Largest stored matrix; larger ones are stored smaller, over the same field of view.
    """
    rng = np.random.default_rng([seed, table.study_id])
    reading = sample_reading_of(rng, table.grades)
    spine = sample_spine(rng, reading)
    canal, frames = fit_canal(table, sagittal_frames(table, rng), rng)
    spine = fit_width(spine, table, frames)
    axials = tuple(_axial(series, table, canal, spine) for series in table.series if series.is_axial)
    midline, frames, edges = fit_midline(table, frames, axials, rng)
    centers = {level: (midline[level], canal.front_mm[level], canal.up_mm[level]) for level in LEVELS}
    spine = bend_spine(spine, centers, rng)
    by_series = {frame.series.series_id: sagittal_slices(frame, max_matrix, rng) for frame in frames}
    by_series |= {axial.series.series_id: axial_slices(axial, spine, edges, max_matrix, rng) for axial in axials}
    scales = {series.series_id: scale_of(series, max_matrix) for series in table.series}
    spine = shift_findings(spine, _places(table, by_series, scales), rng)
    return _assemble(table, reading, spine, by_series, seed=seed, scales=tuple(scales.values()))


def _axial(series: TableSeries, table: TableStudy, canal: Canal, spine: Spine) -> AxialFit:
    recesses = {}
    for level in LEVELS:
        tilt = canal.tilt_rad(level)
        ahead = _RECESS_FRONT_MM * np.array([np.cos(tilt), -np.sin(tilt)])
        recesses[level] = (canal.front_mm[level] + float(ahead[0]), canal.up_mm[level] + float(ahead[1]))
    out = spine.recess_u_mm - 0.7
    return fit_axial(series, table.points_on(series), recesses, recess_out_mm=out, tilt_rad=canal.tilt_rad(Level.L3_L4) + 0.05)


def _places(table: TableStudy, slices: Mapping[int, Slices], scales: Mapping[int, float]) -> dict[Target, Point]:
    """Where the points with a side lie."""
    found = {}
    for point in table.points:
        if point.target.side is not None:
            scale = scales[point.series_id]
            found[point.target] = slices[point.series_id].locate(point.instance, point.x * scale, point.y * scale)
    return found


def _assemble(
    table: TableStudy, reading: Reading, spine: Spine, slices: Mapping[int, Slices], *, seed: int, scales: tuple[float, ...]
) -> Replica:
    rng = np.random.default_rng([seed, table.study_id, 2])
    patient = Patient(spine, tabulate_profiles(spine, rng), Textures(rng), Unevenness(rng))
    in_order = tuple(slices[series.series_id] for series in table.series)
    planned = tuple(_plan(series, where.stacks, rng) for series, where in zip(table.series, in_order, strict=True))
    tags = tuple(_sample_tags(rng) for _ in table.series)
    simulated = SimulatedPatient(table.study_id, reading, patient, planned, (seed, table.study_id, 1))
    return Replica(table, simulated, in_order, scales, tags)


def _plan(series: TableSeries, stacks: Sequence[SliceStack], rng: np.random.Generator) -> PlannedSeries:
    return PlannedSeries(series.role, series.description, _sequence(series, rng), sample_exposure(rng), tuple(stacks))


def _sequence(series: TableSeries, rng: np.random.Generator) -> PulseSequence:
    if series.is_axial:
        return sample_axial_t2(rng)
    if series.role == "sagittal_t1":
        return sample_sagittal_t1(rng)
    return sample_stir(rng) if rng.random() < _STIR_SHARE else sample_sagittal_t2(rng)


def _sample_tags(rng: np.random.Generator) -> tuple[str, ...]:
    """Both in most series; the hidden test set had neither, and some scanners write one only."""
    draw = rng.random()
    if draw < 0.6:
        return ("SliceThickness", "SpacingBetweenSlices")
    return ("SliceThickness",) if draw < 0.8 else ()
