"""`monai-spine prepare rsna2024`: from the competition's folder to a prepared one.

    OUT/datalist.json                  training, validation and test: 70, 15 and 15 % of the patients
        folds/fold_0 … fold_4/         five data lists, a fifth of the patients held out in each
        splits/80_15_5/                another data list
        splits.csv                     fold and split of each study
        volumes/<study>/               images, see rsna2024_images.py
        quirks.csv  set_aside.csv      what was odd, and which studies take no part
        report.html                    all of it for people
        .complete                      everything above is there

Images are written study by study, in several processes; on `resume` finished ones are kept, unless they are damaged, or their
files or the series that the table names were changed since. All else follows from the tables and from what is noted beside the
images, and is made anew each time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from monai_spine.anatomy import Target
from monai_spine.errors import OutputError, SpineError, TableError
from monai_spine.report.writing import write_file
from monai_spine.store import COMPLETE, OutputFolderError
from monai_spine.studies.corrections import Correction, read_corrections
from monai_spine.studies.instance_table import read_instances
from monai_spine.studies.quirks import QUIRK_COLUMNS, Quirk, quirk_row
from monai_spine.studies.rsna2024_cases import corrected, prepared_case
from monai_spine.studies.rsna2024_files import IMAGES_FOLDER, unlisted_studies
from monai_spine.studies.rsna2024_images import StudyImages, read_images, why_to_write, write_images
from monai_spine.studies.rsna2024_patients import patients_of
from monai_spine.studies.rsna2024_points import PlacedPoint, place_points
from monai_spine.studies.rsna2024_quirks import image_quirks, place_quirks, table_quirks
from monai_spine.studies.rsna2024_report import ReportContent, report_html
from monai_spine.studies.rsna2024_splits import write_all_splits
from monai_spine.studies.rsna2024_tables import POINTS_FILE, SetAsideStudy, StudyRows, read_tables
from monai_spine.studies.table_output import write_rows
from monai_spine.workers import in_processes

__all__ = ["STUDY", "PrepareOptions", "Prepared", "prepare"]

STUDY = "rsna2024"
_SIMULATED = "latents.csv"
"""The simulator alone knows, and writes, what is hidden from readers."""
_FILES = ("datalist.json", "splits.csv", "quirks.csv", "set_aside.csv", "report.html")
_FOLDERS = ("volumes", "folds", "splits")
_NO_POINTS = "{} has no point of any study that was read: there is nothing to train on. Restore it."


@dataclass(frozen=True)
class PrepareOptions:
    """Choices of a run.

    Attributes:
        jobs: Processes.
        resume: Go on in a folder that holds an earlier run.
        corrections: Put right what rules and the list say.
        keep_going: Set studies that cannot be used aside instead of stopping.
    """

    jobs: int = 1
    resume: bool = False
    corrections: bool = True
    keep_going: bool = False


@dataclass(frozen=True)
class Prepared:
    """What a run left.

    Attributes:
        path: The data list.
        studies: How many are in it.
        set_aside: Studies that take no part.
        quirks: All that was odd.
        renewed: Studies of an earlier run that were written anew, and what had changed.
        without_points: How many have their images written, but no point, and so are in no data list.
        unmade: Splits that need more patients: `fold`, `70_15_15`, `80_15_5`.
        left: Studies of an earlier run that the tables do not have any more; their volumes stay, in no data list.
    """

    path: Path
    studies: int
    set_aside: tuple[SetAsideStudy, ...]
    quirks: tuple[Quirk, ...]
    renewed: Mapping[int, str] = field(default_factory=dict)
    without_points: int = 0
    unmade: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        """The data report."""
        return self.path.with_name("report.html")


def prepare(
    data: Path | str,
    out: Path | str,
    options: PrepareOptions = PrepareOptions(),
    *,
    on_study: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write a prepared folder from the competition's data.

    Args:
        data: Folder of train.csv, train_label_coordinates.csv, train_series_descriptions.csv and train_images.
        out: Where to write; new or empty, or with `resume` that of an earlier run.
        options: Choices of the run.
        on_study: Called with the number of finished studies and of all after each study.

    Raises:
        TableError: The tables are broken, or do not fit to the images.
        UnreadableInputError: A file cannot be read.
        OutputError: The folder cannot be written, or holds something else.
    """
    data, out = Path(data), Path(out)
    _check_place(out, data, resume=options.resume)
    tables = read_tables(data, keep_going=options.keep_going)
    strangers = unlisted_studies(data, tables.studies, known=[one.study for one in tables.set_aside])
    if strangers and not options.keep_going:
        raise TableError(next(iter(strangers.values())))
    if options.corrections and not any(study.points for study in tables.studies):
        raise TableError(_NO_POINTS.format(data / POINTS_FILE))
    listed = {str(study.study_id) for study in tables.studies} | {one.study for one in tables.set_aside}
    left = _check_studies(out, data, listed)
    _forget_unfinished(out)
    reasons = {study.study_id: why_to_write(data, out, study) for study in tables.studies}
    waiting = [study for study in tables.studies if reasons[study.study_id] is not None]
    failed = list(_write_all(data, out, waiting, len(tables.studies), options, on_study))
    set_aside = (*tables.set_aside, *(SetAsideStudy(*stranger) for stranger in strangers.items()), *failed)
    prepared = _write_lists(data, out, tables.studies, set_aside, corrections=options.corrections)
    return replace(prepared, renewed=_renewed(reasons, set_aside), left=left)


def _renewed(reasons: Mapping[int, str | None], set_aside: Sequence[SetAsideStudy]) -> dict[int, str]:
    """Of the studies that had to be written, those that were there before, with what had changed."""
    lost = {one.study for one in set_aside}
    return {study: why for study, why in reasons.items() if why and str(study) not in lost}


