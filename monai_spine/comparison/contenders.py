"""What is compared: architectures, each as a volume or as slices, and a bundle's own network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_spine.degeneration import DEGENERATION
from monai_spine.errors import ArchitectureError
from monai_spine.networks.architectures import ARCHITECTURES
from monai_spine.suggestions import did_you_mean
from monai_spine.training.bundle_runs import overlay

__all__ = ["ALL", "OWN", "Contender", "contenders_of"]

OWN, ALL = "own", "all"
_FLAT = (DEGENERATION,)
"""Bundles whose crops are pictures."""


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        architecture: Its name, or `own` for the bundle's own network.
        spatial_dims: 3: sees a crop as a volume; 2: sees its middle slice; 0: as the bundle's own network does.
        settings: More of its training, such as a batch size that its document states.
    """

    architecture: str
    spatial_dims: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """For people: `vgg16 2D`."""
        return f"{self.architecture} {self.spatial_dims}D" if self.spatial_dims else self.architecture

    @property
    def slug(self) -> str:
        """For folders: `vgg16_2d`."""
        return self.label.lower().replace(" ", "_")

    def overlays(self, bundle: str) -> tuple[Path, ...]:
        """Configs that put it in the place of a bundle's own network."""
        if self.architecture == OWN:
            return ()
        flat = (overlay("comparison", "degeneration"),) if bundle in _FLAT else ()
        return (overlay("architectures", self.architecture), *flat)

    def arguments(self) -> dict[str, Any]:
        """Values of the config's names."""
        dims = {"spatial_dims": self.spatial_dims} if self.spatial_dims else {}
        return {**dims, **self.settings}


def contenders_of(
    names: Sequence[str], dims: Sequence[int], *, bundles: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Contender, ...]:
    """The contenders of these names, each in all of these dimensions.

    Args:
        names: Of architectures; `own`: the bundle's own network; `all`: it and every architecture.
        dims: 2, 3 or both.
        bundles: Names of what is asked; pictures have no third dimension.
        settings: More of each architecture's training.

    Raises:
        ArchitectureError: A name or dimension is unknown, or there is none.
    """
    wanted = [name.strip().lower() for name in names if name.strip()]
    wanted = list(dict.fromkeys(one for name in wanted for one in ([OWN, *ARCHITECTURES] if name == ALL else [name])))
    known = [ALL, OWN, *ARCHITECTURES]
    if not wanted:
        raise ArchitectureError(f"No architecture was named. Choose from: {', '.join(known)}.")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise ArchitectureError(f"There is no architecture {unknown[0]!r}. {hint}Choose from: {', '.join(known)}.")
    if not dims or not set(dims) <= {2, 3}:
        raise ArchitectureError(f"A contender has 2 or 3 dimensions, got {list(dims)}. Choose 2, 3 or both.")
    flat = all(bundle in _FLAT for bundle in bundles)
    return tuple(
        Contender(name, dim, dict((settings or {}).get(name, {})))
        for name in wanted
        for dim in ([0] if name == OWN else [2] if flat else dict.fromkeys(dims))
    )
