"""Write replicas as the competition lays out its own data.

OUT/train_images/<study>/<series>/<instance>.dcm
OUT/train.csv  train_label_coordinates.csv  train_series_descriptions.csv    the real rows of these studies
OUT/sample_submission.csv  test_series_descriptions.csv    in the form of the real ones, where these are there: what a submission
    names of these studies, and their series
OUT/latents.csv  levels.csv    see `phantom/truth.py`
OUT/replica.json   seed and largest matrix: a later run goes on only with the same
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from monai_spine.errors import OutputError, TableError
from monai_spine.phantom.dicom import write_series
from monai_spine.phantom.replica.choice import choose_studies
from monai_spine.phantom.replica.slices import scale_of
from monai_spine.phantom.replica.study import Replica, replicate
from monai_spine.phantom.replica.tables import COPIED_TABLES, ReplicaTables, TableStudy
from monai_spine.phantom.simulate import simulate_pixels
from monai_spine.phantom.truth import StudyTruth, truth_of, write_truth
from monai_spine.studies.rsna2024 import SERIES_COLUMNS
from monai_spine.studies.submissions import write_uniform_submission
from monai_spine.studies.table_output import write_rows
from monai_spine.workers import in_processes

__all__ = ["write_replica"]

_POINTS, _SAMPLE, _TEST_SERIES = "train_label_coordinates.csv", "sample_submission.csv", "test_series_descriptions.csv"


def write_replica(
    out: Path | str,
    *,
    tables: Path | str,
    studies: int,
    seed: int,
    max_matrix: int = 1024,
    jobs: int = 1,
    on_study: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Render studies of the competition's tables and write them with their rows of the tables.

    Studies that are complete from an earlier, interrupted run are kept. The same seed gives the same files.

    Args:
        out: Folder to write to.
        tables: Folder of the tables, see `replica/tables.py`.
        studies: How many, chosen by `choose_studies`.
        seed: Fixes the choice and all that the tables leave open.
        max_matrix: Largest stored matrix; where it takes effect, points are written in pixels of the smaller one.
        jobs: Processes.
        on_study: Called with the study's id after each.

    Returns:
        The studies' folders.

    Raises:
        TableError: A table is missing or breaks its specification, or has fewer studies than asked for.
        OutputError: The folder cannot be written, or holds a replica with other settings.
    """
    out, contents = Path(out), ReplicaTables.read(tables)
    chosen = choose_studies(contents, studies=studies, seed=seed)
    _claim(out, {"seed": seed, "max_matrix": max_matrix})
    write = partial(_write_study, out, seed, max_matrix)
    written = {}
    try:
        for truth in _each(write, [contents.studies[study] for study in chosen], jobs):
            written[truth.study_id] = truth
            if on_study is not None:
                on_study(truth.study_id)
        _copy_tables(out, contents, chosen, max_matrix)
        _write_test_tables(out, Path(tables), contents, chosen)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{out} cannot be written ({reason}). Free some space or choose another folder.") from error
    write_truth(out, [written[study] for study in chosen])
    return tuple(out / "train_images" / str(study) for study in chosen)


def _each(write: Callable[[TableStudy], StudyTruth], studies: list[TableStudy], jobs: int) -> Iterator[StudyTruth]:
    return in_processes(write, studies, jobs=jobs) if jobs > 1 else map(write, studies)


def _claim(out: Path, settings: dict[str, int]) -> None:
    """Note the settings, or refuse a folder that was written with others."""
    path = out / "replica.json"
    try:
        if not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise OutputError(f"{out} holds other files: a replica would mix with them. Choose a new folder.")
            path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be used ({error}). Choose another folder.") from error
    if noted != settings:
        raise OutputError(
            f"{out} holds a replica made with {noted}, this one is asked for with {settings}: its images and points would not "
            "belong together. Choose another folder, or the same settings."
        )


def _write_study(out: Path, seed: int, max_matrix: int, table: TableStudy) -> StudyTruth:
    replica = replicate(table, seed=seed, max_matrix=max_matrix)
    folder = out / "train_images" / str(table.study_id)
    if not folder.exists():
        beside = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        _write_images(replica, beside)
        beside.replace(folder)
    return truth_of(table.study_id, replica.simulated.spine, replica.simulated.reading.latents)


def _write_images(replica: Replica, folder: Path) -> None:
    folder.mkdir(parents=True)
    scanned = simulate_pixels(replica.simulated)
    parts = zip(scanned, replica.table.series, replica.slices, replica.spacing_tags, strict=True)
    for position, (series, table, slices, tags) in enumerate(parts):
        place = folder / str(table.series_id)
        write_series(replica.simulated, series, place, position=position, numbers=slices.numbers, spacing_tags=tags)


def _copy_tables(out: Path, contents: ReplicaTables, chosen: tuple[int, ...], max_matrix: int) -> None:
    """The real lines of the chosen studies; of the points x and y change, where the matrix is smaller than the real one."""
    for name in COPIED_TABLES:
        lines, beside = contents.lines[name], out / f".{name}.part"
        scale = partial(_scaled, contents, lines[None][0], max_matrix) if name == _POINTS else _unchanged
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines[None])
            file.writelines(scale(study, line) for study in chosen for line in lines.get(study, ()))
        beside.replace(out / name)


def _write_test_tables(out: Path, tables: Path, contents: ReplicaTables, chosen: tuple[int, ...]) -> None:
    """The tables that the competition hands out with its hidden studies, made of the replica's own."""
    if (tables / _SAMPLE).is_file():
        write_uniform_submission(chosen, out / _SAMPLE)
    if (tables / _TEST_SERIES).is_file():
        rows = [(one, series.series_id, series.description) for one in sorted(chosen) for series in contents.studies[one].series]
        write_rows(out / _TEST_SERIES, SERIES_COLUMNS, rows)


def _unchanged(study: int, line: str) -> str:
    return line


def _scaled(contents: ReplicaTables, header: str, max_matrix: int, study: int, line: str) -> str:
    columns, cells = header.strip().split(","), line.rstrip("\r\n").split(",")
    series = int(cells[columns.index("series_id")])
    scale = next((scale_of(one, max_matrix) for one in contents.studies[study].series if one.series_id == series), None)
    if scale is None:
        raise TableError(f"{_POINTS} names series {series} of study {study}, which has no such series. Correct its row.")
    if scale == 1.0:
        return line
    for column in ("x", "y"):
        at = columns.index(column)
        cells[at] = repr(float(cells[at]) * scale)
    return ",".join(cells) + line[len(line.rstrip("\r\n")) :]
