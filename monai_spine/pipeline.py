"""From a study to its result, step by step. The command line, batches, the web page and the Deploy application all call this."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_spine.anatomy import TARGETS
from monai_spine.errors import SeriesSelectionError, StudyError
from monai_spine.grades import Grade, grade_targets
from monai_spine.levels import localize_levels
from monai_spine.models import Models, load_models
from monai_spine.report.images import ReportImages, crops_of
from monai_spine.result import StudyResult, provenance_of
from monai_spine.series import Role, SeriesRole, assign_roles, used_series
from monai_spine.settings import Settings
from monai_spine.study import Series, Study, open_study
from monai_spine.volume import Volume, load_nifti, load_picture, load_series

__all__ = ["Analysis", "Models", "Progress", "Settings", "analyze", "analyze_study", "load_models"]

LOCALIZED_ON = (Role.SAGITTAL_T2, Role.SAGITTAL_T1, Role.SAGITTAL)
"""Levels are found on the first of these that shows them all surely; on the best one where none does."""

Volumes = Mapping[Role, tuple[Volume, ...]]


@dataclass(frozen=True)
class Progress:
    """A step that begins: its name, the share (0 to 1) of the study that is behind it, and a line for people."""

    stage: str
    fraction: float
    message: str


@dataclass(frozen=True)
class Analysis:
    """A study's result, and the images that its report shows."""

    result: StudyResult
    images: ReportImages


def analyze_study(path: Path, *, models: Models, settings: Settings | None = None) -> Generator[Progress | Analysis, None, None]:
    """Analyse one study: yields a `Progress` before each step, and the `Analysis` at last.

    The study's files are there until the caller asks for more or closes the iterator, so that a report can still refer to them.

    Args:
        path: DICOM folder, zip, or NIfTI file.
        models: The networks, from `load_models`.
        settings: Choices; None for the defaults.

    Raises:
        StudyError: The study cannot be used: unreadable, no lumbar MRI, or no levels found.
        WeightsError: A bundle does not give what its metadata promise.
    """
    settings = settings or Settings()
    seconds: dict[str, float] = {}
    yield Progress("read", 0.0, "reading")
    with open_study(path) as study:
        with _timed(seconds, "read"):
            roles = assign_roles(study, chosen=settings.series, table=settings.descriptions, nifti_role=settings.nifti_role)
            volumes = _load_used(study, roles)

        yield Progress("localize", 0.3, "finding the levels")
        with _timed(seconds, "localize"):
            sagittal = _sagittal(study, roles, volumes)
            levels = localize_levels(sagittal, models.localizer, device=models.device, network=models.localizer_network)

        yield Progress("grade", 0.5, "grading")
        with _timed(seconds, "grade"):
            targets = [target for target in TARGETS if target.level in settings.levels]
            grades = grade_targets(targets, levels, volumes, models.graders)

        yield Progress("write", 0.8, "writing the report")
        result = StudyResult(
            study_instance_uid=study.study_instance_uid,
            source=study.source,
            series=roles,
            levels=levels,
            grades=grades,
            flags=_flags(volumes),
            provenance=provenance_of(models.bundles, settings.to_json()) | {"device": models.device, "seconds": seconds},
        )
        yield Analysis(result, _images(study, volumes, grades))


def analyze(path: Path, *, models: Models | None = None, settings: Settings | None = None) -> Analysis:
    """Analyse one study at a stroke; see `analyze_study`. Of a zip, the files are gone when this returns.

    Example:
        >>> analysis = analyze(Path("path/to/study"))  # doctest: +SKIP
        >>> [grade.severity for grade in analysis.result.grades]  # doctest: +SKIP
    """
    settings = settings or Settings()
    models = models or load_models(settings.bundles, device=settings.device)
    with closing(analyze_study(path, models=models, settings=settings)) as steps:
        return next(step for step in steps if isinstance(step, Analysis))


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 3)


def _load_used(study: Study, roles: Sequence[SeriesRole]) -> Volumes:
    """The blocks of every series that is used, by role. The pixels of other series are never read."""
    if study.kind == "picture":
        picture = study.series[0].instances[0].path
        rows, columns = load_picture(picture).shape[:2]
        raise StudyError(
            f"{study.source} is one picture of {columns} × {rows} pixels: without slices and millimetres no level can be "
            "placed in space. Give the DICOM study or a NIfTI volume that the picture was taken from."
        )
    used = {role: used_series(study, roles, role) for role in Role}
    return {role: tuple(block for one in series for block in _load(study, one)) for role, series in used.items() if series}


def _load(study: Study, series: Series) -> tuple[Volume, ...]:
    return load_series(series) if study.kind == "dicom" else (load_nifti(series.instances[0].path),)


def _sagittal(study: Study, roles: Sequence[SeriesRole], volumes: Volumes) -> list[Volume]:
    """The blocks to find levels on, the preferred ones first."""
    blocks = [block for role in LOCALIZED_ON for block in volumes.get(role, ())]
    if not blocks:
        seen = "; ".join(f"{role.description or role.series_instance_uid!r}: {role.reason}" for role in roles)
        raise SeriesSelectionError(
            f"{study.source} has no sagittal series, so that no level can be named ({seen}). "
            "Add one, or choose one with --series sagittal_t2=UID."
        )
    return blocks


def _flags(volumes: Volumes) -> tuple[str, ...]:
    """What was noticed while the series were put together, each once."""
    said = (f"{role.label}: {flag}" for role, blocks in volumes.items() for block in blocks for flag in block.flags)
    return tuple(dict.fromkeys(said))


def _images(study: Study, volumes: Volumes, grades: tuple[Grade, ...]) -> ReportImages:
    used = {block.series_instance_uid for blocks in volumes.values() for block in blocks}
    instances = [instance for series in study.series for instance in series.instances if series.series_instance_uid in used]
    return ReportImages(
        sagittal={role: volumes[role][0] for role in LOCALIZED_ON if role in volumes},
        crops=crops_of(grades),
        dicom_files={instance.sop_instance_uid: instance.path for instance in instances if study.kind == "dicom"},
    )
