"""Exchange a share of a prepared study's labels for wrong ones, to measure what they cost and what cleaning brings back.

    python tools/spoil_labels.py work/rsna2024 -o work/spoiled --share 0.1
    python tools/cross_validate.py work/spoiled -o work/cv_spoiled --test work/rsna2024 --solution DATA/train.csv
    python tools/find_noisy_labels.py work/cv_spoiled/out_of_fold.csv --solution work/spoiled/labels.csv -o work/noisy_labels.csv
    python tools/cross_validate.py work/spoiled -o work/cv_cleaned --test work/rsna2024 --solution DATA/train.csv \\
        --overlays configs/training/clean_labels.json -- --noisy_labels work/noisy_labels.csv

OUT is a prepared study like the other one; no image is copied. The labels of its split `test` stay as they are. Written are the
data list and the folds, `labels.csv` (the labels as they stand now, a solution in the long form) and `exchanged.csv` (which were
exchanged).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_spine.anatomy import Severity, Target
from monai_spine.errors import OutputError, SpineError
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist
from monai_spine.studies.submissions import PROBABILITIES
from monai_spine.studies.table_output import write_rows

Labels = Mapping[tuple[str, Target], Severity]


def exchanged_labels(datalist: Datalist, share: float, seed: int) -> Labels:
    """New labels of a share of all findings outside the split `test`, each drawn from the two others."""
    tested = set(datalist.splits.get("test", ()))
    rng, found = np.random.default_rng(seed), {}
    for case in datalist.cases:
        for target, graded in case.targets.items():
            if case.case in tested or graded.severity is None or rng.random() >= share:
                continue
            found[case.case, target] = list(Severity)[(graded.severity.index + int(rng.integers(1, 3))) % 3]
    return found


def spoiled(datalist: Datalist, labels: Labels) -> Datalist:
    """The same cases with other labels, each of one reader."""
    return replace(datalist, cases=tuple(_relabelled(case, labels) for case in datalist.cases))


def _relabelled(case: PreparedCase, labels: Labels) -> PreparedCase:
    targets = {
        target: replace(found, severity=labels.get((case.case, target), found.severity), shares=None)
        for target, found in case.targets.items()
    }
    return replace(case, targets=targets)


def write_spoiled(prepared: Path, out: Path, *, share: float, seed: int) -> int:
    """Write the spoiled study and its tables.

    Returns:
        How many labels were exchanged.

    Raises:
        TableError: The prepared study cannot be read.
        OutputError: The folder is not empty, or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} holds other files, and labels of two draws would mix. Choose a new folder.")
    whole = read_datalist(prepared)
    labels = exchanged_labels(whole, share, seed)
    for path in (prepared, *sorted((prepared / "folds").glob("*/"))):
        datalist = read_datalist(path)
        write_splits(spoiled(datalist, labels), out / path.relative_to(prepared), splits=datalist.splits)
    now = [
        (f"{case.case}_{target.slug}", *(int(found.severity is severity) for severity in Severity))
        for case in spoiled(whole, labels).cases
        for target, found in case.targets.items()
        if found.severity is not None
    ]
    before = {(case.case, target): found.severity for case in whole.cases for target, found in case.targets.items()}
    write_rows(out / "labels.csv", ("row_id", *PROBABILITIES), now)
    rows = [(f"{case}_{target.slug}", _slug(before[case, target]), new.slug) for (case, target), new in labels.items()]
    write_rows(out / "exchanged.csv", ("row_id", "before", "now"), rows)
    return len(rows)


def _slug(severity: Severity | None) -> str:
    return "" if severity is None else severity.slug


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder that `monai-spine prepare rsna2024` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--share", type=float, default=0.1, help="of the labels that are exchanged; default: 0.1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if not 0 <= given.share <= 1:
        parser.error(f"--share is {given.share}: give a share from 0 to 1")
    if given.seed < 0:
        parser.error(f"--seed is {given.seed}: give a whole number from 0")
    try:
        count = write_spoiled(given.prepared, given.output, share=given.share, seed=given.seed)
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{count} labels were exchanged. {given.output / 'exchanged.csv'} lists them.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
