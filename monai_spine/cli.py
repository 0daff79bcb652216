"""The command line. Everything heavy is imported inside the command that needs it, so that `--help` answers at once.

Exit codes: 0 ok · 1 internal · 2 usage · 3 study unusable · 4 weights · 5 part of a batch failed.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from monai_spine import __version__
from monai_spine.cli_compare import compare
from monai_spine.cli_options import (
    BundleNames,
    Bundles,
    Debug,
    Inputs,
    Jobs,
    MaxMatrix,
    NiftiRole,
    Output,
    Quiet,
    ReplicaTables,
    SeriesChoice,
    SeriesTable,
    UsageError,
    existing_from,
    settings_from,
)
from monai_spine.cli_prepare import PARTLY_FAILED, add_prepare_commands
from monai_spine.errors import SpineError

__all__ = ["app", "main"]

INTERRUPTED = 130
DEFAULT_FORMATS = "json,csv,html,png"


class _Group(TyperGroup):
    """Turns what went wrong into one message and the exit code that belongs to it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpineError as error:
            _fail(ctx, error, str(error), error.exit_code)
        except KeyboardInterrupt as error:
            how = (
                "The same command goes on"
                if ctx.invoked_subcommand == "compare" or "lesions" in sys.argv
                else "Finished studies are kept: go on with --resume"
            )
            _fail(ctx, error, f"Interrupted. {how}.", INTERRUPTED)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            what = f"{error.filename}: " if error.filename else ""
            said = f"{what}{error.strerror or error}. Check the path, its permissions, and the space that is left."
            _fail(ctx, error, said, 1)
        except Exception as error:
            said = f"Unexpected {type(error).__name__}: {error}. This is a fault in monai_spine: add --debug for the traceback."
            _fail(ctx, error, said, 1)


def _fail(ctx: Any, error: BaseException, message: str, code: int) -> None:
    if ctx.meta.get("debug"):
        traceback.print_exception(error, file=sys.stderr)
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"monai_spine {__version__}")
        raise typer.Exit


def _group(help_text: str, name: str | None = None) -> typer.Typer:
    return typer.Typer(cls=_Group, name=name, no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text)


app = _group("Graded findings from lumbar spine MRI. For research use, not for diagnosis.", "monai-spine")
prepare_app = _group("Write a data set in the layout that training reads: a real one from DATA, or a simulated one from nothing.")
add_prepare_commands(prepare_app)
weights_app = _group("List the bundles and check their weights.")
app.add_typer(prepare_app, name="prepare")
app.add_typer(weights_app, name="weights")
app.command("compare", no_args_is_help=True)(compare)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Graded findings from lumbar spine MRI. For research use, not for diagnosis."""


@app.command(no_args_is_help=True)
def analyze(
    inputs: Inputs,
    output: Output,
    formats: Annotated[str, typer.Option(help="Of json, csv, html, png, seg, sr, nifti, joined by commas.")] = DEFAULT_FORMATS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    bundles: Bundles = None,
    series: SeriesChoice = None,
    series_table: SeriesTable = None,
    role: NiftiRole = None,
    levels: Annotated[str | None, typer.Option(help="Grade these levels only, e.g. L4/L5,L5/S1.")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Studies at a time, each in a process with its own models.")
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Skip studies that are finished in OUTPUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in OUTPUT.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first study that fails.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the levels of lumbar studies, grade them, and write a report for each."""
    from monai_spine.batch import BatchOptions, run_batch
    from monai_spine.console import print_outcome, show_run
    from monai_spine.report import check_formats

    settings = settings_from(device=device, bundles=bundles, role=role, levels=levels, series=series, series_table=series_table)
    wanted, existing = check_formats(formats.split(",")), existing_from(resume, overwrite)
    options = BatchOptions(formats=wanted, existing=existing, jobs=jobs, fail_fast=fail_fast)
    outcome = show_run(run_batch(inputs, output, settings=settings, options=options), quiet=quiet)
    print_outcome(outcome, quiet=quiet, debug=debug)
    raise typer.Exit(outcome.exit_code)


