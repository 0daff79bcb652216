"""What the level localiser's training sees: random views of a scan, and the heatmaps and masks it should answer with.

Images lie on the network's grid with axes R, A, S. Points stay in RAS+ mm throughout: a random view only changes the affine of
what is looked at, so that no point is ever moved. Left-right flips are allowed, as no structure of the localiser has a side.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, SpatialResample
from scipy.spatial.transform import Rotation

from monai_spine.geometry import apply_affine, invert_affine
from monai_spine.training.stored_volumes import stored_volume

__all__ = ["LoadBodiesd", "LocalizerTargetd", "RandContrastRemapd", "RandViewd", "heatmaps"]

Floats = npt.NDArray[np.float64]

_BODY_CHANNELS = 6


class LoadBodiesd(MapTransform):
    """Load the bodies' label map onto the grid of the image; all zero where an item has none (its `marked` is zero then).

    Args:
        keys: Path of a label map, or nothing.
        image_key: The image, already on the network's grid.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.resample = SpatialResample(mode="nearest", padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image = result[self.image_key]
        for key in self.key_iterator(result):
            labels = torch.zeros(image.shape, dtype=torch.uint8)
            if result[key]:
                stored = stored_volume(result[key])
                source = MetaTensor(torch.as_tensor(np.asarray(stored.array, np.float32))[None], torch.as_tensor(stored.affine))
                labels = self.resample(source, dst_affine=image.affine, spatial_size=image.shape[1:]).to(torch.uint8)
            result[key] = MetaTensor(_plain(labels), affine=image.affine)
        return result


def _plain(image: torch.Tensor) -> torch.Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


