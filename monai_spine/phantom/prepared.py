"""Simulated studies in the prepared layout that training reads, without the way over DICOM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_spine.anatomy import DISCS, TARGETS, Vertebra
from monai_spine.errors import OutputError, TableError
from monai_spine.geometry import Affine
from monai_spine.phantom.protocol import plan_study, plan_water_image
from monai_spine.phantom.readers import reader_shares
from monai_spine.phantom.scanner import body_labels
from monai_spine.phantom.simulate import FIRST_STUDY_ID, SimulatedPatient, simulate_patient, simulate_pixels
from monai_spine.studies.prepared import PreparedCase, PreparedTarget, PreparedVolume, read_datalist, write_datalist

__all__ = ["describe_case", "prepare_phantom"]

BODIES = (Vertebra.L1, Vertebra.L2, Vertebra.L3, Vertebra.L4, Vertebra.L5, Vertebra.S1, Vertebra.T12)


def prepare_phantom(
    out: Path,
    *,
    splits: Mapping[str, int],
    seed: int,
    max_matrix: int = 384,
    water_images: bool = False,
    jobs: int = 1,
    on_case: Callable[[], None] | None = None,
) -> Path:
    """Simulate studies straight into a prepared folder; cases that are there already are kept.

    Args:
        out: Folder to write to.
        splits: Number of studies of `training`, `validation` and `test`.
        seed: Fixes the patients; sets with different seeds share none.
        max_matrix: Largest stored matrix.
        water_images: One sagittal water image per study, in place of the three usual series; the set is called `phantom_water`.
        jobs: Processes.
        on_case: Called after each case.

    Returns:
        The path of `datalist.json`.

    Raises:
        TableError: No split has a study.
        OutputError: The folder holds another set, or studies that are not among those that are asked for.
    """
    total = sum(splits.values())
    if total == 0:
        raise TableError("No study was asked for. Give a number of training, validation or test studies above 0.")
    study = "phantom_water" if water_images else "phantom"
    _refuse_others(out, study, {str(FIRST_STUDY_ID + 1000 * seed + index) for index in range(total)})
    draw = partial(simulate_patient, seed=seed, max_matrix=max_matrix, plan=plan_water_image if water_images else plan_study)
    write = partial(_write_case, out, draw)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            cases = list(_counted(pool.map(write, range(total), chunksize=4), on_case))
    else:
        cases = list(_counted(map(write, range(total)), on_case))
    names = [case.case for case in cases]
    ends = np.cumsum(list(splits.values()))
    parts = {name: names[end - size : end] for (name, size), end in zip(splits.items(), ends.tolist(), strict=True)}
    return write_datalist(out, study=study, source="simulated", cases=cases, splits=parts)


def _refuse_others(out: Path, study: str, wanted: Set[str]) -> None:
    if not (out / "datalist.json").is_file():
        return
    there = read_datalist(out)
    others = sorted({case.case for case in there.cases} - wanted)
    if there.study != study or others:
        what = f"{len(others)} of its studies, such as {others[0]}," if others else f"its set {there.study!r}"
        raise OutputError(f"{out} holds other studies: {what} is not what was asked for. Give a new folder, or remove this one.")


def _counted(cases: Iterable[PreparedCase], on_case: Callable[[], None] | None) -> Iterator[PreparedCase]:
    for case in cases:
        if on_case is not None:
            on_case()
        yield case


def _write_case(out: Path, draw: Callable[[int], SimulatedPatient], index: int) -> PreparedCase:
    simulated = draw(index)
    folder = out / "volumes" / str(simulated.study_id)
    if not (folder / ".complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for series in simulate_pixels(simulated):
            for block, (stack, pixels) in enumerate(zip(series.planned.stacks, series.pixels, strict=True)):
                _save(pixels, stack.affine(), folder / f"{series.planned.role}_{block}.nii")
                if series.planned.role.startswith("sagittal"):
                    _save(body_labels(simulated.patient, stack), stack.affine(), folder / f"{series.planned.role}_bodies.nii.gz")
        (folder / ".complete").touch()
    return describe_case(simulated)


def _save(pixels: npt.NDArray[np.generic], affine: Affine, path: Path) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.ascontiguousarray(pixels.transpose(2, 1, 0)), affine), path)


def describe_case(simulated: SimulatedPatient) -> PreparedCase:
    """What is true of a simulated study, as training reads it."""
    spine, reading, name = simulated.spine, simulated.reading, str(simulated.study_id)
    volumes = [
        PreparedVolume(
            f"volumes/{name}/{series.role}_{block}.nii",
            series.role,
            bodies=f"volumes/{name}/{series.role}_bodies.nii.gz" if series.role.startswith("sagittal") else None,
            bodies_labelled=BODIES if series.role.startswith("sagittal") else (),
        )
        for series in simulated.series
        for block in range(len(series.stacks))
    ]
    return PreparedCase(
        case=name,
        patient=name,
        volumes=tuple(volumes),
        discs={level: spine.disc_point(level) for level in DISCS},
        canals={level: spine.canal_point(level) for level in DISCS},
        vertebrae={body: spine.body_point(body) for body in BODIES},
        targets={
            target: PreparedTarget(spine.target_point(target), severity, shares=reader_shares(target, latent))
            for target, severity, latent in zip(TARGETS, reading.severities, reading.latents.tolist(), strict=True)
        },
    )