@app.command(no_args_is_help=True)
def inspect(
    source: Annotated[Path, typer.Argument(metavar="INPUT", readable=False, help="A study, or a folder of studies.")],
    series: SeriesChoice = None,
    series_table: SeriesTable = None,
    role: NiftiRole = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the series of a study with their roles and the reasons. No image is read and no network is loaded."""
    import json

    from monai_spine.listings import inspect_all, role_lines, roles_json

    count, failed, contents = 0, False, []
    for found in inspect_all(source, settings_from(series=series, series_table=series_table, role=role)):
        count += 1
        if isinstance(found, SpineError):
            failed = True
            typer.echo(f"Error: {found}", err=True)
        elif as_json:
            contents.append(roles_json(*found))
        else:
            typer.echo("\n".join(role_lines(*found)))
    if as_json:
        typer.echo(json.dumps(contents[0] if count == 1 else contents, indent=2, ensure_ascii=False))
    if failed:
        raise typer.Exit(PARTLY_FAILED)


@app.command(no_args_is_help=True)
def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", file_okay=False, help="A new folder for the studies.")],
    studies: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    tables: ReplicaTables = None,
    max_matrix: MaxMatrix = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Simulate lumbar studies as DICOM, with the tables that go with them. Studies that are there already are kept."""
    from monai_spine.console import counted_reporter
    from monai_spine.phantom import write_phantom_studies, write_replica

    write = write_phantom_studies if tables is None else partial(write_replica, tables=tables)
    most = max_matrix or (640 if tables is None else 1024)  # of the simulated and of the real matrices
    with counted_reporter(studies, "studies", quiet=quiet) as one_more:
        written = write(output, studies=studies, seed=seed, jobs=jobs, max_matrix=most, on_study=lambda _: one_more())
    typer.echo(f"{len(written)} simulated studies in {output}")


@app.command(no_args_is_help=True)
def evaluate(
    solution: Annotated[Path, typer.Option(help="Labels: train.csv, or a solution in the long form.")],
    submission: Annotated[Path, typer.Option(help="Predictions: row_id, normal_mild, moderate, severe.")],
    splits: Annotated[Path | None, typer.Option(help="splits.csv of prepared data, to score one part of it.")] = None,
    part: Annotated[
        str | None, typer.Option(metavar="COLUMN=VALUE", help="Which part of --splits, e.g. fold=0 or 70_15_15=test.")
    ] = None,
    calibration: Annotated[bool, typer.Option("--calibration", help="Print how far probabilities and shares agree.")] = False,
    debug: Debug = False,
) -> None:
    """Score predictions as the RSNA 2024 challenge does. Lower is better."""
    from monai_spine.evaluation import evaluate_tables, format_evaluation, studies_of_part

    if (splits is None) != (part is None):
        raise UsageError("--splits and --part go together, such as --splits work/rsna2024/splits.csv --part fold=0.")
    studies = None if splits is None or part is None else studies_of_part(splits, part)
    typer.echo(format_evaluation(evaluate_tables(solution, submission, studies=studies, calibration=calibration)))


@app.command()
def info(bundles: Bundles = None, debug: Debug = False) -> None:
    """Print the versions, the devices and the bundles that are there."""
    from monai_spine.listings import info_lines

    typer.echo("\n".join(info_lines(bundles)))


@weights_app.command("list")
def weights_list(bundles: Bundles = None, debug: Debug = False) -> None:
    """List the bundles and what their weights were trained on."""
    from monai_spine.listings import bundle_lines

    typer.echo("\n".join(bundle_lines(bundles)))


@weights_app.command("verify")
def weights_verify(names: BundleNames = None, bundles: Bundles = None, debug: Debug = False) -> None:
    """Check that the weights are those that the bundles' metadata name."""
    from monai_spine.listings import verified_lines

    typer.echo("\n".join(verified_lines(bundles, names or ())))


@weights_app.command("record", no_args_is_help=True)
def weights_record(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    debug: Debug = False,
) -> None:
    """Write the hashes of weights that you have trained yourself into the bundle's metadata."""
    from monai_spine.weights import record_weights

    typer.echo("\n".join(f"{bundle / name}: sha256 {digest[:12]}…" for name, digest in record_weights(bundle).items()))


def main() -> None:
    """Entry point of `monai-spine`.

    A request to end is met like Ctrl-C: temporary files go, finished studies stay. What the terminal cannot show is escaped.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
