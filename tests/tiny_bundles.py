"""Bundles for tests of what surrounds the networks: a localiser and a refiner that draw one column into any scan, a namer that
leaves the names to their order, and untrained graders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from monai_spine.anatomy import DISCS, LEVELS, Condition
from monai_spine.level_names import CLASSES
from monai_spine.models import GRADERS, LOCALIZER, NAMER, REFINER
from monai_spine.weights import record_weights

DISC_STEP = 9
"""Voxels of 4 mm from one drawn disc to the next."""

BLOCK = {"shape": [12, 24, 32], "spacing_mm": [4.0, 3.0, 3.0], "center_mm": [0.0, -6.0, 0.0]}
"""What the refiner is shown of each disc."""

NAME_BLOCK = {"shape": [4, 16, 20], "spacing_mm": [8.0, 8.0, 8.0], "center_mm": [0.0, -10.0, 0.0]}
"""What the namer is shown of each disc."""


class DrawnColumn(torch.nn.Module):
    """Logits (B, 18, R, A, S) of a straight column in the middle of the grid, whatever the image shows."""

    def __init__(self) -> None:
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(6.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        r, a, s = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in image.shape[2:])
        grid = torch.meshgrid(r, a, s, indexing="ij")
        heights = [DISC_STEP * (3 - number) for number in range(len(DISCS))]
        discs = [self._blob(grid, 0, height) for height in heights]
        canals = [self._blob(grid, -6, height) for height in heights]
        bodies = [self._blob(grid, 0, 2.5 * DISC_STEP - DISC_STEP * number, 9.0) for number in range(6)]
        return torch.stack([*discs, *canals, *bodies]).expand(image.shape[0], -1, -1, -1, -1)

    def _blob(self, grid: tuple[torch.Tensor, ...], a: float, s: float, width: float = 2.0) -> torch.Tensor:
        distance = grid[0] ** 2 + (grid[1] - a) ** 2 + (grid[2] - s) ** 2
        return self.height * (2 * torch.exp(-distance / (2 * width)) - 1)


class BrightDiscs(torch.nn.Module):
    """Logits (B, 18, R, A, S) that call whatever is bright a disc of any name, and nothing a canal or a body."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        smooth = image
        for _ in range(2):
            smooth = torch.nn.functional.avg_pool3d(smooth, (3, 7, 7), stride=1, padding=(1, 3, 3))
        discs = (12 * (smooth - 0.4)).expand(-1, 6, -1, -1, -1)
        return torch.cat([discs, torch.full_like(image, -10.0).expand(-1, 12, -1, -1, -1)], dim=1)


