"""Random changes of intensity, quick enough not to keep the network waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["RandIntensityd"]


class RandIntensityd:
    """Scale, shift, bend and blur with noise the intensities of crops that were normalised to mean 0 and deviation 1.

    Each strength is drawn evenly between minus and plus its limit (noise: between 0 and the limit).

    Args:
        key: The image, a tensor.
        contrast: Limit of the share by which intensities are scaled.
        brightness: Limit of the shift, in deviations.
        gamma: Limit of the exponent's logarithm, applied to the size of an intensity and keeping its sign.
        noise: Limit of the added noise's deviation.
        seed: Of the random numbers.
    """

    def __init__(
        self,
        key: str = "image",
        *,
        contrast: float = 0.2,
        brightness: float = 0.2,
        gamma: float = 0.2,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.key = key
        self.limits = torch.tensor([contrast, brightness, gamma])
        self.noise = noise
        self._generator = torch.Generator().manual_seed(seed)

    def set_random_state(self, seed: int) -> None:
        """Begin anew to draw random changes."""
        self._generator.manual_seed(seed)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Change one image (C, R, A, S), or each of a batch (B, C, R, A, S), on the device where it lies."""
        image = data[self.key]
        return {**data, self.key: self._changed_batch(image) if image.dim() == 5 else self._changed(image)}

    def _changed(self, image: torch.Tensor) -> torch.Tensor:
        drawn = (torch.rand(3, generator=self._generator) * 2 - 1) * self.limits
        deviation = float(torch.rand((), generator=self._generator)) * self.noise
        bent = image.abs().pow_(float(drawn[2].exp())).copysign_(image)
        changed = bent.mul_(1 + float(drawn[0])).add_(float(drawn[1]))
        if deviation > 0:
            changed.add_(torch.randn(image.shape, generator=self._generator), alpha=deviation)
        return changed

    def _changed_batch(self, images: torch.Tensor) -> torch.Tensor:
        count = len(images)
        strengths = (torch.rand(count, 3, generator=self._generator) * 2 - 1) * self.limits
        deviations = torch.rand(count, 1, generator=self._generator) * self.noise
        drawn = torch.cat([strengths, deviations], dim=1).to(images.device)
        contrast, brightness, gamma, deviation = drawn.T.reshape(4, count, 1, 1, 1, 1)
        seed = int(torch.randint(2**62, (), generator=self._generator))
        noise = torch.randn(images.shape, device=images.device, generator=torch.Generator(images.device).manual_seed(seed))
        bent = images.abs().pow(gamma.exp()).copysign(images)
        return bent * (1 + contrast) + brightness + noise * deviation
