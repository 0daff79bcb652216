"""Write a data list whose targets lie where an analysis would place them, instead of where readers marked them.

    python tools/predict_points.py work/rsna2024/folds/fold_0 -o work/points/fold_0 [--split validation]

The levels of each study are found by the bundles of the repository, and crops are placed by the code that grades: on the slice,
at the foramen, in the block that covers it best. Grades stay as they are. A target for which an analysis would have no crop is
left out. The images stay where they are.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from monai_spine.anatomy import Condition
from monai_spine.branches import Views
from monai_spine.console import progress_reporter
from monai_spine.crops import Crop, CropSpec
from monai_spine.errors import LevelsNotFoundError, SpineError
from monai_spine.grades import Grader, grade_targets
from monai_spine.level_inference import LevelLocalizer, localize_levels
from monai_spine.models import GRADERS, load_models
from monai_spine.reading import LOCALIZED_ON
from monai_spine.studies.folds import write_splits
from monai_spine.studies.prepared import Datalist, PreparedCase, PreparedTarget, read_datalist
from monai_spine.volume import Volume, load_nifti
from monai_spine.weights import find_bundle


class Placer(Grader):
    """Stands where a grader stands, and lets the crops be placed without looking at them."""

    def probabilities(self, crops: Sequence[Crop | Views]) -> list[tuple[float, float, float]]:
        """The same for every crop."""
        return [(1.0, 0.0, 0.0)] * len(crops)


def placers(folder: Path | None = None) -> dict[Condition, Placer]:
    """What places the crops of each condition, as the `crop` section of its bundle says."""
    bundles = {condition: find_bundle(name, folder) for condition, name in GRADERS.items()}
    return {
        condition: Placer(bundle, condition, CropSpec.from_config(bundle.config("crop")), network=None)
        for condition, bundle in bundles.items()
    }


def placed(case: PreparedCase, root: Path, localizer: LevelLocalizer, graders: Mapping[Condition, Grader]) -> PreparedCase:
    """A case with its graded targets where an analysis would look at them; without those that it would not see.

    Args:
        case: Of a prepared study.
        root: What its paths are relative to.
        localizer: Finds the levels.
        graders: What places the crops.
    """
    volumes: dict[str, list[Volume]] = defaultdict(list)
    for volume in case.volumes:
        volumes[volume.role].append(load_nifti(root / volume.image))
    sagittal = [block for role in LOCALIZED_ON for block in volumes.get(role.value, ())]
    try:
        levels = localize_levels(sagittal, localizer)
    except LevelsNotFoundError:
        return replace(case, targets={})
    grades = {grade.target: grade for grade in grade_targets(case.targets, levels, volumes, graders)}
    found = {target: grade.point_ras_mm for target, grade in grades.items() if grade.status == "graded"}
    severities = {target: marked.severity for target, marked in case.targets.items()}
    targets = {target: PreparedTarget(point, severities[target]) for target, point in found.items() if point is not None}
    return replace(case, targets=targets)


def write_placed(datalist: Datalist, out: Path, *, split: str, folder: Path | None = None) -> Path:
    """Place the targets of one split, and write its data list.

    Args:
        datalist: Of a prepared study.
        out: Folder of the new data list.
        split: The only one that it has.
        folder: Of the bundles; None: those of the repository.

    Returns:
        Path of the new data list.

    Raises:
        WeightsError: A bundle cannot be run.
        StudyError: An image cannot be read.
    """
    localizer, graders, members = load_models(folder).localizer, placers(folder), datalist.cases_of(split)
    cases = []
    with progress_reporter() as reporter:
        for number, case in enumerate(members):
            reporter.step(number / len(members), f"{number + 1} of {len(members)} studies")
            cases.append(placed(case, datalist.root, localizer, graders))
    return write_splits(replace(datalist, cases=tuple(cases)), out, splits={split: [case.case for case in cases]})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path, help="prepared folder, or that of a fold")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new data list")
    parser.add_argument("--split", default="validation", help="whose targets are placed")
    parser.add_argument("--bundles", type=Path, help="folder of bundles; default: those of the repository")
    given = parser.parse_args(arguments)
    try:
        datalist = read_datalist(given.datalist)
        path = write_placed(datalist, given.output, split=given.split, folder=given.bundles)
    except SpineError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    before, after = (sum(len(case.targets) for case in one.cases_of(given.split)) for one in (datalist, read_datalist(path)))
    print(f"{after} of {before} targets were placed: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
