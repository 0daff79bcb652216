"""Measure reading speed, seconds per study, peak memory, simulated lesions and the speed of training, in one run on one machine.

    .venv/bin/python tools/benchmark.py                             # prints the table
    .venv/bin/python tools/benchmark.py --write docs/performance.md
    .venv/bin/python tools/benchmark.py --only training

The study is simulated: three series of 20 slices of 512 × 512 pixels, uncompressed; levels alone are found on a sagittal series
of 17. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmark_table import Measure, document

FORMATS = ("json", "csv", "html", "png")
READING_TARGET, PREPARING_TARGET, LOADED_TARGET_S, COLD_TARGET_S, MEMORY_TARGET_GB = 1.5, 1.5, 8.0, 20.0, 3.0
LEVELS_TARGET_S, LEVELS_MEMORY_TARGET_GB, LEVELS_SLICES = 1.5, 1.5, 17
RSNA_FILES = 147_320
"""Images that the competition hands out."""
LESIONS = 60
"""How many simulated lesions are timed."""
_ATTEMPTS = 50


def main() -> int:
    """Measure, print, and write if asked to; 1 where a target is missed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="monai-spine-benchmark-") as folder:
        measures = [
            *(() if options.only == "training" else analysing(Path(folder), options)),
            *(() if options.only == "analysis" else _training(Path(folder) / "training", options)),
        ]
    simulated = f"simulated: three series of {options.slices} slices, {options.matrix} × {options.matrix}, uncompressed"
    text = document(measures, simulated if options.study is None else f"`{options.study.name}`")
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    return int(any(measure.missed for measure in measures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--study", type=Path, help="measure this DICOM study instead of a simulated one")
    parser.add_argument("--only", choices=("analysis", "training"), help="measure this part alone")
    parser.add_argument("--dicom", type=Path, help="train on studies of this folder in RSNA 2024's layout, not on simulated ones")
    parser.add_argument("--slices", type=int, default=20, help="slices of each simulated series")
    parser.add_argument("--matrix", type=int, default=512, help="rows and columns of each simulated slice")
    parser.add_argument("--repeats", type=int, default=5, help="times that reading and training are measured")
    parser.add_argument("--bundles", type=Path, help="folder of bundles, where it is not the usual one")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    return parser.parse_args()


def analysing(folder: Path, options: argparse.Namespace) -> Iterator[Measure]:
    """Reading, preparing and analysing one study."""
    simulated = folder / "data" / "train_images" / "1"
    study = options.study or write_study(simulated, slices=options.slices, matrix=options.matrix)
    yield from reading(study, repeats=options.repeats)
    if options.study is None:
        yield from preparing(study, folder, repeats=options.repeats)
    yield from cold_start(study, folder / "cold", bundles=options.bundles)
    yield from loaded(study, folder / "loaded", bundles=options.bundles)
    yield from levels_alone(options.study or _sagittal_study(folder / "sagittal", options.matrix), options)


def _training(folder: Path, options: argparse.Namespace) -> Iterator[Measure]:
    from lesion_benchmark import lesions
    from training_benchmark import training

    yield from lesions(folder / "lesions", repeats=LESIONS)
    yield from training(folder, dicom=options.dicom, matrix=options.matrix, repeats=options.repeats)


def write_study(folder: Path, *, slices: int, matrix: int, seed: int = 0) -> Path:
    """Simulate a patient whose three series have one stack each, of a fixed number and size of slices."""
    from monai_spine.phantom.dicom import write_series
    from monai_spine.phantom.simulate import simulate_patient, simulate_pixels

    patients = (simulate_patient(index, seed=seed) for index in range(_ATTEMPTS))
    patient = next(one for one in patients if all(len(series.stacks) == 1 for series in one.series))
    fixed = tuple(replace(series, stacks=(_fixed(series.stacks[0], slices, matrix),)) for series in patient.series)
    patient = replace(patient, series=fixed)
    for position, series in enumerate(simulate_pixels(patient)):
        write_series(patient, series, folder / str(position), position=position)
    return folder


def _fixed(stack: Any, slices: int, matrix: int) -> Any:
    share = np.linspace(0, 1, slices)[:, None]
    centers = stack.centers_ras_mm[0] * (1 - share) + stack.centers_ras_mm[-1] * share
    return replace(stack, centers_ras_mm=centers, stored=(matrix, matrix))


def reading(study: Path, *, repeats: int) -> Iterator[Measure]:
    """Headers, roles and volumes of all series, against bare pydicom on the same files; both from a warm disk cache."""
    files = sorted(path for path in study.rglob("*") if path.is_file())
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(_seconds(lambda: _read_bare(files)))
        ours.append(_seconds(lambda: _read_ours(study)))
    yield Measure(f"Bare pydicom, dcmread and pixel_array of {len(files)} files", min(bare), "s")
    yield Measure("Study, roles and volumes of the same files", min(ours), "s")
    yield Measure("Ratio of the two", min(ours) / min(bare), "", READING_TARGET)


def _read_bare(files: list[Path]) -> int:
    import pydicom

    return sum(int(pydicom.dcmread(file).pixel_array[0, 0]) for file in files)


def _read_ours(study: Path) -> int:
    from monai_spine.series import assign_roles
    from monai_spine.study import open_study
    from monai_spine.volume import load_series

    with open_study(study) as opened:
        assign_roles(opened)
        return sum(volume.array.size for series in opened.series for volume in load_series(series))


def preparing(study: Path, output: Path, *, repeats: int) -> Iterator[Measure]:
    """DICOM to compressed NIfTI with the way back to each pixel, against pydicom and nibabel alone; one process each.

    Args:
        study: A folder in `train_images`, with a numbered folder for each series.
        output: Where both write.
        repeats: The best of so many counts.
    """
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(_seconds(lambda: _prepare_bare(study, output / "bare")))
        ours.append(_seconds(lambda: _prepare_ours(study, output / "prepared")))
    yield Measure("Bare pydicom and nibabel, DICOM to compressed NIfTI", min(bare), "s")
    yield Measure("`prepare rsna2024` of the same files", min(ours), "s")
    yield Measure("Ratio of the two", min(ours) / min(bare), "", PREPARING_TARGET)
    minutes = min(ours) / len(list(study.rglob("*.dcm"))) * RSNA_FILES / 60
    yield Measure(f"As much for each of the {RSNA_FILES:,} files of RSNA 2024, one process", minutes, "min")


def _prepare_bare(study: Path, output: Path) -> None:
    import nibabel
    import pydicom

    output.mkdir(exist_ok=True)
    for series in sorted(study.iterdir()):
        slices = [pydicom.dcmread(file) for file in sorted(series.iterdir(), key=lambda file: int(file.stem))]
        voxels = np.stack([one.pixel_array for one in slices]).T
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), output / f"{series.name}.nii.gz")


