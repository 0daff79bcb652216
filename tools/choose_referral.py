"""Choose above which expected risk a grader leaves a finding to a reader, and say what that comes to on cases it never saw.

    python -m monai.bundle run --config_file bundles/X/configs/inference.json --dataset_dir work/phantom --split validation
    python tools/choose_referral.py bundles/X/runs/predictions.csv --coverage 0.9
    python tools/choose_referral.py work/cv/frequencies.csv --solution DATA/train.csv --risk 0.05
    python tools/choose_referral.py VALIDATION.csv --coverage 0.9 --check results --check-solution train.csv --write my_bundles

Predictions are a bundle's predictions.csv, which has labels; or frequencies.csv of `tools/cross_validate.py`, or the folder of an
analysis, whose labels stand in --solution. Rows that hold the prior of the training set are no predictions and are left out.
For each condition in them the threshold is printed that keeps at least the share --coverage, or all that can be kept while no
more than --risk of it is wrong. What it comes to is counted on --check where that is given, otherwise on the same findings.
--write puts both into the `referral` section of each grader in a folder of bundles; a condition without a threshold is named and
left as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_spine.anatomy import TARGETS, Condition
from monai_spine.errors import SpineError, TableError
from monai_spine.models import GRADERS
from monai_spine.studies.priors import hold_prior
from monai_spine.studies.rsna2024 import read_solution
from monai_spine.studies.source_table import SourceTable
from monai_spine.studies.submissions import PROBABILITIES, read_submission
from monai_spine.training.out_of_fold import read_predictions
from monai_spine.training.referral_choice import ReferralEffect, choose_threshold, referral_effect
from monai_spine.weights import find_bundle

_COLUMNS = list(PROBABILITIES)
_CONDITIONS = {target.slug: target.condition.slug for target in TARGETS}


def graded_findings(paths: Sequence[Path], solution: Path | None = None) -> pd.DataFrame:
    """Labelled predictions: study, target, condition (slugs), label, and frequencies under the names of `PROBABILITIES`.

    Args:
        paths: Tables, or folders of analyses.
        solution: What is true, as train.csv; None: the tables say it themselves.

    Raises:
        TableError: A table breaks its format, or none of the findings is predicted and labelled.
    """
    frames = [_findings(path, labelled=solution is None) for path in paths]
    table = pd.concat(frames, ignore_index=True)
    if solution is not None:
        true = read_solution(solution)[["study", "target", "label"]]
        table = table.merge(true, on=["study", "target"], how="inner")
    table = table[table["label"] >= 0].reset_index(drop=True)
    if table.empty:
        raise TableError(
            f"No finding of {', '.join(map(str, paths))} is predicted and labelled. Give the solution of these studies, and "
            "frequencies.csv where more stands than the prior."
        )
    return table.assign(condition=table["target"].map(_CONDITIONS), label=table["label"].astype(int))


def _findings(path: Path, *, labelled: bool) -> pd.DataFrame:
    if path.is_dir():
        return _analysed(path)
    if not labelled:
        table = read_submission(path)[["study", "target", *_COLUMNS]]
        return table[~hold_prior(table["target"].tolist(), table[_COLUMNS].to_numpy(float))]
    labels = SourceTable.read(path, columns=("case", "target", "label"))
    return read_predictions(path).assign(label=labels.numbers("label"))


def _analysed(folder: Path) -> pd.DataFrame:
    """What an analysis graded; what it did not grade is left out."""
    places = {(t.condition.value, None if t.side is None else t.side.value, t.level.label): t.slug for t in TARGETS}
    rows = []
    for path in sorted(folder.glob("*/result.json")):
        for grade in json.loads(path.read_text(encoding="utf-8"))["grades"]:
            if grade["probabilities"] is not None:
                target = places[grade["condition"], grade["side"], grade["level"]]
                rows.append([path.parent.name, target, *(grade["probabilities"][name] for name in _COLUMNS)])
    if not rows:
        raise TableError(f"{folder} holds no graded study (<study>/result.json). Give the folder that `analyze` wrote.")
    return pd.DataFrame(rows, columns=["study", "target", *_COLUMNS])


def effects(
    findings: pd.DataFrame, check: pd.DataFrame, *, coverage: float | None = None, risk: float | None = None
) -> tuple[dict[Condition, ReferralEffect], dict[Condition, str]]:
    """The threshold of each condition of `findings`, and what it comes to on `check`; and why the others have none.

    A condition has none where no threshold does what is wanted, or where `check` lacks it.
    """
    result, reasons = {}, {}
    for condition in Condition:
        chosen, seen = (table[table["condition"] == condition.slug] for table in (findings, check))
        if chosen.empty:
            continue
        try:
            values, labels = chosen[_COLUMNS].to_numpy(float), chosen["label"].to_numpy(np.int64)
            threshold = choose_threshold(values, labels, coverage=coverage, risk=risk)
            result[condition] = referral_effect(seen[_COLUMNS].to_numpy(float), seen["label"].to_numpy(np.int64), threshold)
        except ValueError as error:
            reasons[condition] = str(error)
    return result, reasons


def write_sections(found: Mapping[Condition, ReferralEffect], folder: Path, source: str) -> None:
    """Put threshold and meaning into `configs/inference.json` of each grader."""
    for condition, effect in found.items():
        path = find_bundle(GRADERS[condition], folder).root / "configs" / "inference.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        document["referral"] = {"expected_risk": effect.expected_risk, "meaning": effect.sentence(source)}
        beside = path.with_suffix(".json.part")
        beside.write_text(json.dumps(document, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        findings = graded_findings(given.predictions, given.solution)
        check = graded_findings(given.check, given.check_solution) if given.check else findings
        found, reasons = effects(findings, check, coverage=given.coverage, risk=given.risk)
        for condition, effect in found.items():
            print(f"{condition.label}: expected_risk {effect.expected_risk:.4f}. {effect.sentence(given.source)}")
        if given.write is not None:
            write_sections(found, given.write, given.source)
    except (SpineError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for condition, reason in reasons.items():
        print(f"Error: {condition.label} has no threshold, and its bundle is left as it is. {reason}", file=sys.stderr)
    return 2 if reasons else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "predictions", type=Path, nargs="+", help="predictions.csv, frequencies.csv, or the folder of an analysis"
    )
    parser.add_argument("--solution", type=Path, help="train.csv with their labels, where the tables have none")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--coverage", type=float, help="least share that is not referred")
    wanted.add_argument("--risk", type=float, help="largest share of wrong grades among what is not referred")
    parser.add_argument("--check", type=Path, nargs="+", help="other findings, on which is counted what the threshold comes to")
    parser.add_argument("--check-solution", type=Path, help="their train.csv")
    parser.add_argument("--source", default="cases it has never seen", help="what these findings are, for the reader of a report")
    parser.add_argument("--write", type=Path, help="folder of bundles whose inference.json gets the thresholds")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
