"""Scans without a lumbar spine have no levels: the shipped networks on real brains and on noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_spine.errors import LevelsNotFoundError
from monai_spine.geometry import affine_from_spacing
from monai_spine.level_inference import LevelLocalizer
from monai_spine.models import load_models
from monai_spine.volume import Volume, load_nifti

BRAINS = (
    "dicom2nifti/anatomical/001_ground_truth.nii.gz",
    "dicom2nifti/ge/anatomical/001_single_slice_ground_truth.nii.gz",
    "dicom2nifti/generic/compressed/001_ground_truth.nii.gz",
)


@pytest.fixture(scope="module")
def localizer() -> LevelLocalizer:
    return load_models(device="cpu").localizer


@pytest.mark.parametrize("name", BRAINS)
def test_a_brain_has_no_lumbar_levels(dicom_oddities_dir: Path, localizer: LevelLocalizer, name: str) -> None:
    (path,) = dicom_oddities_dir.rglob(name)
    with pytest.raises(LevelsNotFoundError, match="No lumbar spine was found"):
        localizer(load_nifti(path))


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_has_no_lumbar_levels(localizer: LevelLocalizer, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(100, 20, (16, 320, 320)).astype(np.float32)
    affine = affine_from_spacing((4.0, 0.8, 0.8), center_ras_mm=(0.0, 0.0, 0.0), shape=(16, 320, 320))
    with pytest.raises(LevelsNotFoundError, match="No lumbar spine was found"):
        localizer(Volume(noise, affine, slice_axis=0))
