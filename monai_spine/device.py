"""Where the networks run."""

from __future__ import annotations

import platform
from pathlib import Path

from monai_spine.errors import DeviceError

__all__ = ["model_of", "resolve_device"]


def model_of(device: str) -> str:
    """The model of a GPU (`cuda`, `cuda:N`) or, of any other name, that of the processor."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def resolve_device(name: str) -> str:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is there: `auto` takes the first GPU, otherwise the CPU.

    Raises:
        DeviceError: The name is none of these, or no such GPU is there.
    """
    import torch

    kind, _, number = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdigit()):
        raise DeviceError(f"Unknown device {name!r}. Choose from: auto, cpu, cuda, cuda:N.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if found else "cpu"
    if kind == "cuda" and int(number or 0) >= found:
        raise DeviceError(
            f"Device {name!r} was asked for, but torch {torch.__version__} finds {found} CUDA devices here. "
            "Use --device cpu or auto, or install a CUDA build of torch and its driver."
        )
    return name
