"""Where the graded points of a prepared set lie, seen from the canal's centre along the column's own axes.

    python tools/measure_offsets.py PREPARED

The medians go into a bundle's crop section (`offset_mm`), so that inference cuts where training cut.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from monai_spine.anatomy import LEVELS, Condition, Level
from monai_spine.geometry import Triple
from monai_spine.levels import LevelPoint, Levels
from monai_spine.placement import column_frames
from monai_spine.studies.prepared import Datalist, PreparedCase, read_datalist

Offsets = dict[tuple[Condition, Level], list[Triple]]


def measured_offsets(datalist: Datalist) -> Offsets:
    """Offsets (outwards, to the front, to the head) of all graded points, by condition and level."""
    found: Offsets = defaultdict(list)
    for case in datalist.cases:
        frames = column_frames(_levels(case))
        for target, graded in case.targets.items():
            if target.level in frames:
                found[target.condition, target.level].append(frames[target.level].offset_mm(graded.point_ras_mm, target.side))
    return found


def _levels(case: PreparedCase) -> Levels:
    named = [level for level in LEVELS if level in case.discs]
    return Levels(tuple(LevelPoint(level, case.discs[level], case.canals.get(level), 1.0) for level in named), vertebrae=())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder with datalist.json")
    for (condition, level), offsets in sorted(measured_offsets(read_datalist(parser.parse_args().prepared)).items()):
        values = np.asarray(offsets)
        median, deviation = np.median(values, axis=0).round(1).tolist(), values.std(axis=0).round(1).tolist()
        print(f"{condition.slug:28} {level.label}  n={len(values):5}  median {median}  deviation {deviation} mm")


if __name__ == "__main__":
    main()
