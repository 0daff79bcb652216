"""Cross-validate the localiser on real data: five folds by patient, and each part of the set left out once.

    monai-spine prepare lumbar_volumes DATA -o work/lumbar_volumes
    monai-spine prepare midsagittal DATA -o work/midsagittal
    python tools/evaluate_localizer.py split work/lumbar_volumes work/midsagittal -o work/folds
    python tools/evaluate_localizer.py train work/folds --phantom work/phantom [--localizer BASE --namer BASE --refiner BASE]
    python tools/evaluate_localizer.py report work/folds

`train` runs the bundles' own training command for each experiment and keeps what is finished, so that it goes on after a kill.
BASE are weights that have seen no real image. `report` looks at every held-out scan as an analysis does (pictures at unknown
scale), keeps what it found in `rows.json`, and prints the tables of docs/localization.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_spine.anatomy import DISCS
from monai_spine.errors import LevelsNotFoundError
from monai_spine.models import LOCALIZER, NAMER, REFINER
from monai_spine.studies.folds import part_of, patient_folds, write_split
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLES = {"localizer": LOCALIZER, "namer": NAMER, "refiner": REFINER}
FOLDS = 5


def split(folders: list[Path], out: Path) -> None:
    """Write a data list per experiment and data set."""
    for datalist in map(read_datalist, folders):
        for fold, held_out in enumerate(patient_folds(datalist.cases, FOLDS)):
            print(write_split(datalist, out / f"fold_{fold}" / datalist.study, held_out=held_out))
        for part in sorted({part_of(case) for case in datalist.cases} - {""}):
            held_out = frozenset(case.case for case in datalist.cases if part_of(case) == part)
            print(write_split(datalist, out / f"without_{part}" / datalist.study, held_out=held_out))


def train(folder: Path, *, phantom: Path, bases: dict[str, Path | None], epochs: dict[str, int], overrides: list[str]) -> None:
    """Train the networks of every experiment that is not finished."""
    for experiment in sorted(path for path in folder.iterdir() if path.is_dir()):
        real = sorted(path.parent for path in experiment.glob("*/datalist.json"))
        for kind, bundle in BUNDLES.items():
            weights = experiment / f"{kind}.pt"
            if weights.exists():
                continue
            runs = experiment / f"{kind}_runs"
            command = [sys.executable, "-m", "monai.bundle", "run", "training"]
            command += ["--config_file", str(REPOSITORY / "bundles" / bundle / "configs" / "train.json")]
            command += ["--dataset_dir", str([str(path) for path in (*real, phantom)]), "--output_dir", str(runs)]
            command += ["--ckpt_path", str(runs / "best.pt"), "--epochs", str(epochs[kind]), "--val_interval", str(epochs[kind])]
            command += ["--resume", str((runs / "last.pt").exists())]
            command += ["--pretrained", str(bases[kind])] if bases[kind] else []
            subprocess.run([*command, *overrides], check=True)
            (runs / "best.pt").replace(weights)


def report(folder: Path) -> None:
    """Print how far the held-out points lie from the true ones, experiment by experiment and over all folds."""
    tables = {path.parent.name: _rows(path.parent) for path in sorted(folder.glob("*/localizer.pt"))}
    folds = [rows for name, rows in tables.items() if name.startswith("fold_")]
    if folds:
        tables = {"all folds": pd.concat(folds), **tables}
    for name, rows in tables.items():
        for study, mine in rows.groupby("study"):
            print(f"{name:12s} {study:15s} {_line(mine)}")


def _line(rows: pd.DataFrame) -> str:
    points, dice = rows[rows.name != "dice"], rows[rows.name == "dice"]
    if rows.study.iloc[0] == "midsagittal":
        near = points.value <= points.spacing / 3
        whole = near.groupby(points.case).all()
        return f"{len(points)} structures, nearer than a third of the spacing {near.mean():.1%}, whole columns {whole.mean():.1%}"
    worst = points.groupby("case").value.max()
    text = f"{len(points)} discs, within 5 mm {np.mean(points.value <= 5):.1%}, within 10 mm {np.mean(points.value <= 10):.1%}, "
    text += f"median {points.value.median():.2f} mm, all levels right {np.mean(worst <= 10):.1%} of {len(worst)} volumes"
    return text + (f", body Dice {dice.value.mean():.3f}" if len(dice) else "")


def _rows(experiment: Path) -> pd.DataFrame:
    """What was found on the held-out cases, from `rows.json` where it is newer than the weights."""
    kept, weights = experiment / "rows.json", experiment / "localizer.pt"
    if not kept.exists() or kept.stat().st_mtime < weights.stat().st_mtime:
        rows = list(_looked_at(experiment))
        kept.write_text(json.dumps(rows), encoding="utf-8")
    return pd.DataFrame(json.loads(kept.read_text(encoding="utf-8")))


def _looked_at(experiment: Path) -> Iterator[dict[str, Any]]:
    localizer = _localizer(experiment)
    for path in sorted(experiment.glob("*/datalist.json")):
        datalist = read_datalist(path)
        for case in datalist.cases_of("validation"):
            look = _picture_rows if datalist.study == "midsagittal" else _volume_rows
            for row in look(datalist, case, localizer):
                yield {"study": datalist.study, "case": case.case, **row}


def _localizer(experiment: Path) -> Any:
    """The bundles' networks with an experiment's weights."""
    import torch

    from monai_spine.level_inference import LevelLocalizer
    from monai_spine.level_names import LevelNamer
    from monai_spine.level_refinement import LevelRefiner
    from monai_spine.weights import find_bundle

    bundles = {kind: find_bundle(name) for kind, name in BUNDLES.items()}
    networks = {}
    for kind, bundle in bundles.items():
        networks[kind] = bundle.network_definition().eval()
        networks[kind].load_state_dict(torch.load(experiment / f"{kind}.pt", map_location="cpu", weights_only=True))
    refiner = LevelRefiner(bundles["refiner"], network=networks["refiner"])
    namer = LevelNamer(bundles["namer"], network=networks["namer"])
    return LevelLocalizer(bundles["localizer"], network=networks["localizer"], namer=namer, refiner=refiner)


def _volume_rows(datalist: Datalist, case: PreparedCase, localizer: Any) -> Iterator[dict[str, Any]]:
    from monai_spine.training.localizer_metrics import body_overlaps
    from monai_spine.volume import load_nifti

    volume = case.volumes[0]
    try:
        levels = localizer(load_nifti(datalist.root / volume.image))
    except LevelsNotFoundError:
        levels = None
    for level in DISCS:
        if level in case.discs and f"disc {level.label}" not in case.estimated:
            found = None if levels is None else levels.point_of(level)
            distance = np.inf if found is None else float(np.linalg.norm(np.subtract(found.disc_ras_mm, case.discs[level])))
            yield {"name": level.label, "value": distance, "confidence": 0.0 if found is None else found.confidence}
    if volume.bodies:
        bodies = None if levels is None else levels.bodies
        for _, dice in body_overlaps(bodies, datalist.root / volume.bodies, volume.bodies_labelled):
            yield {"name": "dice", "value": dice}


def _picture_rows(datalist: Datalist, case: PreparedCase, localizer: Any) -> Iterator[dict[str, Any]]:
    """Distances as shares of the picture's own disc spacing times the millimetres that this spacing was set to."""
    from monai_spine.geometry import apply_affine, invert_affine
    from monai_spine.level_pictures import localize_picture
    from monai_spine.level_sequence import DISC_SPACING_MM
    from monai_spine.volume import load_nifti

    volume = load_nifti(datalist.root / case.volumes[0].image)
    try:
        found = localize_picture(volume.array[0].T, localizer)
    except LevelsNotFoundError:
        found = None
    mm_per_px = float(volume.spacing_mm[1])
    marked: dict[str, Any] = {structure.label: point for of in (case.discs, case.vertebrae) for structure, point in of.items()}
    seen = () if found is None else (found.discs_px, found.vertebrae_px)
    places: dict[str, Any] = {structure.label: place for of in seen for structure, place in of.items()}
    for name, point in marked.items():
        true = apply_affine(invert_affine(volume.affine), point)[1:]
        distance = float(np.linalg.norm(true - places[name])) * mm_per_px if name in places else np.inf
        yield {"name": name, "value": distance, "spacing": DISC_SPACING_MM}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    splitting = steps.add_parser("split", help="write the data lists of all experiments")
    splitting.add_argument("prepared", type=Path, nargs="+", help="prepared folders of real data")
    splitting.add_argument("-o", "--output", type=Path, required=True)
    training = steps.add_parser("train", help="train what is not finished; what stands after -- goes to the bundles' command")
    training.add_argument("folds", type=Path)
    training.add_argument("--phantom", type=Path, required=True, help="prepared folder of simulated studies")
    for kind, number in (("localizer", 20), ("namer", 40), ("refiner", 10)):
        training.add_argument(f"--{kind}", type=Path, help="weights to start from, which have seen no real image")
        training.add_argument(f"--{kind}-epochs", type=int, default=number)
    reporting = steps.add_parser("report", help="look at all held-out scans and print the tables")
    reporting.add_argument("folds", type=Path)
    arguments, overrides = parser.parse_known_args()
    if arguments.step == "split":
        split(arguments.prepared, arguments.output)
    elif arguments.step == "train":
        train(
            arguments.folds,
            phantom=arguments.phantom,
            bases={kind: getattr(arguments, kind) for kind in BUNDLES},
            epochs={kind: getattr(arguments, f"{kind}_epochs") for kind in BUNDLES},
            overrides=overrides,
        )
    else:
        report(arguments.folds)


if __name__ == "__main__":
    main()
