"""From a study to its result, step by step. The command line, batches, the web page and the Deploy application all call this."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from monai_spine.anatomy import TARGETS
from monai_spine.degeneration import Degeneration
from monai_spine.geometry import Affine
from monai_spine.grades import Grade, single_slice_flags
from monai_spine.level_inference import localize_levels
from monai_spine.level_pictures import look_at_picture
from monai_spine.levels import Levels
from monai_spine.models import Models, load_models
from monai_spine.reading import LOCALIZED_ON, ReadSeries, frame_flags, read_used
from monai_spine.report.images import ReportImages, crops_of
from monai_spine.result import StudyResult, provenance_of
from monai_spine.series import Role
from monai_spine.settings import Settings
from monai_spine.study import Study, open_study
from monai_spine.study_grades import grade_study
from monai_spine.volume import Volume
from monai_spine.weights import Bundle

__all__ = ["Analysis", "Models", "Progress", "Settings", "analyze", "analyze_study", "load_models"]


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
        path: DICOM folder, zip, NIfTI file, or PNG or JPEG picture of a mid-sagittal slice.
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
            read = read_used(study, settings, takes_pictures=models.degeneration is not None)

        yield Progress("localize", 0.3, "finding the levels")
        with _timed(seconds, "localize"):
            read, levels = _localized(read, models)

        yield Progress("grade", 0.5, "grading")
        with _timed(seconds, "grade"):
            targets, volumes = [target for target in TARGETS if target.level in settings.levels], _gradable(read)
            models = models.for_study(volumes)
            graders, corrector = models.graders, models.corrector
            grades = grade_study(targets, levels, volumes, graders, unread=read.unread, corrector=corrector)
            degeneration = _degeneration(read, levels, models)

        yield Progress("write", 0.8, "writing the report")
        result = StudyResult(
            study_instance_uid=study.study_instance_uid,
            source=study.source,
            series=read.roles,
            levels=levels,
            grades=grades,
            flags=(
                *read.flags,
                *frame_flags(study, read.roles, levels.levels[0].series_instance_uid),
                *single_slice_flags(grades),
            ),
            provenance=provenance_of(_run(read, models), settings.to_json()) | {"device": models.device, "seconds": seconds},
            picture_affine=_picture_affine(read),
            degeneration=degeneration,
        )
        yield Analysis(result, _images(study, read, grades))


def analyze(path: Path, *, models: Models | None = None, settings: Settings | None = None) -> Analysis:
    """Analyse one study at a stroke; see `analyze_study`. Of a zip, the files are gone when this returns.

    Example:
        >>> from pathlib import Path
        >>> analysis = analyze(Path("path/to/study"))  # doctest: +SKIP
        >>> [grade.severity for grade in analysis.result.grades]  # doctest: +SKIP
    """
    settings = settings or Settings()
    models = models or load_models(settings.bundles, device=settings.device)
    with closing(analyze_study(path, models=models, settings=settings)) as steps:
        return next(step for step in steps if isinstance(step, Analysis))


def _localized(read: ReadSeries, models: Models) -> tuple[ReadSeries, Levels]:
    """The levels, and of a picture its slice at the scale that was found."""
    if not (pictures := read.volumes.get(Role.PICTURE)):
        return read, localize_levels(read.sagittal, models.localizer)
    volume, levels = look_at_picture(pictures[0].array[0].T, models.localizer)
    return replace(read, volumes={Role.PICTURE: (volume,)}), levels


def _gradable(read: ReadSeries) -> Mapping[Role, Sequence[Volume]]:
    """The blocks of each role: a picture is a sagittal T2 series of one slice."""
    pictures = read.volumes.get(Role.PICTURE)
    return {**read.volumes, Role.SAGITTAL_T2: pictures} if pictures else read.volumes


def _degeneration(read: ReadSeries, levels: Levels, models: Models) -> tuple[Degeneration, ...]:
    """Discs and vertebrae of a picture or of a sagittal T2 series, where there is a bundle that grades them."""
    volumes = _shows_degeneration(read)
    return () if models.degeneration is None or not volumes else models.degeneration(volumes[0], levels)


def _shows_degeneration(read: ReadSeries) -> Sequence[Volume]:
    return read.volumes.get(Role.PICTURE) or read.volumes.get(Role.SAGITTAL_T2) or ()


def _run(read: ReadSeries, models: Models) -> tuple[Bundle, ...]:
    """The bundles that were run: on a picture the graders of sagittal T2 alone."""
    grader = models.degeneration if _shows_degeneration(read) else None
    degeneration = () if grader is None else (grader.bundle,)
    if Role.PICTURE not in read.volumes:
        return (*models.bundles, *degeneration)
    graders = [found.bundle for found in models.graders.values() if Role.SAGITTAL_T2 in [spec.role for spec in found.specs]]
    return (*models.localizer.bundles, *graders, *degeneration)


def _picture_affine(read: ReadSeries) -> Affine | None:
    """From (column, row, slice) of a picture to the millimetres that stand in for pixels; None for a scan."""
    pictures = read.volumes.get(Role.PICTURE)
    return pictures[0].affine[:, [1, 2, 0, 3]] if pictures else None


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 3)


def _images(study: Study, read: ReadSeries, grades: tuple[Grade, ...]) -> ReportImages:
    used = {role.series_instance_uid for role in read.roles if role.used}
    instances = [instance for series in study.series for instance in series.instances if series.series_instance_uid in used]
    return ReportImages(
        sagittal={role: read.volumes[role][0] for role in (*LOCALIZED_ON, Role.PICTURE) if role in read.volumes},
        crops=crops_of(grades),
        dicom_files={instance.sop_instance_uid: instance.path for instance in instances if study.kind == "dicom"},
    )
