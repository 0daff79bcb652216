"""What only the localiser's engines need: batches, decoded levels, a table at the end, pictures for TensorBoard, saved levels."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.utils import ImageMetaKey

from monai_spine.level_names import LevelNamer
from monai_spine.level_refinement import LevelRefiner
from monai_spine.training.gathering import FirstPictures
from monai_spine.training.level_files import write_levels
from monai_spine.training.localizer_metrics import found_levels
from monai_spine.volume import load_nifti
from monai_spine.weights import find_bundle

__all__ = [
    "DecodeLevels",
    "LevelPictures",
    "LevelTable",
    "SaveLevels",
    "SaveMetrics",
    "prepare_training_batch",
    "prepare_validation_batch",
]

_log = logging.getLogger(__name__)

_TABLE_HEAD = "data set, structure"
_TARGET_KEYS = ("target", "weight")
_TRUTH_KEYS = ("points", "estimated", "bodies", "marked", "case", "study", "volume", "role")


def prepare_training_batch(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Image and what the loss asks for: `target` (B, 18, R, A, S) and `weight` (B, 18)."""
    return _moved(batch["image"], device, non_blocking), {key: _moved(batch[key], device, non_blocking) for key in _TARGET_KEYS}


def prepare_validation_batch(
    batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Image (kept with its affine) and what the metrics ask for."""
    return batch["image"].to(device=device, non_blocking=non_blocking), {key: batch[key] for key in _TRUTH_KEYS if key in batch}


def _moved(tensor: Any, device: Any, non_blocking: bool) -> torch.Tensor:
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return torch.as_tensor(plain).to(device=device, non_blocking=non_blocking)


class DecodeLevels:
    """Postprocessing of one decollated output: adds `levels`, decoded from `pred` (probabilities) and the image's affine.

    With both bundles named, the scan itself is looked at again, as in an analysis.

    Args:
        namer: Name of the bundle that says which disc is which; None: the localiser's own maps say it.
        refiner: Name of the bundle that looks again at each disc; None: points stay as the localiser's grid shows them.
    """

    def __init__(self, namer: str | None = None, refiner: str | None = None) -> None:
        self.namer = None if namer is None else LevelNamer(find_bundle(namer))
        self.refiner = None if refiner is None else LevelRefiner(find_bundle(refiner))

    def __call__(self, output: Mapping[str, Any]) -> dict[str, Any]:
        if self.namer is None and self.refiner is None:
            return {**output, "levels": found_levels(output)}
        volume = load_nifti(output["image"].meta[ImageMetaKey.FILENAME_OR_OBJ])
        levels = found_levels(output, volume=volume, namer=self.namer)
        return {**output, "levels": levels if levels is None or self.refiner is None else self.refiner(volume, levels)}


class LevelTable:
    """Print the metrics of `LevelAccuracy` as a table, one line per data set and structure, and how many volumes were looked at.

    Attach it to the evaluator.

    Args:
        metric: Its name among the evaluator's metrics.
    """

    def __init__(self, metric: str = "levels") -> None:
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        values: Mapping[str, float] = engine.state.metrics.get(self.metric, {})
        prefixes = [name.removesuffix(" count") for name in values if name.endswith(" count")]
        width = max(map(len, [_TABLE_HEAD, *prefixes]))
        lines = [f"{_TABLE_HEAD:{width}s}  count  within 5 mm  within 10 mm  median mm"]
        for prefix in prefixes:
            count, median = values[f"{prefix} count"], values[f"{prefix} median mm"]
            within = [values[f"{prefix} within {limit} mm"] for limit in (5, 10)]
            lines.append(f"{prefix:{width}s}  {count:5.0f}  {within[0]:11.1%}  {within[1]:12.1%}  {median:9.2f}")
        for study in [name.removesuffix(" volumes") for name in values if name.endswith(" volumes")]:
            lines.append(_volumes_line(study, values))
        if engine.state.metrics.get("body_dice"):  # 0 where no body is drawn
            lines.append(f"vertebral bodies, mean Dice {engine.state.metrics['body_dice']:.3f}")
        if idist.get_rank() == 0:
            _log.info("\n%s", "\n".join(lines))


def _volumes_line(study: str, values: Mapping[str, float]) -> str:
    line = f"{study}: {values[f'{study} volumes']:.0f} volumes of {values[f'{study} cases']:.0f} cases"
    near = {limit: values.get(f"{study} all discs within {limit} mm") for limit in (5, 10)}
    shares = [f"within {limit} mm on {share:.1%}" for limit, share in near.items() if share is not None]
    return f"{line}; all discs {', '.join(shares)} of them" if shares else line


class LevelPictures(FirstPictures):
    """Slices with the heatmaps on them; see `heatmap_picture`."""

    tag = "levels"

    def draw(self, output: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        return heatmap_picture(np.asarray(output["image"].cpu())[0], np.asarray(output["pred"].float().cpu()))


def heatmap_picture(image: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sagittal slice with the strongest disc: grey image, discs red, canal green, bodies blue.

    Args:
        image: (R, A, S), 0 to 1.
        probabilities: (18, R, A, S).

    Returns:
        (3, S, A), 0 to 1, head up, front to the left.
    """
    layers = [probabilities[0:6].max(0), probabilities[6:12].max(0), 0.5 * probabilities[12:].max(0)]
    middle = int(layers[0].max((1, 2)).argmax())
    base = np.clip(image[middle], 0, 1)
    colored = np.stack([np.clip(0.8 * base + layer[middle], 0, 1) for layer in layers])
    return np.ascontiguousarray(np.flip(colored.transpose(0, 2, 1), (1, 2)))


class SaveLevels:
    """Write `<image>_levels.json` for each image of an evaluation or inference run. Attach it to the evaluator.

    Args:
        output_dir: Where the files go; images of subfolders get the same subfolders there.
        dataset_dir: Where the images lie. None: the items say where they lie in their data set.
    """

    def __init__(self, output_dir: Path | str, dataset_dir: Path | str | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.dataset_dir = None if dataset_dir is None else Path(dataset_dir)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for output in engine.state.output:
            levels = output["levels"] if "levels" in output else found_levels(output)
            write_levels(self.output_dir / self._place(output), levels)

    def _place(self, output: Mapping[str, Any]) -> Path:
        """Where an image lies below its data set's folder."""
        if self.dataset_dir is None:
            return Path(output["label"]["study"], output["label"]["volume"])
        return Path(output["image"].meta["filename_or_obj"]).relative_to(self.dataset_dir)


class SaveMetrics:
    """Write the metrics of an evaluation as JSON. Attach it to the evaluator.

    Args:
        path: File to write.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            values = {name: value for name, value in engine.state.metrics.items() if isinstance(value, (int, float))}
            self.path.write_text(json.dumps(values, indent=1), encoding="utf-8")
