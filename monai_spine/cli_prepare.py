"""The commands of `monai-spine prepare`: data sets in the layout that training reads. Nothing heavy is imported up front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from monai_spine.cli_options import Data, Debug, Jobs, Output, Quiet

__all__ = ["PARTLY_FAILED", "add_prepare_commands"]

PARTLY_FAILED = 5
"""Exit code where part of a batch failed."""


def add_prepare_commands(app: typer.Typer) -> None:
    """Make each data set a command of the group."""
    commands: dict[str, Callable[..., None]] = {
        "rsna2024": prepare_rsna2024,
        "lumbar_volumes": prepare_lumbar_volumes,
        "midsagittal": prepare_midsagittal,
        "nifti": prepare_nifti,
        "phantom": prepare_phantom,
        "lesions": prepare_lesions,
    }
    for name, command in commands.items():
        app.command(name, no_args_is_help=True)(command)


def prepare_rsna2024(
    data: Data,
    output: Output,
    jobs: Jobs = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is there in OUTPUT.")] = False,
    no_corrections: Annotated[bool, typer.Option("--no-corrections", help="Find what is odd, but change nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Set studies that cannot be used aside.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """DATA: the folder of the RSNA 2024 challenge, with its tables and train_images. Writes a report of all that is odd."""
    from monai_spine.console import counted, progress_reporter, renewed_lines, set_aside_lines
    from monai_spine.studies import rsna2024_prepare

    options = rsna2024_prepare.PrepareOptions(jobs, resume, not no_corrections, keep_going)
    with progress_reporter(quiet=quiet) as reporter:

        def on_study(number: int, total: int) -> None:
            reporter.step(number / total, f"{number} of {total} studies")

        prepared = rsna2024_prepare.prepare(data, output, options, on_study=on_study)
    for line in (*renewed_lines(prepared.renewed), *set_aside_lines(prepared.set_aside)):
        typer.echo(line, err=True)
    if prepared.left and not quiet:
        named = ", ".join(prepared.left[:5]) + (", …" if len(prepared.left) > 5 else "")
        typer.echo(f"Of an earlier run, in no data list any more: {counted(len(prepared.left))} ({named})", err=True)
    if prepared.unmade and not quiet:
        typer.echo(f"Not made, as there are fewer patients than parts: {', '.join(prepared.unmade)} (of splits.csv)", err=True)
    pointless = f", {prepared.without_points} without any point (in no data list)" if prepared.without_points else ""
    were = f"{counted(prepared.studies)} prepared{pointless}, {len(prepared.set_aside)} set aside"
    typer.echo(f"{were}: {prepared.report}\n{prepared.path}")
    if prepared.set_aside:
        raise typer.Exit(PARTLY_FAILED)


def prepare_lumbar_volumes(data: Data, output: Output, debug: Debug = False) -> None:
    """DATA: real sagittal volumes with label maps, for the localiser."""
    from monai_spine.studies import lumbar_volumes

    typer.echo(lumbar_volumes.prepare(data, output))


def prepare_midsagittal(data: Data, output: Output, debug: Debug = False) -> None:
    """DATA: real mid-sagittal pictures with points and grades, for the localiser and the grader of discs."""
    from monai_spine.studies import midsagittal
    from monai_spine.studies.prepared import read_datalist, summary_of

    path = midsagittal.prepare(data, output)
    typer.echo(f"{summary_of(read_datalist(path))}\n{path}")


def prepare_nifti(
    data: Data,
    output: Output,
    points: Annotated[Path | None, typer.Option(metavar="FILE", help="Table of points. Default: points.csv in DATA.")] = None,
    held_out: Annotated[float, typer.Option(metavar="FRACTION", help="Share of the patients to validate on.")] = 0.2,
    name: Annotated[str | None, typer.Option(help="What the data set is called. Default: as OUTPUT.")] = None,
    debug: Debug = False,
) -> None:
    """DATA: sagittal NIfTI volumes of your own with a table of points, for the localiser."""
    from monai_spine.studies import nifti_points
    from monai_spine.studies.prepared import read_datalist, summary_of

    path = nifti_points.prepare(data, output, points=points, held_out=held_out, name=name)
    typer.echo(f"{summary_of(read_datalist(path))}\n{path}")


def prepare_phantom(
    output: Output,
    training: Annotated[int, typer.Option(min=0, help="Studies to train on.")] = 400,
    validation: Annotated[int, typer.Option(min=0, help="Studies to validate on.")] = 50,
    test: Annotated[int, typer.Option(min=0, help="Studies to test on.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Sets with different seeds share no patient.")] = 0,
    water_images: Annotated[
        bool, typer.Option("--water-images", help="One sagittal water image each, for the localiser, in place of three series.")
    ] = False,
    jobs: Jobs = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """No DATA: studies are simulated on the spot, without DICOM on the way. Cases that are there already are kept."""
    from monai_spine.console import counted_reporter
    from monai_spine.phantom import prepare_phantom as simulate

    splits = {"training": training, "validation": validation, "test": test}
    with counted_reporter(sum(splits.values()), "studies", quiet=quiet) as on_case:
        typer.echo(simulate(output, splits=splits, seed=seed, water_images=water_images, jobs=jobs, on_case=on_case))


def prepare_lesions(
    data: Data,
    output: Output,
    copies: Annotated[int, typer.Option(min=1, help="Copies of each scan, each with other lesions.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Fixes the lesions.")] = 0,
    jobs: Jobs = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """DATA: a prepared folder with sagittal T2 scans. Puts lesions of known size in, for graders of stenosis and of discs."""
    from monai_spine.console import counted_reporter
    from monai_spine.phantom.lesions.study import prepare_lesions as simulate
    from monai_spine.studies.prepared import read_datalist

    scans = len(read_datalist(data).cases)
    with counted_reporter(scans, "scans", quiet=quiet) as on_case:
        path = simulate(data, output, copies=copies, seed=seed, jobs=jobs, on_case=on_case)
    made = read_datalist(path).cases
    bases = len({case.case.rpartition("_")[0] for case in made})
    typer.echo(f"{len(made)} copies of the {bases} of {scans} scans with a level that may bear a lesion\n{path}")
