"""Many studies in one run: each on its own, so that a bad one costs no other.

Nothing heavy is imported here before a study is analysed: a wrong path or a full folder is answered at once.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from monai_spine import __version__
from monai_spine.errors import DeviceError, OutputError, SpineError, WeightsError
from monai_spine.files import name_of
from monai_spine.inputs import StudyInput, find_studies
from monai_spine.report import DEFAULT_FORMATS, write_cohort, write_result
from monai_spine.report.tables import common_reasons
from monai_spine.settings import Settings
from monai_spine.store import ExistingResults, ResultsFolder, study_names
from monai_spine.workers import in_processes

if TYPE_CHECKING:
    from monai_spine.result import StudyResult

__all__ = ["BatchOptions", "BatchOutcome", "BatchProgress", "Failure", "run_batch"]

PARTLY_FAILED = 5


@dataclass(frozen=True)
class BatchOptions:
    """How a run is carried out.

    Attributes:
        formats: What is written for each study.
        existing: What to do about results that are there already.
        jobs: Studies at a time, each in a process of its own.
        fail_fast: Stop at the first study that fails.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    existing: ExistingResults = ExistingResults.REFUSE
    jobs: int = 1
    fail_fast: bool = False


@dataclass(frozen=True)
class Failure:
    """A study that gave no result, why, and the exit code that it stands for."""

    study: str
    source: str
    error: str
    message: str
    exit_code: int
    traceback: str = ""


@dataclass(frozen=True)
class BatchProgress:
    """Where a run stands.

    Attributes:
        study: The one at work.
        fraction: Share (0 to 1) of the whole run that is behind it.
        message: What is being done.
        done: Nothing more comes of this study.
        failure: Why it gave no result, if so.
    """

    study: str
    fraction: float
    message: str
    done: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class BatchOutcome:
    """What a run left behind: names of studies, by how they ended; and what is to be known of the tables."""

    root: Path
    finished: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: tuple[Failure, ...]
    started: datetime
    note: str = ""

    @property
    def wrote_tables(self) -> bool:
        """Whether there are tables over all studies: not where the only study failed."""
        return bool(self.finished or self.skipped or len(self.failures) > 1)

    @property
    def exit_code(self) -> int:
        """0; the failure's own code where the only study failed; 5 where part of a batch did."""
        if not self.failures:
            return 0
        return PARTLY_FAILED if self.wrote_tables else self.failures[0].exit_code


@dataclass(frozen=True)
class _Task:
    study: str
    source: Path
    study_instance_uid: str | None = None


@dataclass(frozen=True)
class _Run:
    """What every study of a run needs to know."""

    folder: ResultsFolder
    settings: Settings
    options: BatchOptions


def run_batch(
    inputs: Sequence[Path], output: Path, *, settings: Settings, options: BatchOptions | None = None
) -> Iterator[BatchProgress | BatchOutcome]:
    """Analyse studies and write a folder of results; yields progress, and the `BatchOutcome` at last.

    Args:
        inputs: Studies, or folders of studies.
        output: Folder for the results, see `store.py`.
        settings: Choices of the analysis.
        options: Choices of the run.

    Raises:
        OutputFolderError: The folder holds something that must not be touched.
        WeightsError, DeviceError: No study can be analysed. Nothing was written.
        OutputError: The disk is full or refuses to be written. Finished studies are kept.
    """
    started = datetime.now(timezone.utc)
    options = options or BatchOptions()
    run = _Run(ResultsFolder(output, options.existing), settings, options)
    run.folder.check()
    tasks, failures = _tasks(inputs, output)
    skipped = _finished_before(run, tasks) if options.existing is ExistingResults.RESUME else []
    total, finished = len(tasks) + len(failures), list[str]()
    waiting = [task for task in tasks if task.study not in skipped and not (failures and options.fail_fast)]
    with run.folder.made_on_demand(), closing(_analyse_all(run, waiting)) as steps:
        for step in steps:
            if step.failure:
                failures.append(step.failure)
            elif step.done:
                finished.append(step.study)
            behind = len(skipped) + len(finished) + len(failures) + (0 if step.done else step.fraction)
            yield replace(step, fraction=behind / total)
            if step.failure and options.fail_fast:
                steps.close()
                finished += [task.study for task in waiting if _ended_late(run, task, finished)]
        outcome = BatchOutcome(output, tuple(finished), tuple(skipped), tuple(failures), started)
        if outcome.wrote_tables:
            outcome = replace(outcome, note=_write_tables(run, outcome))
    yield outcome


def _ended_late(run: _Run, task: _Task, finished: Sequence[str]) -> bool:
    """Whether another process finished a study after the one that stopped the run."""
    return run.options.jobs > 1 and task.study not in finished and run.folder.is_complete(task.study)


