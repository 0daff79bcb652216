"""Train in bfloat16 on processors that compute it: a network takes a half to a third of the time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

__all__ = ["AutocastInferer"]

_log = logging.getLogger(__name__)

_LARGEST_ERROR = 0.25


class AutocastInferer(Inferer):
    """Run a network on a processor in mixed precision (bfloat16 where that is safe); on anything else as it stands.

    MONAI's own `amp` is for CUDA alone. Weights stay float32, and so do the answers. bfloat16 has float32's range, so that losses
    need no scaling.

    Before the first step a batch of the same shape is computed both ways. Layers whose kernels get other gradients stay in
    float32: for some strides and sizes, torch 2.13 on x86 answers with what lay in memory. If that does not help, all of it does.

    Args:
        enabled: None: where the processor has instructions for it.
    """

    def __init__(self, enabled: bool | None = None) -> None:
        self.enabled = bool(torch.cpu.get_capabilities().get("avx512_bf16", False)) if enabled is None else enabled
        self._is_checked = False

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The network's answer to (B, C, R, A, S), float32."""
        if inputs.device.type != "cpu" or not self.enabled:
            return network(inputs, *args, **kwargs)
        if not self._is_checked and torch.is_grad_enabled() and isinstance(network, nn.Module):
            self._is_checked, self.enabled = True, _made_safe(getattr(network, "module", network), inputs)
            return self(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(inputs, *args, **kwargs).float()


def _made_safe(network: nn.Module, inputs: Tensor) -> bool:
    """Whether a network can be trained in bfloat16 once the layers that cannot stay in float32.

    Drawn weights and a drawn batch tell: which layers these are depends on sizes and strides alone, and a training that goes on
    after a kill must compute as before.
    """
    probe, batch = _drawn(network), torch.empty_like(inputs).normal_(generator=_draws())
    wrong = _wrong_kernels(probe, batch)
    for layer in (name.rpartition(".")[0] for name in wrong):
        _keep_in_float32(network.get_submodule(layer))
        _keep_in_float32(probe.get_submodule(layer))
    left = _wrong_kernels(probe, batch) if wrong else []
    if wrong:
        _log.info("training %s in float32: in bfloat16 their gradients are off", "all layers" if left else ", ".join(wrong))
    return not left


def _draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _drawn(network: nn.Module) -> nn.Module:
    """A copy with the same layers and other weights, always the same ones."""
    copy, draws = deepcopy(network), _draws()
    with torch.no_grad():
        for name, weights in copy.named_parameters():
            if weights.dim() > 1:
                weights.normal_(0.0, weights[0].numel() ** -0.5, generator=draws)
            else:
                weights.fill_(float(name.endswith("weight")))
    return copy


def _wrong_kernels(network: nn.Module, inputs: Tensor) -> list[str]:
    """The kernels that get other gradients in bfloat16 than in float32, beyond rounding."""
    kernels = {name: kernel for name, kernel in network.named_parameters() if kernel.dim() > 1 and kernel.requires_grad}
    was_training = network.training
    network.eval()
    direction, found = None, []
    for precise in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            answer = network(inputs).float()
        direction = torch.sign(answer.detach()) if direction is None else direction
        found.append(torch.autograd.grad((answer * direction).mean(), list(kernels.values()), allow_unused=True))
    network.train(was_training)
    used = [pair for pair in zip(kernels, *found, strict=True) if pair[1] is not None]
    return [name for name, expected, gradient in used if not _relative_error(gradient, expected) < _LARGEST_ERROR]


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _keep_in_float32(layer: nn.Module) -> None:
    """From now on a layer computes in float32, whatever surrounds it."""
    forward = layer.forward

    def precise(inputs: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(inputs.float())

    layer.forward = precise  # type: ignore[method-assign]
