"""The naming bundle's own run: images with the levels found on them go in, a table of names for their discs comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """All blocks of one image at a time, cut as an analysis cuts them.

    An example holds `image` (levels, 1, R, A, S) and the `scan` that it comes from.

    Args:
        data: Images with their levels, as `refinement_scans.located_scans` finds them.
        crop: The bundle's crop section: shape, spacing_mm, center_mm.
        transform: The bundle's preprocessing, on dicts with the `image` of one block.
    """

    def __init__(
        self, data: Sequence[LocatedScan], crop: Mapping[str, Any], transform: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.data, self.block, self.transform = list(data), NameBlock.from_config(crop), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.data[index]
        points = [level.disc_ras_mm for level in scan.levels.levels]
        return {"image": cut_name_blocks(load_nifti(scan.path), points, self.block, self.transform), "scan": scan}


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
        scan = engine.state.batch["scan"]
        for level, probabilities in zip(scan.levels.levels, engine.state.output["pred"].tolist(), strict=True):
            self._rows.append([scan.place.as_posix(), level.level.label, *(f"{value:.4f}" for value in probabilities)])

    def _write(self, engine: Engine) -> None:
        write_rows(self.path, ["image", "level", *CLASSES], self._rows)
