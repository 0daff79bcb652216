"""Random textures and unevenness, fixed in the patient: the same in every series of a study."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Textures", "Unevenness"]

Floats = npt.NDArray[np.floating[Any]]

_SIZE = 128


class Textures:
    """Tiling noise fields with a spread of about 0.5, looked up by column coordinates from a place that differs per patient."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._start = rng.uniform(0, 1000, 3).astype(np.float32)

    def fine(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Grain of about 2 mm: trabeculae."""
        return self._look_up(_volume(1.2), u, v, s, 0.7)

    def streaks(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Strands of a few mm that run along the column: fat in muscle."""
        return self._look_up(_volume(2.2), u, v, 0.25 * s, 0.8)

    def coarse(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Blobs of about 1–2 cm: fatty marrow, loops of bowel."""
        return self._look_up(_volume(4.5), u, v, s, 1.6)

    def threads(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Roots: constant along the column but for a slow drift, about 1.5 mm across."""
        row = ((u + 0.02 * s + self._start[0]) / 0.4).astype(np.intp) % 256
        column = ((v + 0.015 * s + self._start[1]) / 0.4).astype(np.intp) % 256
        return np.asarray(_sheet()[row, column])

    def _look_up(self, volume: Floats, u: Floats, v: Floats, s: Floats, pitch_mm: float) -> Floats:
        moved = zip((u, v, s), self._start, strict=True)
        i, j, k = (((axis + start) / pitch_mm).astype(np.int32) % _SIZE for axis, start in moved)
        return np.asarray(volume.ravel()[(i * _SIZE + j) * _SIZE + k])


class Unevenness:
    """A smooth displacement of about a millimetre, so that no contour is a perfect ellipse and no side mirrors the other."""

    def __init__(self, rng: np.random.Generator, *, amplitude_mm: float = 0.55) -> None:
        self._waves = rng.uniform(1 / 45, 1 / 18, (3, 4, 3)) * rng.choice([-1, 1], (3, 4, 3)) * 2 * np.pi
        self._phase = rng.uniform(0, 2 * np.pi, (3, 4))
        self._amplitude = amplitude_mm / np.sqrt(2)

    def displace(self, u: Floats, v: Floats, s: Floats) -> tuple[Floats, Floats, Floats]:
        """Move points in column coordinates."""
        moved = []
        for axis, value in enumerate((u, v, s)):
            shift = sum(
                np.sin(wave[0] * u + wave[1] * v + wave[2] * s + phase)
                for wave, phase in zip(self._waves[axis], self._phase[axis], strict=True)
            )
            moved.append((value + self._amplitude * shift).astype(np.float32))
        return moved[0], moved[1], moved[2]


@cache
def _volume(sigma: float) -> Floats:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(int(sigma * 10)).standard_normal((_SIZE,) * 3).astype(np.float32)
    smooth = gaussian_filter(noise, sigma, mode="wrap")
    return np.asarray(smooth / smooth.std() * 0.5, dtype=np.float32)


@cache
def _sheet() -> Floats:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    smooth = gaussian_filter(noise, 1.4, mode="wrap")
    return np.asarray(smooth / smooth.std() * 0.3, dtype=np.float32)
