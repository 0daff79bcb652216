"""The naming bundle's own run: images with the levels found on them go in, a table of names for their discs comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.data import Dataset

from monai_spine.level_names import CLASSES, NameBlock, cut_name_blocks
from monai_spine.studies.table_output import write_rows
from monai_spine.training.refinement_scans import LocatedScan
from monai_spine.volume import load_nifti

__all__ = ["SaveNames", "ScanNameBlocks"]


class ScanNameBlocks(Dataset[dict[str, Any]]):
    """One block per level of each image, cut as an analysis cuts it.

    An example holds `image` (1, R, A, S), `scan`, the image's path in its data set, and `level`.

    Args:
        data: Images with their levels, as `refinement_scans.located_scans` finds them.
        crop: The bundle's crop section: shape, spacing_mm, center_mm.
        transform: The bundle's preprocessing, on dicts with `image`.
    """

    def __init__(
        self, data: Sequence[LocatedScan], crop: Mapping[str, Any], transform: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.data = [(scan, level) for scan in data for level in scan.levels.levels]
        self.block, self.transform = NameBlock.from_config(crop), transform
        self._load = lru_cache(maxsize=1)(load_nifti)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan, level = self.data[index]
        (image,) = cut_name_blocks(self._load(scan.path), [level.disc_ras_mm], self.block, self.transform)
        return {"image": image, "scan": scan.place.as_posix(), "level": level.level.label}


class SaveNames:
    """Write one row per image and level of an inference run: the probability of each of `level_names.CLASSES` for its disc.

    Attach it to the evaluator.

    Args:
        path: CSV file to write; it appears when the run is complete.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        for example, row in zip(engine.state.batch, engine.state.output, strict=True):
            self._rows.append([example["scan"], example["level"], *(f"{value:.4f}" for value in row["pred"].tolist())])

    def _write(self, engine: Engine) -> None:
        write_rows(self.path, ["image", "level", *CLASSES], self._rows)