class LopsidedDiscs(torch.nn.Module):
    """Logits (B, 18, R, A, S) that call whatever is bright a disc of any name, more so on the right, and the lowest rows too."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = torch.nn.Parameter(torch.tensor(12.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        smooth = torch.nn.functional.avg_pool3d(image, (1, 5, 5), stride=1, padding=(0, 2, 2))
        ramp = torch.linspace(0.7, 1.3, image.shape[2])[:, None, None]
        discs = self.steepness * (smooth * ramp - 0.4)
        discs[..., image.shape[3] // 2, :2] = self.steepness / 2
        nothing = torch.full_like(image, -10.0)
        return torch.cat([discs.expand(-1, 6, -1, -1, -1), nothing.expand(-1, 12, -1, -1, -1)], dim=1)


class LopsidedLevel(torch.nn.Module):
    """Logits (B, 5, R, A, S) that call whatever is bright a disc, more so on the right, and the canal 24 mm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = torch.nn.Parameter(torch.tensor(12.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0.7, 1.3, image.shape[2])[:, None, None]
        disc = self.steepness * (image * ramp - 0.4)
        return torch.cat([disc, disc.roll(-16, dims=3), *3 * [torch.full_like(image, -10.0)]], dim=1)


class DrawnLevel(torch.nn.Module):
    """Logits (B, 5, R, A, S) of a disc, its canal, two foramina and boxes for the bodies beside it, whatever the image shows.

    Args:
        aside_mm: How far from where the block expects it the disc is drawn, along right, front, up; all else moves with it.
    """

    def __init__(self, aside_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(6.0))
        self.aside_mm = aside_mm

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        axes = zip(image.shape[2:], BLOCK["spacing_mm"], BLOCK["center_mm"], self.aside_mm, strict=True)
        places = [(torch.arange(size) - (size - 1) / 2) * edge + middle - aside for size, edge, middle, aside in axes]
        r, a, s = torch.meshgrid(*places, indexing="ij")
        offsets = (r**2 + a**2 + s**2, r**2 + (a + 24) ** 2 + s**2, (r.abs() - 17) ** 2 + (a + 19) ** 2 + (s - 8) ** 2)
        points = [torch.exp(-offset / (2 * 4.0**2)) for offset in offsets]
        bodies = [((r.abs() < 20) & (a.abs() < 16) & ((s - up).abs() < 13)).float() for up in (18.0, -18.0)]
        return (self.height * (2 * torch.stack([*points, *bodies]) - 1)).expand(image.shape[0], -1, -1, -1, -1)


class AnyName(torch.nn.Module):
    """Logits (B, 8) that call each of the six names as likely: which of six discs is which, their order alone decides.

    Args:
        first: Place in `DISCS` of the first name that is given at all.
    """

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([-12.0] * (1 + first) + [0.0] * (len(DISCS) - first) + [-12.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.repeat(len(image), 1)


class NameByBrightness(torch.nn.Module):
    """Logits (B, 8) that read a disc's class from the brightness around it: `brightness_of` each class, in steps of 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = torch.nn.Parameter(torch.tensor(600.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        r, a, s = (size // 2 for size in image.shape[2:])
        seen = image[:, 0, r - 1 : r + 1, a - 1 : a + 1, s - 1 : s + 1].mean((1, 2, 3))
        steps = torch.tensor([brightness_of(name) for name in CLASSES])
        return -self.steepness * (seen[:, None] - steps) ** 2


def brightness_of(name: str) -> float:
    """What `NameByBrightness` takes for one of `CLASSES`."""
    return 0.1 * (CLASSES.index(name) + 1)


def write_bundles(folder: Path) -> Path:
    """Write the six bundles that an analysis needs. Returns `folder`."""
    _write(folder / LOCALIZER, _localizer(), DrawnColumn(), "simulated")
    _write(folder / NAMER, _namer(), AnyName(), "simulated")
    _write(folder / REFINER, _refiner(), DrawnLevel(), "simulated")
    for condition, name in GRADERS.items():
        torch.manual_seed(0)
        config = _grader(condition)
        _write(folder / name, config, _densenet(config["network_def"]), "simulated")
    return folder


def _densenet(definition: dict[str, Any]) -> torch.nn.Module:
    from monai.networks.nets import DenseNet

    return DenseNet(**{key: value for key, value in definition.items() if key != "_target_"})


def _write(root: Path, config: dict[str, Any], network: torch.nn.Module, training_data: str) -> None:
    for part in ("configs", "models"):
        (root / part).mkdir(parents=True)
    notice = f"{root.name}: a stand-in for tests."
    metadata = {"version": "0.0.1", "training_data": training_data, "notice": notice}
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(network.state_dict(), root / "models" / "model.pt")
    record_weights(root)


def _localizer() -> dict[str, Any]:
    return {
        "network_def": {"_target_": "tiny_bundles.DrawnColumn"},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [4.0, 4.0, 4.0]},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]},
    }


def _namer() -> dict[str, Any]:
    return {**_on_blocks(NAME_BLOCK, "AnyName", softmax=True), "confidence": {"slope": 1.0, "offset": 0.0}}


def _refiner() -> dict[str, Any]:
    return _on_blocks(BLOCK, "DrawnLevel", sigmoid=True)


def _on_blocks(crop: dict[str, Any], network: str, **activation: bool) -> dict[str, Any]:
    return {
        "crop": crop,
        "network_def": {"_target_": f"tiny_bundles.{network}"},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "EnsureTyped", "keys": "image", "track_meta": False}],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", **activation}]},
    }


def _grader(condition: Condition) -> dict[str, Any]:
    axial = condition is Condition.SUBARTICULAR_STENOSIS
    role = {
        Condition.SPINAL_CANAL_STENOSIS: "sagittal_t2",
        Condition.NEURAL_FORAMINAL_NARROWING: "sagittal_t1",
        Condition.SUBARTICULAR_STENOSIS: "axial_t2",
    }[condition]
    return {
        "condition": condition.value,
        "crop": {
            "role": role,
            "size_mm": [32, 32, 16] if axial else [16, 32, 32],
            "shape": [16, 16, 4] if axial else [4, 16, 16],
            "mirror_right": condition is not Condition.SPINAL_CANAL_STENOSIS,
            "offset_mm": {level.label: [0.0 if not axial else 4.0, 0.0, 0.0] for level in LEVELS},
            "min_coverage": 0.3,
        },
        "network_def": {
            "_target_": "DenseNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
            "init_features": 4, "growth_rate": 2, "block_config": [1],
        },
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "NormalizeIntensityd", "keys": "image"}]},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]},
    }  # fmt: skip
