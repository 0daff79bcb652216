"""How many of the real points lie in the structures that they name, in replicas of studies drawn by chance. Nothing is rendered.

python tools/measure_replica.py TABLES --studies 60 --seed 1
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from monai_spine.anatomy import LEVELS, Condition
from monai_spine.phantom.replica.study import replicate
from monai_spine.phantom.replica.tables import ReplicaTables
from monai_spine.phantom.structures import lies_in


def main() -> None:
    """Print the share by condition and level, and the studies with most points elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, help="Folder of the RSNA 2024 tables.")
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    inside: dict[tuple[str, str], list[bool]] = defaultdict(list)
    elsewhere: dict[int, int] = {}
    tables = ReplicaTables.read(arguments.tables)
    for study in np.random.default_rng(arguments.seed).choice(list(tables.studies), arguments.studies, replace=False).tolist():
        replica = replicate(tables.studies[study], seed=arguments.seed)
        found = [lies_in(replica.simulated.patient, point.target, replica.locate(point)) for point in replica.table.points]
        for point, hit in zip(replica.table.points, found, strict=True):
            inside[point.target.condition.label, point.target.level.label].append(hit)
        elsewhere[study] = len(found) - sum(found)
    for condition in Condition:
        by_level = [inside[condition.label, level.label] for level in LEVELS]
        shares = " ".join(f"{level.label} {np.mean(hits):.3f}" for level, hits in zip(LEVELS, by_level, strict=True))
        print(f"{condition.label}: {np.mean(np.concatenate(by_level)):.3f} of {sum(map(len, by_level))} ({shares})")
    worst = sorted(elsewhere, key=lambda study: -elsewhere[study])[:8]
    print("most elsewhere: " + ", ".join(f"{study} ({elsewhere[study]})" for study in worst))


if __name__ == "__main__":
    main()