class RandViewd(Randomizable, MapTransform):
    """Look at the scan through a turned, scaled, shifted and perhaps mirrored window of fixed size, and cut its field of view.

    Args:
        keys: Images, then label maps (sampled to the nearest voxel), on one grid.
        shape: Voxels of the window along R, A, S.
        spacing_mm: Voxel size that the window has on the network's grid.
        rotate_deg: Largest turn about R, A and S.
        scale: Smallest and largest magnification; the R axis gets its own.
        shift_mm: Largest shift along R, A, S away from the labelled points' middle.
        flip_prob: Chance of a left-right flip.
        cut_prob: Chance that each of the six sides is cut at random inside the window, which leaves zeros beyond.
    """

    def __init__(
        self,
        keys: KeysCollection,
        shape: Sequence[int],
        spacing_mm: Sequence[float],
        *,
        rotate_deg: Sequence[float] = (20.0, 6.0, 6.0),
        scale: Sequence[float] = (0.8, 1.25),
        shift_mm: Sequence[float] = (10.0, 30.0, 45.0),
        flip_prob: float = 0.5,
        cut_prob: float = 0.1,
    ) -> None:
        super().__init__(keys)
        self.shape, self.spacing_mm = tuple(shape), np.asarray(spacing_mm, dtype=float)
        self.rotate_deg, self.scale, self.shift_mm = tuple(rotate_deg), tuple(scale), np.asarray(shift_mm, dtype=float)
        self.flip_prob, self.cut_prob = flip_prob, cut_prob
        self.modes = ["bilinear"] + ["nearest"] * (len(self.keys) - 1)
        self.resample = SpatialResample(padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        affine = torch.as_tensor(self._view(result))
        low, high = self._cuts()
        inside = torch.zeros(self.shape, dtype=torch.bool)
        inside[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True
        for key, mode in zip(self.keys, self.modes, strict=True):
            seen = self.resample(result[key].float(), dst_affine=affine, spatial_size=self.shape, mode=mode)
            result[key] = MetaTensor(_plain(seen) * inside, affine=affine)
        result["inside"] = np.stack([low, high]).astype(np.float32)
        return result

    def _view(self, data: Mapping[Hashable, Any]) -> Floats:
        """Affine of a random window."""
        image = data[self.keys[0]]
        directions = np.asarray(image.affine, dtype=float)[:3, :3]
        directions = directions / np.linalg.norm(directions, axis=0)
        turn = Rotation.from_euler("xyz", [self.R.uniform(-limit, limit) for limit in self.rotate_deg], degrees=True).as_matrix()
        in_plane, across = np.exp(self.R.uniform(*np.log(self.scale), size=2))
        columns = directions @ turn @ np.diag(self.spacing_mm / np.array([across, in_plane, in_plane]))
        if self.R.rand() < self.flip_prob:
            columns[:, 0] *= -1
        affine = np.eye(4)
        affine[:3, :3] = columns
        center = self._center(data) + directions @ self.R.uniform(-self.shift_mm, self.shift_mm)
        affine[:3, 3] = center - columns @ ((np.asarray(self.shape) - 1) / 2)
        return affine

    def _center(self, data: Mapping[Hashable, Any]) -> Floats:
        points = np.asarray(data["points"], dtype=float)
        points = points[np.isfinite(points).all(1)]
        if len(points):
            return np.asarray(points.mean(0))
        image = data[self.keys[0]]
        return apply_affine(np.asarray(image.affine), (np.asarray(image.shape[1:]) - 1) / 2)

    def _cuts(self) -> tuple[Floats, Floats]:
        """First voxel inside, and first beyond, along R, A, S."""
        shape = np.asarray(self.shape)
        chance = self.R.rand(2, 3) < self.cut_prob
        low = np.where(chance[0], self.R.randint(0, shape * 4 // 10 + 1), 0)
        high = shape - np.where(chance[1], self.R.randint(0, shape * 4 // 10 + 1), 0)
        return low, high


def heatmaps(points_ijk: Floats, shape: Sequence[int], *, sigma: Sequence[float]) -> torch.Tensor:
    """Gaussians of height 1 around points, (N, i, j, k).

    Args:
        points_ijk: (N, 3) voxel coordinates; rows with NaN give zeros.
        shape: Voxels along i, j, k.
        sigma: Width along i, j, k in voxels.
    """
    points = torch.as_tensor(np.asarray(points_ijk), dtype=torch.float32)
    known = torch.isfinite(points).all(1)
    points = torch.nan_to_num(points)
    profiles = [
        torch.exp(-0.5 * ((torch.arange(size)[None] - points[:, axis, None]) / width) ** 2)
        for axis, (size, width) in enumerate(zip(shape, sigma, strict=True))
    ]
    product = profiles[0][:, :, None, None] * profiles[1][:, None, :, None] * profiles[2][:, None, None, :]
    return product * known[:, None, None, None]


class LocalizerTargetd(MapTransform):
    """Write the answer: `target` (18, R, A, S) and `weight` (18,), how much each channel counts.

    The channels are twelve heatmaps and the masks of L1 to S1.

    A channel that the set does not label counts nothing; a point that lies outside the view counts, and its heatmap is zero.

    Args:
        keys: The label map of the bodies, on the view's grid.
        spacing_mm: Voxel size of the grid along R, A, S.
        sigma_mm: Width of the Gaussians.
        estimated_weight: Weight of channels whose point was derived and not seen.
    """

    def __init__(
        self, keys: KeysCollection, spacing_mm: Sequence[float], *, sigma_mm: float = 5.0, estimated_weight: float = 0.3
    ) -> None:
        super().__init__(keys)
        self.sigma = tuple(sigma_mm / float(edge) for edge in spacing_mm)
        self.estimated_weight = estimated_weight

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        labels = result.pop(self.keys[0])
        low, high = result.pop("inside")
        points = np.asarray(result["points"], dtype=float)
        seen = apply_affine(invert_affine(np.asarray(labels.affine, dtype=float)), points)
        seen[~((seen >= low - 0.5) & (seen <= high - 0.5)).all(1)] = np.nan
        masks = torch.cat([labels.as_tensor() == value for value in range(1, _BODY_CHANNELS + 1)]).float()
        result["target"] = torch.cat([heatmaps(seen, labels.shape[1:], sigma=self.sigma), masks])
        point_weight = np.isfinite(points).all(1) * np.where(result["estimated"], self.estimated_weight, 1.0)
        result["weight"] = torch.as_tensor(np.concatenate([point_weight, result["marked"][:_BODY_CHANNELS]]), dtype=torch.float32)
        return {key: result[key] for key in ("image", "target", "weight")}


class RandContrastRemapd(Randomizable, MapTransform):
    """Replace the grey scale by a random curve through a few knots: the same anatomy in another, perhaps unreal, contrast.

    Air (0) stays 0, and the curve is blended with the identity by a random share, so that T1, T2, STIR and water images all lie
    within what is seen.

    Args:
        keys: Images with values from 0 to 1.
        prob: Chance that an image is changed.
        knots: Points of the curve beyond 0.
        invert_prob: Chance that a changed image is also turned upside down, as T1 is to T2: the brightest tissue is the darkest.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.8, knots: int = 6, invert_prob: float = 0.0) -> None:
        super().__init__(keys)
        self.prob, self.knots, self.invert_prob = prob, knots, invert_prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            if self.R.rand() < self.prob:
                result[key] = self._remap(result[key])
        return result

    def _remap(self, image: torch.Tensor) -> torch.Tensor:
        grid = np.concatenate([[0.0], np.sort(self.R.uniform(0.05, 1.0, self.knots - 1)), [1.0]])
        share = self.R.uniform() ** 1.5
        drawn = grid ** np.exp(self.R.uniform(-0.7, 0.7)), self.R.uniform(0, 1, len(grid))
        inverted = self.invert_prob > 0 and self.R.rand() < self.invert_prob
        curve = (1 - share) * (1 - drawn[0] if inverted else drawn[0]) + share * drawn[1]
        curve[0] = 0.0
        table = torch.as_tensor(np.interp(np.linspace(0, 1, 256), grid, curve), dtype=torch.float32)
        return table[(image.clamp(0, 1) * 255).round().long()] if not isinstance(image, MetaTensor) else self._keep(image, table)

    @staticmethod
    def _keep(image: MetaTensor, table: torch.Tensor) -> MetaTensor:
        return MetaTensor(table[(image.as_tensor().clamp(0, 1) * 255).round().long()], affine=image.affine)
