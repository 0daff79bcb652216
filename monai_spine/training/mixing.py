"""MixUp and CutMix in the trainer, after MONAI's transforms, with labels that say what each mixed crop shows.

Who is mixed with whom, and how, MONAI draws. When it comes to mixing (monai 1.6), its MixUp refuses labels (B, 3), its CutMix
exchanges them whole, and images on a GPU meet weights on the processor. So images and labels are mixed by one call here: a crop's
label is laid over all of its voxels, mixed as they are, and averaged, which is right wherever a box lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.engines import PrepareBatch, default_prepare_batch
from monai.transforms import CutMix, MixUp, Randomizable
from monai.utils import convert_to_tensor

from monai_spine.training.losses import soft_targets

__all__ = ["BoxMix", "MixedBatch", "WholeMix", "mix"]


class WholeMix(MixUp):
    """MixUp: crops are averaged, λ of the one and 1 - λ of the other.

    Args:
        batch_size: Of MONAI's transform; `mix` sets it to each batch's own.
        alpha: λ is drawn from Beta(alpha, alpha).

    Source: Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018.
    """

    def apply(self, data: torch.Tensor) -> torch.Tensor:
        """Mix crops (B, C, …) by what was drawn last."""
        weights, order, _ = self._params
        others = data[torch.as_tensor(order, device=data.device)]
        return torch.lerp(others, data, weights.to(data)[(...,) + (None,) * (data.ndim - 1)])


class BoxMix(CutMix):
    """CutMix in 2D and 3D: a box of another crop, of an expected share of 1 - λ of the voxels before it is cut off at the border.

    Args:
        batch_size: Of MONAI's transform; `mix` sets it to each batch's own.
        alpha: λ is drawn from Beta(alpha, alpha).

    Source: Yun et al., CutMix, ICCV 2019.
    """

    def apply(self, data: torch.Tensor) -> torch.Tensor:
        """Mix crops (B, C, …) by what was drawn last."""
        weights, order, corner = self._params
        kept = torch.ones((len(data), 1, *data.shape[2:]), dtype=torch.bool, device=data.device)
        for row, weight in enumerate(weights.tolist()):
            share = (1 - weight) ** (1 / len(corner))
            spans = zip(corner, data.shape[2:], strict=True)
            kept[(row, 0, *(slice(int(at), int(at) + math.ceil(size * share)) for at, size in spans))] = False
        return torch.where(kept, data, data[torch.as_tensor(order, device=data.device)])


class MixedBatch(PrepareBatch, Randomizable):
    """What a trainer is given of each batch: now and then mixed crops with mixed labels (its `prepare_batch`).

    Crops without a label are neither mixed nor mixed into others: what they show is not known.

    Args:
        mixers: One of them, drawn evenly, mixes a batch.
        prob: Share of the batches that are mixed.
        seed: Of the random numbers.

    Raises:
        ValueError: There is no mixer, or the share lies outside [0, 1].
    """

    def __init__(self, mixers: Sequence[WholeMix | BoxMix], *, prob: float = 0.5, seed: int = 0) -> None:
        if not mixers or not 0 <= prob <= 1:
            raise ValueError(f"There must be a mixer and prob must be in [0, 1], got {len(mixers)} mixers and {prob}.")
        self.mixers = tuple(mixers)
        self.prob = prob
        self.set_random_state(seed=seed)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> MixedBatch:
        """Begin anew to draw what is mixed."""
        super().set_random_state(seed=seed, state=state)
        for mixer in self.mixers:
            mixer.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def randomize(self, data: Any = None) -> WholeMix | BoxMix | None:
        """The mixer of the next batch, or None where it stays as it is."""
        return self.mixers[self.R.randint(len(self.mixers))] if self.R.random_sample() < self.prob else None

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, R, A, S) and labels: (B,) as they came, or shares (B, 3) of what was mixed, on the device."""
        images, labels = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
        mixer = self.randomize()
        if mixer is None:
            return images, labels
        return mix(convert_to_tensor(images, track_meta=False), labels, mixer)


def mix(images: torch.Tensor, labels: torch.Tensor, mixer: WholeMix | BoxMix) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the labelled crops of a batch with one another.

    Args:
        images: (B, C, R, A, S).
        labels: As `soft_targets` takes them.
        mixer: Draws who is mixed with whom, and how.

    Returns:
        Images as they came but for the mixed ones, and shares (B, 3), a row of zeros where there is no label.
    """
    shares = soft_targets(labels)
    known = torch.nonzero(shares.sum(dim=1) > 0)[:, 0]
    if len(known) < 2:
        return images, shares
    mixer.batch_size = len(known)
    mixer.randomize(images[known])
    laid_over = shares[known][(...,) + (None,) * (images.ndim - 2)].expand(-1, -1, *images.shape[2:])
    mixed_shares = mixer.apply(laid_over).flatten(2).mean(dim=2)
    return images.index_copy(0, known, mixer.apply(images[known])), shares.index_copy(0, known, mixed_shares)
