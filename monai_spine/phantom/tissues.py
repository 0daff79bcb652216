"""Tissues and pulse sequences: what signal a tissue gives under a sequence at 1.5 T."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "TISSUES",
    "Sequence",
    "Tissue",
    "sample_axial_t2",
    "sample_sagittal_t1",
    "sample_sagittal_t2",
    "sample_stir",
    "sample_water",
]


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms, proton density relative to water, and the share of the signal that comes from fat."""

    t1_ms: float
    t2_ms: float
    proton_density: float
    fat_share: float = 0.0


TISSUES: dict[str, Tissue] = {
    "csf": Tissue(4000, 1800, 1.00),
    "fat": Tissue(280, 180, 0.95, fat_share=0.95),  # effective T2 in fast spin echo trains
    "marrow": Tissue(550, 80, 0.75, fat_share=0.5),
    "muscle": Tissue(950, 48, 0.80),
    "nucleus": Tissue(1400, 130, 0.95),
    "nucleus_degenerate": Tissue(950, 55, 0.80),
    "annulus": Tissue(900, 35, 0.65),
    "cord": Tissue(850, 80, 0.80),
    "root": Tissue(850, 75, 0.75),
    "ligament": Tissue(800, 3, 0.15),
    "flavum": Tissue(900, 25, 0.60),
    "vein": Tissue(1200, 150, 0.80),
    "bowel": Tissue(1100, 70, 0.80),
    "air": Tissue(1000, 1, 0.00),
}
"""Rounded textbook values; the ligament stands for cortical bone and endplates too."""


@dataclass(frozen=True)
class Sequence:
    """A spin-echo sequence; times in ms.

    `inversion_ms` above 0 makes it an inversion recovery (STIR); of fat's signal `fat_kept` is left, 0 in a perfect water image.
    """

    name: str
    repetition_ms: float
    echo_ms: float
    inversion_ms: float = 0.0
    fat_kept: float = 1.0

    def signal(self, tissue: Tissue) -> float:
        """Signal of a voxel full of one tissue, between 0 and 1 (spin-echo equation, magnitude)."""
        recovery = 1 - np.exp(-self.repetition_ms / tissue.t1_ms)
        if self.inversion_ms:
            recovery = abs(1 - 2 * np.exp(-self.inversion_ms / tissue.t1_ms) + np.exp(-self.repetition_ms / tissue.t1_ms))
        kept = 1 - tissue.fat_share * (1 - self.fat_kept)
        return float(kept * tissue.proton_density * recovery * np.exp(-self.echo_ms / tissue.t2_ms))


def sample_sagittal_t1(rng: np.random.Generator) -> Sequence:
    """T1 spin echo as scanners are set for lumbar spines."""
    return Sequence("T1", rng.uniform(500, 700), rng.uniform(8, 15))


def sample_sagittal_t2(rng: np.random.Generator) -> Sequence:
    """T2 fast spin echo."""
    return Sequence("T2", rng.uniform(3000, 5000), rng.uniform(90, 120))


def sample_stir(rng: np.random.Generator) -> Sequence:
    """Short-tau inversion recovery: fat is dark."""
    return Sequence("STIR", rng.uniform(3800, 4500), rng.uniform(40, 60), rng.uniform(150, 170))


def sample_water(rng: np.random.Generator) -> Sequence:
    """Water image of a Dixon series, or another with fat suppressed, from proton density to T2 weighting."""
    return Sequence("WATER", rng.uniform(1500, 4500), rng.uniform(12, 90), fat_kept=rng.uniform(0.0, 0.12))


def sample_axial_t2(rng: np.random.Generator) -> Sequence:
    """Axial T2 fast spin echo."""
    return Sequence("T2", rng.uniform(3500, 6000), rng.uniform(90, 110))