def _write_tables(run: _Run, outcome: BatchOutcome) -> str:
    """Sum up all finished studies of the folder; returns what is to be known of the tables."""
    if run.options.existing is ExistingResults.OVERWRITE:
        run.folder.keep_only(outcome.finished)
    finished = datetime.now(timezone.utc)
    about = {
        "version": __version__,
        "settings": run.settings.to_json(),
        "formats": list(run.options.formats),
        "jobs": run.options.jobs,
        "started": outcome.started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - outcome.started).total_seconds(), 1),
        "skipped": list(outcome.skipped),
    }
    return write_cohort(run.folder.root, run.folder.finished(), failures=outcome.failures, run=about).note


def _tasks(inputs: Sequence[Path], output: Path) -> tuple[list[_Task], list[Failure]]:
    """The studies that the inputs hold, each once, without what lies in the output; and the inputs that hold none."""
    found: dict[Path, StudyInput] = {}
    results = output.resolve()
    failures: list[Failure] = []
    for given in inputs:
        try:
            for one in find_studies(given):
                home = Path(os.path.realpath(one.home))  # `resolve` fails on links in a circle
                if results not in (home, *home.parents):
                    found.setdefault(home, one)
        except SpineError as error:
            failures.append(_failure(_Task(name_of(given), given), error))
    names = study_names([one.home for one in found.values()])
    return [_Task(name, one.path, one.study_instance_uid) for name, one in zip(names, found.values(), strict=True)], failures


def _finished_before(run: _Run, tasks: Sequence[_Task]) -> list[str]:
    """Names of the studies whose results are there already.

    Raises:
        OutputFolderError: Under a study's name lie the results of another one.
    """
    done = [task for task in tasks if run.folder.is_complete(task.study)]
    for task in done:
        run.folder.check_study(task.study, source=task.source, study_instance_uid=task.study_instance_uid)
    return [task.study for task in done]


def _analyse_all(run: _Run, tasks: Sequence[_Task]) -> Generator[BatchProgress, None, None]:
    if not tasks:
        return
    from monai_spine.models import check_models

    check_models(run.settings.bundles, device=run.settings.device)
    if run.options.jobs > 1 and len(tasks) > 1:
        yield from in_processes(partial(_last_step, run), tasks, jobs=run.options.jobs)
    else:
        for task in tasks:
            yield from _analyse(run, task)


def _analyse(run: _Run, task: _Task) -> Iterator[BatchProgress]:
    """One study, from its files to its folder of results. Only what would stop every study is raised."""
    from monai_spine.models import load_models
    from monai_spine.pipeline import Analysis, analyze_study

    try:
        models = load_models(run.settings.bundles, device=run.settings.device)
        for step in analyze_study(task.source, models=models, settings=run.settings):
            if isinstance(step, Analysis):
                write_result(step.result, step.images, run.folder.folder(task.study), formats=run.options.formats)
                yield BatchProgress(task.study, 1.0, _summary(step.result), done=True)
            else:
                yield BatchProgress(task.study, step.fraction, step.message)
    except Exception as error:
        if isinstance(error, WeightsError | DeviceError) or _disk_is_at_fault(error):
            raise
        yield BatchProgress(task.study, 1.0, "failed", done=True, failure=_failure(task, error))


def _summary(result: StudyResult) -> str:
    """`15 of 25 findings graded; the study has no axial T2 series`: see `common_reasons`."""
    graded = sum(grade.status == "graded" for grade in result.grades)
    if result.picture_affine is not None:
        discs = sum(found.schmorl_node is not None for found in result.degeneration)
        return f"{discs} discs, {len(result.degeneration) - discs} vertebrae and {graded} canals graded"
    return "; ".join([f"{graded} of {len(result.grades)} findings graded", *common_reasons(one.reason for one in result.grades)])


def _disk_is_at_fault(error: Exception) -> bool:
    """A full or read-only disk stops the run: every other study would meet it too."""
    return isinstance(error, OutputError) and isinstance(error.__cause__, OSError)


def _last_step(run: _Run, task: _Task) -> BatchProgress:
    """What a worker process does with a study; `load_models` keeps its models for the next one."""
    return list(_analyse(run, task))[-1]


def _failure(task: _Task, error: Exception) -> Failure:
    kind, trace = type(error).__name__, "".join(traceback.format_exception(error))
    if isinstance(error, SpineError):
        return Failure(task.study, str(task.source), kind, str(error), error.exit_code, trace)
    if isinstance(error, MemoryError):
        message = "It does not fit into memory. Close other programs, use fewer --jobs, or give the lumbar series alone."
        return Failure(task.study, str(task.source), kind, message, SpineError.exit_code, trace)
    message = f"Unexpected {kind}: {error}. This is a fault in monai_spine: run the study again with --debug for the traceback."
    return Failure(task.study, str(task.source), kind, message, SpineError.exit_code, trace)
