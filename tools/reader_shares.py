"""Lay what all simulated readers would say over the one grade of each finding of a prepared replica: training learns from these.

    monai-spine phantom work/replica --tables TABLES --studies 480
    monai-spine prepare rsna2024 work/replica -o work/prepared
    python tools/reader_shares.py work/prepared --latents work/replica/latents.csv -o work/with_shares

A reader errs, and a replica's tables hold what one of them wrote. The hidden narrowing of each finding says how many of all
readers would call it mild, moderate or severe. OUT is a prepared study like the other one; no image is copied. Grades stay, and
decide in validation and tests as before. Of the real images nobody knows this.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_spine.anatomy import TARGETS, Target
from monai_spine.errors import OutputError, SpineError, TableError
from monai_spine.phantom.readers import reader_shares
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist
from monai_spine.studies.source_table import SourceTable

Latents = Mapping[str, Mapping[Target, float]]


def read_latents(path: Path) -> Latents:
    """The hidden narrowing of each target, by study.

    Raises:
        TableError: The table cannot be read.
    """
    table = SourceTable.read(path, columns=["study_id", *(target.slug for target in TARGETS)])
    columns = {target: table.numbers(target.slug).tolist() for target in TARGETS}
    return {
        study: {target: values[row] for target, values in columns.items()}
        for row, study in enumerate(table.cells["study_id"].tolist())
    }


def shared(datalist: Datalist, latents: Latents) -> Datalist:
    """The same cases, graded by all readers.

    Raises:
        TableError: A case has no latents.
    """
    without = [case.case for case in datalist.cases if case.case not in latents]
    if without:
        raise TableError(
            f"{len(without)} of {len(datalist.cases)} cases have no latents, such as {without[0]}. "
            "Give the latents.csv of this replica."
        )
    return replace(datalist, cases=tuple(_shared(case, latents[case.case]) for case in datalist.cases))


def _shared(case: PreparedCase, latents: Mapping[Target, float]) -> PreparedCase:
    targets = {target: replace(found, shares=reader_shares(target, latents[target])) for target, found in case.targets.items()}
    return replace(case, targets=targets)


def write_shared(prepared: Path, out: Path, latents: Latents) -> None:
    """Write the data list and those of the folds.

    Raises:
        TableError: The prepared study cannot be read, or a case has no latents.
        OutputError: The folder is not empty, or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} holds other files, and two studies would mix. Choose a new folder.")
    for path in (prepared, *sorted((prepared / "folds").glob("*/"))):
        datalist = read_datalist(path)
        write_splits(shared(datalist, latents), out / path.relative_to(prepared), splits=datalist.splits)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder that `monai-spine prepare rsna2024` wrote")
    parser.add_argument("--latents", type=Path, required=True, help="latents.csv of the replica")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)
    try:
        write_shared(given.prepared, given.output, read_latents(given.latents))
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"Training on {given.output} learns what all readers would say.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