def _prepare_ours(study: Path, output: Path) -> None:
    from monai_spine.series import Role
    from monai_spine.studies.rsna2024_images import write_images
    from monai_spine.studies.rsna2024_tables import StudyRows

    numbers = sorted(int(series.name) for series in study.iterdir())
    rows = StudyRows(int(study.name), {}, (), dict.fromkeys(numbers, Role.SAGITTAL_T2))
    write_images(study.parents[1], output, rows)


def cold_start(study: Path, output: Path, *, bundles: Path | None) -> Iterator[Measure]:
    """A new process runs the command; its own peak memory is what the kernel counted."""
    chosen = [] if bundles is None else ["--bundles", str(bundles)]
    command = [sys.executable, "-c", "from monai_spine.cli import main; main()", "analyze", str(study), "-o", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--quiet", "--device", "cpu", "--formats", ",".join(FORMATS), *chosen])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"`monai-spine analyze` ended with exit code {process.returncode}: nothing to measure.")
    yield Measure("One study from a cold start, report included", seconds, "s", COLD_TARGET_S)
    yield Measure("Peak memory of that process", usage.ru_maxrss / 1024**2, "GB", MEMORY_TARGET_GB)


def loaded(study: Path, output: Path, *, bundles: Path | None) -> Iterator[Measure]:
    """The second analysis in one process, report included, and its steps."""
    from monai_spine.pipeline import analyze, load_models
    from monai_spine.report import write_result

    models = load_models(bundles, device="cpu")
    found: list[Any] = []

    def once() -> None:
        analysis = analyze(study, models=models)
        write_result(analysis.result, analysis.images, output, formats=FORMATS)
        found.append(analysis.result)

    once()
    total = _seconds(once)
    steps = dict(found[-1].provenance["seconds"])
    yield Measure("One study once loaded, report included", total, "s", LOADED_TARGET_S)
    for step, seconds in steps.items():
        yield Measure(f"· of it: {step}", seconds, "s")
    yield Measure("· of it: write", total - sum(steps.values()), "s")


def levels_alone(study: Path, options: argparse.Namespace) -> Iterator[Measure]:
    """The localiser on one sagittal volume, all its networks, in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, peak_gb, shape = process.submit(_find_levels, study, options.repeats, options.bundles).result()
    size = " × ".join(str(count) for count in shape)
    yield Measure(f"Levels of one loaded volume of {size} voxels, median of {options.repeats}", seconds, "s", LEVELS_TARGET_S)
    yield Measure("Peak memory of that process, reading included", peak_gb, "GB", LEVELS_MEMORY_TARGET_GB)


def _sagittal_study(folder: Path, matrix: int) -> Path:
    write_study(folder, slices=LEVELS_SLICES, matrix=matrix)
    return folder


def _find_levels(study: Path, repeats: int, bundles: Path | None) -> tuple[float, float, tuple[int, ...]]:
    """Median seconds, the process's peak memory in GB, and the volume's voxels."""
    import resource

    from monai_spine.models import load_models
    from monai_spine.reading import read_used
    from monai_spine.settings import Settings
    from monai_spine.study import open_study

    with open_study(study) as opened:
        volume = read_used(opened, Settings()).sagittal[0]
    localizer = load_models(bundles, device="cpu").localizer
    localizer(volume)
    seconds = median(_seconds(lambda: localizer(volume)) for _ in range(repeats))
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, volume.array.shape


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
