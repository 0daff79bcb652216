"""Cross-validate the localiser on real data: five folds by patient, each part left out once, ablations, and reuse of a part.

    monai-spine prepare lumbar_volumes DATA -o work/lumbar_volumes
    monai-spine prepare midsagittal DATA -o work/midsagittal
    python tools/evaluate_localizer.py split work/lumbar_volumes work/midsagittal -o work/folds
    python tools/evaluate_localizer.py train work/folds --phantom work/phantom [--localizer BASE --namer BASE --refiner BASE]
    python tools/evaluate_localizer.py report work/folds [--write docs/localization.md]

`train` runs the bundles' own training command for each experiment and keeps what is finished, so that it goes on after a kill;
ablations train the naming network alone unless `--only` says otherwise, and look with their fold's other two. BASE are weights
that have seen no real image. The experiment `all` holds nothing out: what it trains can be shipped, and not be evaluated.

`report` looks at every held-out scan as an analysis does (pictures at unknown scale), keeps what it found in `rows_*.json`, and
prints the tables of docs/localization.md; `--write` puts them between the marks of that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from localizer_evaluation.experiments import (
    ALL,
    BUNDLES,
    KINDS,
    Training,
    experiments,
    is_ablation,
    is_trained,
    split,
    train,
    weights_of,
)
from localizer_evaluation.tables import report

from monai_spine.studies.prepared import read_datalist

_MARKS = ("<!-- figures -->", "<!-- /figures -->")
_EPOCHS = {"localizer": 5, "namer": 36, "refiner": 5}


def _rows(experiment: Path, kinds: list[str]) -> pd.DataFrame:
    """What was found on the held-out cases by each kind of look, from `rows_KIND.json` where it is newer than the weights."""
    trained = max(path.stat().st_mtime for path in weights_of(experiment).values())
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        kept = experiment / f"rows_{kind}.json"
        if not kept.exists() or kept.stat().st_mtime < trained:
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(_looked_at(experiment, kind)), encoding="utf-8")
            part.replace(kept)
        rows += json.loads(kept.read_text(encoding="utf-8"))
    return pd.DataFrame(rows)


def _kinds(experiment: Path, wanted: list[str]) -> list[str]:
    """How an experiment's scans are looked at: an ablation's with parts left out, folds in every way, the others as they are."""
    usual = ["ablated"] if is_ablation(experiment) else wanted if experiment.name.startswith("fold_") else ["whole"]
    return [kind for kind in usual if kind in wanted]


def _looked_at(experiment: Path, kind: str) -> list[dict[str, Any]]:
    from localizer_evaluation.looks import load_localizer, look

    localizer = load_localizer(weights_of(experiment))
    datalists = [read_datalist(path) for path in sorted(experiment.glob("*/datalist.json"))]
    held_out = [(datalist, case) for datalist in datalists for case in datalist.cases_of("validation")]
    rows: list[dict[str, Any]] = []
    for position, (datalist, case) in enumerate(held_out, 1):
        print(f"{experiment.name}, {kind}: scan {position} of {len(held_out)}", file=sys.stderr)
        rows += [{"study": datalist.study, "case": case.case, **row} for row in look(datalist, case, localizer, (kind,))]
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _write_between_marks(path: Path, tables: str) -> None:
    head, mark, rest = path.read_text(encoding="utf-8").partition(_MARKS[0])
    _, end, tail = rest.partition(_MARKS[1])
    if not mark or not end:
        sys.exit(
            f"{path} has no place for the tables. Put {_MARKS[0]} and {_MARKS[1]} on lines of their own where they should stand."
        )
    path.write_text(f"{head}{mark}\n{tables}\n{end}{tail}", encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    splitting = steps.add_parser("split", help="write the data lists of all experiments")
    splitting.add_argument("prepared", type=Path, nargs="+", help="prepared folders of real data")
    splitting.add_argument("-o", "--output", type=Path, required=True)
    training = steps.add_parser("train", help="train what is not finished; what stands after -- goes to the bundles' command")
    training.add_argument("folds", type=Path)
    training.add_argument("--phantom", type=Path, required=True, help="prepared folder of simulated studies")
    training.add_argument("--experiments", default="*", help="pattern of the experiments' names")
    training.add_argument("--only", nargs="+", choices=BUNDLES, help="networks that are trained")
    for kind in BUNDLES:
        training.add_argument(f"--{kind}", type=Path, help="weights to start from, which have seen no real image")
        training.add_argument(f"--{kind}-epochs", type=int, default=_EPOCHS[kind])
        training.add_argument(f"--{kind}-arguments", default="", help="more arguments of this bundle's command, in one string")
    reporting = steps.add_parser("report", help="look at all held-out scans and print the tables")
    reporting.add_argument("folds", type=Path)
    reporting.add_argument("--experiments", default="*", help="pattern of the experiments' names")
    reporting.add_argument("--looks", nargs="+", choices=KINDS, default=list(KINDS), help="how folds are looked at")
    reporting.add_argument("--write", type=Path, help="Markdown file with the marks between which the tables go")
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.step == "split":
        for path in split([read_datalist(folder) for folder in arguments.prepared], arguments.output):
            print(path)
        return
    chosen = [path for path in experiments(arguments.folds) if path.match(arguments.experiments)]
    if arguments.step == "report":
        tables = report(
            {path.name: _rows(path, _kinds(path, arguments.looks)) for path in chosen if is_trained(path) and path.name != ALL}
        )
        print(tables)
        if arguments.write:
            _write_between_marks(arguments.write, tables)
        return
    how = Training(
        phantom=arguments.phantom,
        bases={kind: getattr(arguments, kind) for kind in BUNDLES},
        epochs={kind: getattr(arguments, f"{kind}_epochs") for kind in BUNDLES},
        overrides={kind: getattr(arguments, f"{kind}_arguments").split() for kind in BUNDLES},
    )
    for experiment in chosen:
        for kind in arguments.only or (["namer"] if is_ablation(experiment) else list(BUNDLES)):
            train(experiment, kind, how)


if __name__ == "__main__":
    main()
