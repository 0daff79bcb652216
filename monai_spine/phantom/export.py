"""Write simulated studies as the competition lays out its own: DICOM files and tables, and beside them what is true.

OUT/train_images/<study>/<series>/<instance>.dcm
OUT/train.csv  train_label_coordinates.csv  train_series_descriptions.csv  sample_submission.csv
OUT/latents.csv  levels.csv        see `truth.py`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_spine.anatomy import TARGETS, Condition, Target
from monai_spine.errors import OutputError
from monai_spine.phantom.dicom import series_id_of, write_series
from monai_spine.phantom.scanner import SliceStack
from monai_spine.phantom.simulate import SimulatedPatient, simulate_patient, simulate_pixels
from monai_spine.phantom.truth import StudyTruth, truth_of, write_truth
from monai_spine.studies.rsna2024 import LabelledPoint, SeriesDescription, StudyLabels, write_train_tables

__all__ = ["write_phantom_studies"]

_ROLE_OF = {
    Condition.SPINAL_CANAL_STENOSIS: "sagittal_t2",
    Condition.NEURAL_FORAMINAL_NARROWING: "sagittal_t1",
    Condition.SUBARTICULAR_STENOSIS: "axial_t2",
}


@dataclass(frozen=True)
class _WrittenStudy:
    labels: StudyLabels
    points: tuple[LabelledPoint, ...]
    series: tuple[SeriesDescription, ...]
    truth: StudyTruth


def write_phantom_studies(
    out: Path | str,
    *,
    studies: int,
    seed: int,
    max_matrix: int = 640,
    jobs: int = 1,
    on_study: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Simulate studies and write them as DICOM with the competition's tables.

    Studies that are complete from an earlier, interrupted run are kept. The same seed gives the same files.

    Args:
        out: Folder to write to.
        studies: How many.
        seed: Fixes the patients; sets with different seeds share none.
        max_matrix: Largest stored matrix; pictures beyond it are stored smaller.
        jobs: Processes.
        on_study: Called with the study's id after each.

    Returns:
        The studies' folders.

    Raises:
        OutputError: The folder cannot be written.
    """
    out = Path(out)
    write = partial(_write_study, out, seed, max_matrix)
    try:
        if jobs > 1:
            with ProcessPoolExecutor(jobs) as pool:
                written = _collect(pool.map(write, range(studies)), on_study)
        else:
            written = _collect(map(write, range(studies)), on_study)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{out} cannot be written ({reason}). Free some space or choose another folder.") from error
    _write_tables(out, written)
    return tuple(out / "train_images" / str(study.labels.study_id) for study in written)


def _collect(studies: Iterable[_WrittenStudy], on_study: Callable[[int], None] | None) -> list[_WrittenStudy]:
    written = []
    for study in studies:
        written.append(study)
        if on_study is not None:
            on_study(study.labels.study_id)
    return written


def _write_study(out: Path, seed: int, max_matrix: int, index: int) -> _WrittenStudy:
    simulated = simulate_patient(index, seed=seed, max_matrix=max_matrix)
    folder = out / "train_images" / str(simulated.study_id)
    if not folder.exists():
        beside = folder.with_name(f".{folder.name}.part")
        for position, series in enumerate(simulate_pixels(simulated)):
            write_series(simulated, series, beside / str(series_id_of(simulated, position)), position=position)
        beside.replace(folder)
    return _describe(simulated)


def _describe(simulated: SimulatedPatient) -> _WrittenStudy:
    study = simulated.study_id
    severities = dict(zip(TARGETS, simulated.reading.severities, strict=True))
    described = [
        SeriesDescription(study, series_id_of(simulated, position), series.description)
        for position, series in enumerate(simulated.series)
    ]
    return _WrittenStudy(
        StudyLabels(study, severities),
        tuple(_mark(simulated, target) for target in TARGETS),
        tuple(described),
        truth_of(study, simulated.spine, simulated.reading.latents),
    )


def _mark(simulated: SimulatedPatient, target: Target) -> LabelledPoint:
    """The pixel in which a target's point lies, on the slice nearest to it."""
    point = np.asarray(simulated.spine.target_point(target))
    position = [series.role for series in simulated.series].index(_ROLE_OF[target.condition])
    stacks = simulated.series[position].stacks
    _, stack_index, slice_index = min(
        (abs(float((center - point) @ stack.normal_ras)), which, index)
        for which, stack in enumerate(stacks)
        for index, center in enumerate(stack.centers_ras_mm)
    )
    instance = sum(len(stack.centers_ras_mm) for stack in stacks[:stack_index]) + slice_index + 1
    x, y = _pixel(stacks[stack_index], slice_index, point)
    return LabelledPoint(simulated.study_id, series_id_of(simulated, position), instance, target, x, y)


def _pixel(stack: SliceStack, index: int, point_ras_mm: np.ndarray) -> tuple[float, float]:
    offset = point_ras_mm - np.asarray(stack.first_voxel_ras_mm(index))
    down, across = stack.pixel_mm(stack.stored)
    return round(float(offset @ stack.row_ras) / across, 3), round(float(offset @ stack.column_ras) / down, 3)


def _write_tables(out: Path, written: list[_WrittenStudy]) -> None:
    write_train_tables(
        out,
        labels=[study.labels for study in written],
        points=[point for study in written for point in study.points],
        series=[series for study in written for series in study.series],
    )
    write_truth(out, [study.truth for study in written])
