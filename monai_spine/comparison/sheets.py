"""Sheets of where contenders look: Grad-CAM of all of them, feature maps and filters of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from monai_spine.training.condition_pictures import SliceView, draw_slice

__all__ = ["Look", "cam_sheet", "feature_sheet", "filter_sheet"]

Array = npt.NDArray[np.float32]
_CHANNELS = 8
_NAME = 24


@dataclass(frozen=True)
class Look:
    """What one contender made of one crop.

    Attributes:
        contender: Its label.
        image: What it saw, (…) of two or three axes.
        heat: Grad-CAM for what it called, of the same shape.
        called: Its answer, with its probability.
        true: The right one.
        right: Whether it called that.
        axis: In three dimensions the one across the slices.
        view: What its slices show.
    """

    contender: str
    image: Array
    heat: Array
    called: str
    true: str
    right: bool
    axis: int
    view: SliceView


def cam_sheet(looks: Sequence[Look], title: str) -> Figure:
    """Each contender's crop, and on it where Grad-CAM is: in 3D the middle slice, and the one where it is strongest."""
    columns = 3 if any(look.image.ndim == 3 for look in looks) else 2
    figure = Figure(figsize=(2.5 * columns, 0.5 + 2.7 * len(looks)), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for row, look in enumerate(looks):
        for column, (name, plane, heat) in enumerate(_planes(look)):
            axes = figure.add_subplot(len(looks), columns, row * columns + column + 1)
            draw_slice(axes, plane, look.view, heat=heat)
            said = f"{look.contender}\ncalled: {look.called}\ntrue: {look.true}" if column == 0 else name
            axes.set_title(said, fontsize=7, color="black" if look.right or column else "crimson")
    return figure


def _planes(look: Look) -> list[tuple[str, Array, Array | None]]:
    if look.image.ndim == 2:
        said = "Grad-CAM" if look.heat.any() else "Grad-CAM: nothing speaks for it"
        return [("crop", look.image, None), (said, look.image, look.heat)]
    middle = look.image.shape[look.axis] // 2
    across = tuple(axis for axis in range(3) if axis != look.axis)
    strongest = int(look.heat.sum(axis=across).argmax())
    cuts = [tuple(np.take(values, at, look.axis) for values in (look.image, look.heat)) for at in (middle, strongest)]
    return [
        ("crop", cuts[0][0], None),
        (f"Grad-CAM, middle slice {middle}", *cuts[0]),
        (f"Grad-CAM, strongest slice {strongest}", *cuts[1]),
    ]


def feature_sheet(maps: Mapping[str, Array], contender: str, axis: int) -> Figure:
    """Eight maps of some convolutions; in 3D their middle slices.

    Args:
        maps: (channels, …) by the names of the convolutions.
        contender: Its label.
        axis: In three dimensions the one across the slices.
    """
    figure = Figure(figsize=(1.4 * _CHANNELS, 1.7 * len(maps) + 0.3), layout="constrained")
    figure.suptitle(f"{contender}: feature maps", fontsize=9)
    for row, (name, values) in enumerate(maps.items()):
        strongest = np.argsort(-values.reshape(len(values), -1).std(axis=1), kind="stable")[:_CHANNELS]
        for column, channel in enumerate(sorted(strongest)):
            axes = figure.add_subplot(len(maps), _CHANNELS, row * _CHANNELS + column + 1)
            axes.imshow(_flat(values[channel], axis)[::-1].T, cmap="viridis", origin="lower")
            axes.set_axis_off()
            axes.set_title(f"{_short(name)}\nof {len(values)}: {channel}" if column == 0 else str(channel), fontsize=6)
    return figure


def _short(name: str) -> str:
    """The end of a layer's name, as much as fits above a map."""
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def filter_sheet(layer: str, kernels: Array, contender: str, axis: int) -> Figure:
    """Kernels of a convolution, blue below 0 and red above; in 3D their middle slices. They are seen as crops are.

    Args:
        layer: Name of the convolution.
        kernels: (out, …).
        contender: Its label.
        axis: In three dimensions the one across the slices.
    """
    shown = kernels[: 4 * _CHANNELS]
    rows = -(-len(shown) // _CHANNELS)
    figure = Figure(figsize=(0.9 * _CHANNELS, 0.9 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{contender}: {len(shown)} of {len(kernels)} filters of {layer}", fontsize=9)
    limit = float(np.abs(shown).max())
    for at, kernel in enumerate(shown):
        axes = figure.add_subplot(rows, _CHANNELS, at + 1)
        axes.imshow(_flat(kernel, axis)[::-1].T, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
        axes.set_axis_off()
    return figure


def _flat(values: Array, axis: int) -> Array:
    """A map, or the middle slice of one in three dimensions."""
    return values if values.ndim == 2 else np.asarray(values.take(values.shape[axis] // 2, axis))
