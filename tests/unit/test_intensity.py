"""Intensities are brought to one range."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentilesd

from monai_spine.intensity import ScaleToPercentilesd


def test_it_does_what_monai_s_transform_does() -> None:
    image = 900 * torch.rand(1, 6, 20, 30, generator=torch.Generator().manual_seed(0)) ** 3
    expected = ScaleIntensityRangePercentilesd("image", 1, 99, 0.0, 1.0, clip=True)({"image": image})["image"]
    found = ScaleToPercentilesd("image")({"image": image})["image"]
    torch.testing.assert_close(found, expected.as_tensor(), atol=1e-5, rtol=0)
    assert float(found.min()) == 0.0
    assert float(found.max()) == 1.0


def test_an_image_of_one_value_becomes_zero() -> None:
    assert not ScaleToPercentilesd("image")({"image": torch.full((1, 2, 3, 4), 7.0)})["image"].any()


def test_the_affine_stays() -> None:
    affine = torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    scaled = ScaleToPercentilesd("image")({"image": MetaTensor(torch.rand(1, 4, 4, 4), affine=affine)})["image"]
    assert isinstance(scaled, MetaTensor)
    torch.testing.assert_close(scaled.affine, affine)
