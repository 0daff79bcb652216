"""Where the networks run."""

from __future__ import annotations

from monai_spine.errors import DeviceError

__all__ = ["resolve_device"]


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
