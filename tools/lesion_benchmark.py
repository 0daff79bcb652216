"""Milliseconds that a random lesion takes on a crop, beside MONAI's random elastic deformation of the same crop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmark_table import Measure
from monai.data import MetaTensor
from monai.transforms import Rand3DElasticd

from monai_spine.anatomy import Level
from monai_spine.crops import crop_block
from monai_spine.phantom import prepare_phantom
from monai_spine.studies.prepared import read_datalist
from monai_spine.training.simulated_lesions import RandSimulateLesiond
from monai_spine.volume import load_nifti

__all__ = ["SHAPE", "lesion_example", "lesions"]

SHAPE, SIZE_MM = (16, 88, 60), (64.0, 66.0, 45.0)
"""A crop with the disc, its canal and what lies around, as large as graders of volumes take."""
LEVEL = Level.L4_L5
TARGET_MS = 30.0


def lesion_example(folder: Path) -> dict[str, Any]:
    """A crop of a simulated study with the points of its levels, as the transform wants it."""
    study = read_datalist(prepare_phantom(folder, splits={"training": 1}, seed=0))
    case = study.cases[0]
    scan = load_nifti(study.root / next(volume.image for volume in case.volumes if volume.role == "sagittal_t2"))
    right, front, up = case.canals[LEVEL]
    crop = crop_block(scan, (right, front + 12.0, up), size_mm=SIZE_MM, shape=SHAPE)
    image = MetaTensor(torch.from_numpy(crop.image), affine=torch.from_numpy(crop.affine))
    discs, canals = ({level.label: point for level, point in points.items()} for points in (case.discs, case.canals))
    return {"image": image, "level": LEVEL.label, "discs": discs, "canals": canals}


def lesions(folder: Path, *, repeats: int) -> Iterator[Measure]:
    """Both by turns, on one thread, on crops of a simulated study.

    Args:
        folder: Where the study is written.
        repeats: How often each of them is done.
    """
    example = lesion_example(folder)
    ours = RandSimulateLesiond(seed=0)
    elastic = Rand3DElasticd("image", sigma_range=(5, 7), magnitude_range=(50, 150), prob=1.0).set_random_state(seed=0)
    ways: Mapping[str, Callable[[dict[str, Any]], object]] = {"ours": ours, "elastic": elastic}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                way(example)
                seconds[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    ours_ms, elastic_ms = (1000 * median(taken[1:]) for taken in (seconds["ours"], seconds["elastic"]))
    shape = " × ".join(map(str, SHAPE))
    slow_ms = 1000 * float(np.quantile(seconds["ours"][1:], 0.9))
    yield Measure(f"MONAI's `Rand3DElasticd` of a crop of {shape} voxels, one thread, median of {repeats}", elastic_ms, "ms")
    yield Measure("`RandSimulateLesiond` of the same crop, the share measured, by turns", ours_ms, "ms", TARGET_MS)
    yield Measure("· 90th percentile", slow_ms, "ms", TARGET_MS)
    yield Measure("Ratio of the two", ours_ms / elastic_ms, "")
