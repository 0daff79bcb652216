"""Write a study's folder: everything beside its place first, then renamed as one, with `.complete` as the last file inside.

OUT/<study>/report.html result.json grades.csv series.json figures/ dicom/ segmentation/ .complete
"""

from __future__ import annotations

import errno
import importlib.util
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from monai_spine.errors import OutputError
from monai_spine.report.tables import GRADE_COLUMNS, csv_text, grade_rows, json_text
from monai_spine.store import COMPLETE, foreign_in

if TYPE_CHECKING:
    from monai_spine.report.images import ReportImages
    from monai_spine.result import StudyResult

__all__ = ["COMPLETE", "DEFAULT_FORMATS", "FORMATS", "OutputFormatError", "check_formats", "write_file", "write_result"]

FORMATS: tuple[str, ...] = ("json", "csv", "html", "png", "seg", "sr", "nifti")
"""What can be written for a study."""

DEFAULT_FORMATS: tuple[str, ...] = ("json", "csv", "html", "png")

_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space there, or choose another --output.",
    errno.EDQUOT: "Your quota is used up: free some space there, or choose another --output.",
    errno.EACCES: "You may not write there: choose another --output, or change the folder's permissions.",
    errno.EPERM: "You may not write there: choose another --output, or change the folder's permissions.",
    errno.EROFS: "The file system is read-only: choose another --output.",
    errno.ENAMETOOLONG: "The path is too long for this file system: choose a shorter --output.",
}


class OutputFormatError(OutputError):
    """A format is unknown, or what it needs is not installed or not in the study."""

    exit_code = 2


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Return the formats without doubles, in the order of `FORMATS`.

    Raises:
        OutputFormatError: One is unknown, or DICOM is asked for and highdicom is not installed.
    """
    wanted = {name.strip().lower() for name in formats if name.strip()}
    unknown = sorted(wanted - set(FORMATS))
    if unknown or not wanted:
        raise OutputFormatError(f"Unknown format {unknown[0] if unknown else ''!r}. Choose from: {', '.join(FORMATS)}.")
    if wanted & {"seg", "sr"} and importlib.util.find_spec("highdicom") is None:
        raise OutputFormatError(
            "SEG and SR need highdicom, which is not installed. Run: pip install 'monai_spine[dicom]'; or leave out seg and sr."
        )
    return tuple(name for name in FORMATS if name in wanted)


def write_result(result: StudyResult, images: ReportImages, folder: Path, *, formats: Iterable[str] = DEFAULT_FORMATS) -> None:
    """Write a study's results to a folder, which appears only when all of it is there.

    result.json and series.json are always written, because a run over many studies is summed up from them.

    Args:
        result: What was found.
        images: What the report shows.
        folder: `OUT/<study>`. A finished or empty folder in its place is replaced.
        formats: Some of `FORMATS`.

    Raises:
        OutputFormatError: See `check_formats`; or DICOM is asked for and the study is none.
        OutputError: The disk is full, the folder may not be written, or something else lies in its place. Nothing is left behind.
    """
    wanted = check_formats(formats)
    _check_place(folder)
    beside = folder.with_name(f".{folder.name}.partial")
    with _writing_to(folder, partly=beside):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _write_files(result, images, beside, wanted)
        (beside / COMPLETE).write_text(" ".join(wanted) + "\n", encoding="utf-8")
        _put_in_place(beside, folder)


def write_file(path: Path, text: str) -> None:
    """Write one text file beside its place, then rename it.

    Raises:
        OutputError: The disk is full or may not be written. What was there before stays.
    """
    beside = path.with_name(f".{path.name}.partial")
    with _writing_to(path, partly=beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        beside.replace(path)


@contextmanager
def _writing_to(place: Path, *, partly: Path) -> Iterator[None]:
    """Turn failures of the file system into an `OutputError` with a remedy; remove what was written so far whatever happens."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Choose another --output, or try again.")
        raise OutputError(f"{place} was not written ({error.strerror or error}). {remedy}") from error
    finally:
        _remove(partly)


def _remove(path: Path) -> None:
    """Remove a file or a folder where it is there; what cannot be removed is no second failure."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _check_place(folder: Path) -> None:
    held = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    foreign = folder if held and COMPLETE not in held else foreign_in(folder) if held else None
    if (folder.exists() and not folder.is_dir()) or foreign:
        raise OutputError(
            f"{folder} holds something that monai_spine did not write ({(foreign or folder).name}), so it is not replaced. "
            "Choose another --output, or move it away."
        )


def _put_in_place(beside: Path, folder: Path) -> None:
    """Rename; results that were there before go only once the new ones are in their place."""
    before = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    try:
        beside.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _write_files(result: StudyResult, images: ReportImages, folder: Path, formats: tuple[str, ...]) -> None:
    content = result.to_json()
    _write(folder, "result.json", json_text(content))
    _write(folder, "series.json", json_text(content["series"]))
    if "csv" in formats:
        _write(folder, "grades.csv", csv_text(GRADE_COLUMNS, grade_rows(result)))
    if {"html", "png"} & set(formats):
        _write_pictures(result, images, folder, formats)
    if {"seg", "sr"} & set(formats):
        _write_dicom(result, images, folder / "dicom", formats)
    if "nifti" in formats:
        _write_bodies(result, folder / "segmentation")


def _write(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def _write_pictures(result: StudyResult, images: ReportImages, folder: Path, formats: tuple[str, ...]) -> None:
    from monai_spine.report.figures import draw_figures

    figures: Mapping[str, bytes] = draw_figures(result, images)
    if "png" in formats:
        for name, png in figures.items():
            _write(folder / "figures", name, png)
    if "html" in formats:
        from monai_spine.report.html import report_html

        _write(folder, "report.html", report_html(result, figures))


def _write_dicom(result: StudyResult, images: ReportImages, folder: Path, formats: tuple[str, ...]) -> None:
    from monai_spine.report.dicom_seg import write_seg
    from monai_spine.report.dicom_source import read_headers
    from monai_spine.report.dicom_sr import write_sr

    headers = read_headers(images.dicom_files)
    if not headers:
        raise OutputFormatError(
            f"SEG and SR refer to the images of a DICOM study, and {result.source} is none. "
            "Leave out seg and sr; --formats nifti writes the vertebral bodies."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if "seg" in formats and result.levels.bodies is not None:
        write_seg(result, headers, folder / "segmentation.dcm")
    if "sr" in formats:
        write_sr(result, headers, folder / "report.dcm")


def _write_bodies(result: StudyResult, folder: Path) -> None:
    """The label map of the vertebral bodies as NIfTI, values of `levels.BODY_VALUES`, where there is one."""
    bodies = result.levels.bodies
    if bodies is None:
        return
    import nibabel

    folder.mkdir(parents=True, exist_ok=True)
    image = nibabel.nifti1.Nifti1Image(bodies.array, bodies.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(bodies.affine, code=1)
    image.set_sform(bodies.affine, code=1)
    nibabel.loadsave.save(image, folder / "vertebral_bodies.nii.gz")
