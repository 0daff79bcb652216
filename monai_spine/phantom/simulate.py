"""One simulated study: a patient, a reader's grades, and the pixels of three series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_spine.phantom.profiles import tabulate_profiles
from monai_spine.phantom.protocol import PlannedSeries, plan_study
from monai_spine.phantom.readers import Reading, sample_reading
from monai_spine.phantom.render import Patient
from monai_spine.phantom.scanner import acquire
from monai_spine.phantom.spine import Spine, sample_spine
from monai_spine.phantom.textures import Textures, Unevenness

__all__ = ["FIRST_STUDY_ID", "SimulatedPatient", "SimulatedSeries", "simulate_patient", "simulate_pixels"]

FIRST_STUDY_ID = 900_000_001
"""Ids of simulated studies start here."""

Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class SimulatedPatient:
    """Everything about a study that is known before it is scanned.

    Attributes:
        study_id: As in the tables.
        reading: Latents and the reader's grades.
        patient: What is drawn.
        series: What is scanned.
        pixel_seed: Fixes the noise.
    """

    study_id: int
    reading: Reading
    patient: Patient
    series: tuple[PlannedSeries, ...]
    pixel_seed: tuple[int, ...]

    @property
    def spine(self) -> Spine:
        return self.patient.spine


@dataclass(frozen=True)
class SimulatedSeries:
    """A planned series with the pixels of its stacks, uint16 of shape (slices, rows, columns) each."""

    planned: PlannedSeries
    pixels: tuple[Pixels, ...]


def simulate_patient(
    index: int, *, seed: int, max_matrix: int = 640, plan: Callable[..., tuple[PlannedSeries, ...]] = plan_study
) -> SimulatedPatient:
    """Draw the `index`-th patient of a set, and what is scanned, as `plan` says. Quick: nothing is scanned yet."""
    rng = np.random.default_rng([seed, index])
    reading = sample_reading(rng)
    spine = sample_spine(rng, reading)
    patient = Patient(spine, tabulate_profiles(spine, rng), Textures(rng), Unevenness(rng))
    series = plan(spine, rng, max_matrix=max_matrix)
    return SimulatedPatient(FIRST_STUDY_ID + 1000 * seed + index, reading, patient, series, (seed, index, 1))


def simulate_pixels(simulated: SimulatedPatient) -> Iterator[SimulatedSeries]:
    """Scan a patient, series by series. Series that share their slices are drawn together."""
    rng = np.random.default_rng(list(simulated.pixel_seed))
    drawn: dict[int, tuple[Pixels, ...]] = {}
    for position, planned in enumerate(simulated.series):
        if position not in drawn:
            together = [other for other, series in enumerate(simulated.series) if series.stacks[0] is planned.stacks[0]]
            exposures = [(simulated.series[other].sequence, simulated.series[other].exposure) for other in together]
            scans = [acquire(simulated.patient, stack, exposures, rng) for stack in planned.stacks]
            drawn |= {other: tuple(scan[row] for scan in scans) for row, other in enumerate(together)}
        yield SimulatedSeries(planned, drawn.pop(position))
