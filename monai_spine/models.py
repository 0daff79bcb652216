"""The bundles that an analysis needs, loaded once per process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai_spine.anatomy import Condition
from monai_spine.degeneration import DEGENERATION, DegenerationGrader, load_degeneration
from monai_spine.device import resolve_device
from monai_spine.grades import Grader, load_grader
from monai_spine.level_inference import LevelLocalizer
from monai_spine.level_names import LevelNamer
from monai_spine.level_refinement import LevelRefiner
from monai_spine.study_grades import STUDY_HEAD, Corrector, load_corrector
from monai_spine.volume import Volume
from monai_spine.weights import Bundle, bundle_folder, find_bundle, verify_bundle

__all__ = ["GRADERS", "LOCALIZER", "NAMER", "REFINER", "SLICE_GRADERS", "Models", "check_models", "load_models"]

LOCALIZER = "lumbar_level_localization"
NAMER = "lumbar_level_naming"
REFINER = "lumbar_level_refinement"
GRADERS: Mapping[Condition, str] = {condition: f"{condition.slug}_grading" for condition in Condition}
"""Names of the bundles: whoever puts another one with the same outputs under such a name needs no code."""

SLICE_GRADERS: Mapping[Condition, str] = {Condition.SPINAL_CANAL_STENOSIS: "spinal_canal_slice_grading"}
"""What grades one slice alone, such as a picture, where the folder of bundles has it; without it a slice is taken for a scan."""


@dataclass(frozen=True)
class Models:
    """The localiser with its namer and its refiner, one grader per condition, what corrects them, what grades discs and
    vertebrae, and what grades a single slice, where there is one; ready to run on one device."""

    localizer: LevelLocalizer = field(repr=False)
    graders: Mapping[Condition, Grader]
    device: str
    corrector: Corrector | None = None
    degeneration: DegenerationGrader | None = None
    slice_graders: Mapping[Condition, Grader] = field(default_factory=dict)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Where they come from: the localiser first."""
        head = () if self.corrector is None else (self.corrector.bundle,)
        return (*self.localizer.bundles, *(grader.bundle for grader in self.graders.values()), *head)

    def for_study(self, volumes: Mapping[Any, Sequence[Volume]]) -> Models:
        """The same with the graders that suit a study: of a condition whose series is a single slice, the one for slices, which
        no corrector knows.

        Args:
            volumes: The blocks of the series of each role (`Role` or its value).
        """
        single = {str(role) for role, blocks in volumes.items() if blocks and all(block.is_single_slice for block in blocks)}
        chosen = {condition: grader for condition, grader in self.slice_graders.items() if grader.spec.role in single}
        return replace(self, graders={**self.graders, **chosen}, corrector=None) if chosen else self


@lru_cache(maxsize=2)
def load_models(folder: Path | None = None, *, device: str = "auto") -> Models:
    """Load all bundles; a second call in the same process gives the same models.

    Args:
        folder: Folder of bundles; see `weights.bundle_folder`.
        device: See `resolve_device`.

    Raises:
        DeviceError: The device is not there.
        WeightsError: A bundle is missing, altered, or cannot be run.
    """
    place = resolve_device(device)
    graders = _loaded(GRADERS, folder, place)
    slice_graders = _loaded(_offered_for_slices(folder), folder, place)
    refiner = LevelRefiner(find_bundle(REFINER, folder), device=place)
    namer = LevelNamer(find_bundle(NAMER, folder), device=place)
    localizer = LevelLocalizer(find_bundle(LOCALIZER, folder), device=place, namer=namer, refiner=refiner)
    corrector = load_corrector(folder, graders, place)
    return Models(localizer, graders, place, corrector, load_degeneration(folder, place), slice_graders)


def check_models(folder: Path | None = None, *, device: str = "auto") -> None:
    """Find what `load_models` would refuse, without loading it: for a run whose worker processes load their own.

    Raises:
        DeviceError: The device is not there.
        WeightsError: A bundle is missing or altered.
    """
    resolve_device(device)
    offered = [name for name in (STUDY_HEAD, DEGENERATION) if (bundle_folder(folder) / name).is_dir()]
    for name in (LOCALIZER, NAMER, REFINER, *GRADERS.values(), *_offered_for_slices(folder).values(), *offered):
        verify_bundle(find_bundle(name, folder))


def _loaded(names: Mapping[Condition, str], folder: Path | None, device: str) -> Mapping[Condition, Grader]:
    return {condition: load_grader(find_bundle(name, folder), device) for condition, name in names.items()}


def _offered_for_slices(folder: Path | None) -> Mapping[Condition, str]:
    return {condition: name for condition, name in SLICE_GRADERS.items() if (bundle_folder(folder) / name).is_dir()}
