"""The refining bundle's own run: images whose levels the localiser wrote go in, levels seen at a finer grid come out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.data import Dataset

from monai_spine.errors import TableError
from monai_spine.level_refinement import DiscBlock, cut_blocks, refine_levels
from monai_spine.levels import Levels
from monai_spine.training.level_files import levels_path, read_levels, write_levels
from monai_spine.volume import load_nifti

__all__ = ["LocatedScan", "SaveRefinedLevels", "ScanBlocks", "located_scans"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocatedScan:
    """An image and its levels.

    Attributes:
        path: NIfTI file.
        place: The same, relative to its data set's folder.
        levels: As the localiser found them.
    """

    path: Path
    place: Path
    levels: Levels


def located_scans(dataset_dir: Path | str, levels_dir: Path | str, pattern: str = "*.nii*") -> list[LocatedScan]:
    """Images of a folder and its subfolders on which the localiser found levels; the others are named in the log.

    Args:
        dataset_dir: Where the images lie.
        levels_dir: Where `<image>_levels.json` lies, in the same subfolders as its image.
        pattern: Of the images' names.

    Raises:
        TableError: There is no image, an image has no file of levels, or none of them shows a column.
    """
    images, folder = sorted(Path(dataset_dir).rglob(pattern)), Path(levels_dir)
    places = [image.relative_to(dataset_dir) for image in images]
    missing = [place for place in places if not levels_path(folder / place).is_file()]
    if not images or missing:
        what = f"{len(missing)} of {len(images)} images have none, such as {missing[0]}" if missing else "there is no image"
        raise TableError(
            f"Not every image {pattern!r} of {dataset_dir} has its levels in {levels_dir}: {what}. Run the localiser's bundle on "
            "this folder first, and give its output_dir as levels_dir."
        )
    found = [(image, place, read_levels(levels_path(folder / place))) for image, place in zip(images, places, strict=True)]
    without = [str(place) for _, place, levels in found if levels is None]
    if without:
        _log.info("left out, as no lumbar spine was found on them: %s", ", ".join(without))
    scans = [LocatedScan(image, place, levels) for image, place, levels in found if levels is not None and levels.levels]
    if not scans:
        raise TableError(f"The files of levels in {levels_dir} name no level. Choose images that show a lumbar spine.")
    return scans


class ScanBlocks(Dataset[dict[str, Any]]):
    """All blocks of one image at a time, cut as an analysis cuts them.

    An example holds `image` (levels, 1, R, A, S), `affines` of these blocks, and the `scan` and `volume` that they come from.

    Args:
        data: Images with their levels.
        crop: The bundle's crop section: shape, spacing_mm, center_mm.
        transform: The bundle's preprocessing, on dicts with the `image` of one block.
    """

    def __init__(
        self, data: Sequence[LocatedScan], crop: Mapping[str, Any], transform: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.data, self.block, self.transform = list(data), DiscBlock.from_config(crop), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.data[index]
        volume = load_nifti(scan.path)
        image, affines = cut_blocks(volume, scan.levels, self.block, self.transform)
        return {"image": image, "affines": affines, "scan": scan, "volume": volume}


class SaveRefinedLevels:
    """Write `<image>_levels.json` for each image of an inference run. Attach it to the evaluator.

    Args:
        output_dir: Where the files go; images of subfolders get the same subfolders there.
    """

    def __init__(self, output_dir: Path | str) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        batch, maps = engine.state.batch, engine.state.output["pred"].float().cpu().numpy()
        affines = [affine.numpy() for affine in batch["affines"]]
        scan = batch["scan"]
        write_levels(self.output_dir / scan.place, refine_levels(batch["volume"], scan.levels, affines=affines, maps=maps))
