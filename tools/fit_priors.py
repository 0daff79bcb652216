"""Make monai_spine/studies/rsna2024_priors.csv: class shares per condition and level, from the competition's train.csv.

python tools/fit_priors.py path/to/train.csv [--output FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_spine.studies.priors import PRIOR_COLUMNS, PRIORS_PATH
from monai_spine.studies.rsna2024 import prior_by_level, read_train
from monai_spine.studies.table_output import write_rows


def fit_priors(train: Path, output: Path) -> None:
    """Write the shares with six decimals; that of normal_mild takes up the rounding, so that each row sums to 1."""
    rows = []
    for row in prior_by_level(read_train(train)).to_dict("records"):
        moderate, severe = round(row["moderate"], 6), round(row["severe"], 6)
        shares = (f"{1 - moderate - severe:.6f}", f"{moderate:.6f}", f"{severe:.6f}")
        rows.append((row["condition"], row["level"], row["labelled"], *shares))
    write_rows(output, PRIOR_COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="the competition's train.csv")
    parser.add_argument("--output", type=Path, default=PRIORS_PATH, help="default: the table in the package")
    arguments = parser.parse_args()
    fit_priors(arguments.train, arguments.output)
    print(f"Wrote {arguments.output}")


if __name__ == "__main__":
    main()
