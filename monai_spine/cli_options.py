"""The options that several commands share, and what is made of them. Nothing heavy is imported before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monai_spine.anatomy import LEVELS
from monai_spine.errors import SpineError

if TYPE_CHECKING:
    from monai_spine.settings import Settings
    from monai_spine.store import ExistingResults

__all__ = [
    "BundleNames",
    "Bundles",
    "Data",
    "Debug",
    "Inputs",
    "Jobs",
    "MaxMatrix",
    "NiftiRole",
    "Output",
    "Quiet",
    "ReplicaTables",
    "SeriesChoice",
    "SeriesTable",
    "UsageError",
    "existing_from",
    "settings_from",
]


class UsageError(SpineError):
    """The options contradict each other or cannot be read."""

    exit_code = 2


def _remember_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["debug"] = value
    return value


Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", callback=_remember_debug, help="Print a traceback when something fails.")]
Bundles = Annotated[
    Path | None,
    typer.Option(
        envvar="MONAI_SPINE_BUNDLES", show_envvar=True, help="Folder that holds the bundles. Default: the ones that came along."
    ),
]
BundleNames = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Bundles to check. Default: all.")]
Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set.")]
Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT", readable=False, help="Studies: DICOM folders, zips, NIfTI files, pictures; or a folder of studies."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder for what is written.")]
SeriesChoice = Annotated[
    list[str] | None,
    typer.Option("--series", metavar="ROLE=UID", help="Take this series for a role, e.g. sagittal_t2=1.2.3. Repeatable."),
]
NiftiRole = Annotated[
    str | None,
    typer.Option("--role", help="What a NIfTI file shows: sagittal_t1, sagittal_t2 or axial_t2. Default: an unknown sagittal."),
]
ReplicaTables = Annotated[
    Path | None,
    typer.Option("--tables", metavar="DIR", help="Render studies of the RSNA 2024 tables in DIR, points and grades included."),
]
MaxMatrix = Annotated[
    int | None,
    typer.Option("--max-matrix", min=64, help="Most rows and columns of a picture; the points of --tables are scaled with it."),
]
SeriesTable = Annotated[
    Path | None, typer.Option("--series-table", help="Table of the RSNA 2024 challenge with a description for each series.")
]


def settings_from(
    *,
    device: str = "auto",
    bundles: Path | None = None,
    role: str | None = None,
    levels: str | None = None,
    series: list[str] | None = None,
    series_table: Path | None = None,
) -> Settings:
    """The settings that the options stand for.

    Raises:
        SpineError: An option cannot be read (exit 2).
    """
    from monai_spine import settings

    return settings.Settings(
        device=device,
        bundles=bundles,
        series=settings.parse_series(series or ()),
        descriptions=settings.read_descriptions(series_table) if series_table else {},
        nifti_role=settings.parse_role(role) if role is not None else None,
        levels=settings.parse_levels(levels) if levels is not None else LEVELS,
    )


def existing_from(resume: bool, overwrite: bool) -> ExistingResults:
    """What is to be done about results that are there.

    Raises:
        UsageError: Both were asked for.
    """
    from monai_spine.store import ExistingResults

    if resume and overwrite:
        raise UsageError("--resume keeps what is finished, --overwrite replaces it. Give one of them.")
    if resume:
        return ExistingResults.RESUME
    return ExistingResults.OVERWRITE if overwrite else ExistingResults.REFUSE