def _check_place(out: Path, data: Path, *, resume: bool) -> None:
    if out.resolve().is_relative_to((data / IMAGES_FOLDER).resolve()):
        raise OutputFolderError(f"--output {out} lies among the images of {data}. Choose a folder outside.")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in held if name not in (*_FILES, *_FOLDERS) and not name.startswith(".")]
    if foreign:
        raise OutputFolderError(f"--output {out} holds {foreign[0]!r}, which is not of prepared data. Choose another folder.")
    other = _study_of(out / "datalist.json")
    if other not in (None, STUDY):
        raise OutputFolderError(
            f"--output {out}: the datalist.json there is of {other!r}, not of {STUDY!r}. Choose another folder."
        )
    if held and not resume:
        raise OutputFolderError(
            f"--output {out} is not empty. Choose another folder, or add --resume to go on with what is there."
        )


def _check_studies(out: Path, data: Path, listed: Set[str]) -> tuple[str, ...]:
    """Finished studies of an earlier run that these tables do not have; it is other data where they have none of them."""
    finished = sorted(path.parent.name for path in (out / "volumes").glob(f"*/{COMPLETE}"))
    left = tuple(study for study in finished if study not in listed)
    if left and len(left) == len(finished):
        raise OutputFolderError(
            f"--output {out} holds {len(left)} finished studies, such as {left[0]}, and {data} has none of them: this is other "
            "data. Choose another folder."
        )
    return left


def _study_of(path: Path) -> object:
    """The data set that a data list names; None where there is none, or a broken one that is made anew anyway."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget_unfinished(out: Path) -> None:
    """Take away the mark, the lists of an earlier run, and what a killed one left half-written. Images stay."""
    try:
        for path in (*(out / name for name in (COMPLETE, *_FILES)), *out.glob(".*.part")):
            path.unlink(missing_ok=True)
        for folder in (out / "folds", out / "splits", *(out / "volumes").glob(".*.part")):
            if folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror or error}). Choose another folder.") from error


def _write_all(
    data: Path, out: Path, waiting: Sequence[StudyRows], total: int, options: PrepareOptions,
    on_study: Callable[[int, int], None] | None,
) -> Iterator[SetAsideStudy]:  # fmt: skip
    """Write the images of studies, of so many in all; yields those that cannot be used."""
    work = partial(_write_one, data, out, options.keep_going)
    results = (
        in_processes(work, waiting, jobs=options.jobs, with_torch=False)
        if options.jobs > 1 and len(waiting) > 1
        else map(work, waiting)
    )
    for number, failed in enumerate(results, start=total - len(waiting) + 1):
        if on_study is not None:
            on_study(number, total)
        if failed is not None:
            yield failed


def _write_one(data: Path, out: Path, keep_going: bool, study: StudyRows) -> SetAsideStudy | None:
    try:
        write_images(data, out, study)
    except Exception as error:
        if not keep_going or isinstance(error, OutputError):
            raise
        unexpected = "" if isinstance(error, SpineError) else f"Unexpected {type(error).__name__}: "
        return SetAsideStudy(str(study.study_id), f"{unexpected}{error}")
    return None


def _write_lists(
    data: Path, out: Path, studies: Sequence[StudyRows], set_aside: Sequence[SetAsideStudy], *, corrections: bool
) -> Prepared:
    """All that follows from the tables and from what is noted beside the images."""
    lost = {one.study for one in set_aside}
    used = [study for study in studies if str(study.study_id) not in lost]
    if not used:
        raise TableError(f"No study could be prepared. The first: {set_aside[0].reason}")
    images = [read_images(out, study.study_id) for study in used]
    patients, quirks = patients_of(images)
    listed, cases = read_corrections(), []
    for study, own in zip(used, images, strict=True):
        points, more = _points_and_quirks(out, study, own, listed.get(study.study_id, ()), apply=corrections)
        quirks += more
        if points or not corrections:
            cases.append(prepared_case(own, points, patient=patients[study.study_id]))
    if not cases:
        raise TableError(_NO_POINTS.format(data / POINTS_FILE))
    source = "simulated" if (data / _SIMULATED).is_file() else "real"
    parts = write_all_splits(out, cases, images, study=STUDY, source=source)
    write_rows(out / "quirks.csv", QUIRK_COLUMNS, [quirk_row(quirk) for quirk in quirks])
    write_rows(out / "set_aside.csv", ("study", "reason"), [(one.study, one.reason) for one in set_aside])
    content = ReportContent(f"RSNA 2024 data ({source})", used, images, cases, parts, quirks, set_aside, corrections)
    write_file(out / "report.html", report_html(content))
    (out / COMPLETE).touch()
    unmade = tuple(name for name, part_of in parts.items() if not part_of)
    without = content.without_points
    return Prepared(out / "datalist.json", len(cases), tuple(set_aside), quirks, without_points=without, unmade=unmade)


def _points_and_quirks(
    out: Path, study: StudyRows, images: StudyImages, listed: Sequence[Correction], *, apply: bool
) -> tuple[Mapping[Target, PlacedPoint], tuple[Quirk, ...]]:
    """The points of a study in space, put right, and all that is odd about it."""
    rows = read_instances(out / "volumes" / str(study.study_id))
    placed = place_points(study, rows, {series.series_id: series.frame_of_reference_uid for series in images.series})
    found = corrected(study, placed, listed, apply=apply)
    others = (*place_quirks(study, placed), *image_quirks(images, rows))
    return found.points, (*table_quirks(study, apply=apply), *found.quirks, *others)
