"""What TensorBoard shows of both heads: their confusion matrices, and a crop of each condition and severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import ConfusionMatrix
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_spine.anatomy import KINDS, Severity, TargetKind
from monai_spine.training.condition_heads import split_heads
from monai_spine.training.grading_pictures import confusion_figure

__all__ = ["KIND_NAMES", "ConditionPictures", "SliceView", "draw_slice", "gallery"]

_SCALE_MM = 10


def _short(kind: TargetKind) -> str:
    """`left foraminal`: side and part of the score."""
    return kind.condition.score_group if kind.side is None else f"{kind.side.label} {kind.condition.score_group}"


KIND_NAMES: tuple[str, ...] = tuple(_short(kind) for kind in KINDS)
"""The five conditions in one or two words, in the order of `KINDS`."""
_SEVERITY_NAMES = ("mild", "moderate", "severe")


class ConditionPictures:
    """Write confusion matrices and crops to TensorBoard after each validation. Attach it to the evaluator.

    Args:
        writer: Where to write.
        confusions: Of `condition` and `severity`, that the evaluator's metrics fill.
        crop: The bundle's crop section: roles and size_mm.
    """

    def __init__(self, writer: Any, *, confusions: Mapping[str, ConfusionMatrix], crop: Mapping[str, Any]) -> None:
        self.writer = writer
        self.confusions = dict(confusions)
        self.roles, self.size_mm = dict(crop["roles"]), tuple(crop["size_mm"])
        self._shown: dict[tuple[int, int], Mapping[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._shown = {}

    def _collect(self, engine: Engine) -> None:
        for row in engine.state.output:
            kind, severity = (int(value) for value in row["label"])
            if severity >= 0:
                self._shown.setdefault((kind, severity), {"image": row["image"], "pred": row["pred"]})

    def _write(self, engine: Engine) -> None:
        for head, names in (("condition", KIND_NAMES), ("severity", _SEVERITY_NAMES)):
            counts = torch.as_tensor(self.confusions[head].compute()).cpu().numpy()
            self.writer.add_figure(f"confusion_matrix/{head}", confusion_figure(counts, names), engine.state.epoch)
        if self._shown:
            self.writer.add_figure("crops", gallery(self._shown, self.roles, self.size_mm), engine.state.epoch)


def gallery(shown: Mapping[tuple[int, int], Mapping[str, Any]], roles: Mapping[str, str], size_mm: Sequence[float]) -> Figure:
    """The middle slice of one crop of each condition (columns) and severity (rows), with what was called; wrong calls are red.

    Sagittal slices show the front at the left edge, axial ones the patient's right.

    Args:
        shown: `image` (1, R, A, S) and `pred` (8,), by place in `KINDS` and severity's index.
        roles: Kind of series of each condition.
        size_mm: Edges of the crops along R, A, S.
    """
    figure = Figure(figsize=(2.2 * len(KINDS), 2.5 * len(Severity)), layout="constrained")
    for (kind, severity), row in sorted(shown.items()):
        axes = figure.add_subplot(len(Severity), len(KINDS), severity * len(KINDS) + kind + 1)
        _draw(
            axes, np.asarray(torch.as_tensor(row["image"]).cpu())[0], size_mm, axial="axial" in roles[KINDS[kind].condition.slug]
        )
        heads = {name: int(values.argmax()) for name, values in split_heads(torch.as_tensor(row["pred"]).float()).items()}
        right = (heads["condition"], heads["severity"]) == (kind, severity)
        called = f"{KIND_NAMES[heads['condition']]}, {_SEVERITY_NAMES[heads['severity']]}"
        axes.set_title(
            f"{KIND_NAMES[kind]}, {_SEVERITY_NAMES[severity]}\n→ {called}", fontsize=8, color="k" if right else "crimson"
        )
    return figure


def _draw(axes: Axes, image: np.ndarray, size_mm: Sequence[float], *, axial: bool) -> None:
    """The middle slice of a crop (R, A, S)."""
    if axial:
        draw_slice(axes, image[:, :, image.shape[2] // 2], SliceView((size_mm[0], size_mm[1]), axial=True))
    else:
        draw_slice(axes, image[image.shape[0] // 2], SliceView((size_mm[1], size_mm[2]), axial=False))


@dataclass(frozen=True)
class SliceView:
    """What a slice shows.

    Attributes:
        edges_mm: Along its two axes: R and A of an axial slice, A and S of a sagittal one.
        axial: Which of the two it is.
        mirrored: Whether its patient's left and right are exchanged, as they are where right sides are shown as left ones.
        has_scale: Whether these are the patient's millimetres. A picture that states none has an arbitrary scale.
    """

    edges_mm: tuple[float, float]
    axial: bool
    mirrored: bool = False
    has_scale: bool = True


def draw_slice(axes: Axes, plane: np.ndarray, view: SliceView, *, heat: np.ndarray | None = None) -> None:
    """One slice with the marks of its edges and, where it has a scale, a bar of 10 mm.

    Args:
        axes: Where.
        plane: Voxels (R, A) of an axial slice, shown with the patient's right at the left edge unless it is mirrored, or (A, S)
            of a sagittal one, shown with the front there.
        view: What it shows.
        heat: Laid over it, of the same shape, 0 to 1: the higher the redder, and nothing where it is 0.
    """
    width, height = view.edges_mm
    extent = (0.0, width, 0.0, height)
    axes.imshow(plane[::-1].T, cmap="gray", origin="lower", extent=extent)
    if heat is not None:
        over = heat[::-1].T
        axes.imshow(over, cmap="jet", alpha=0.55 * np.clip(over, 0, 1), vmin=0, vmax=1, origin="lower", extent=extent)
    axes.set_axis_off()
    places = ((0.04, 0.5), (0.96, 0.5), (0.5, 0.95), (0.5, 0.05))
    legible: dict[str, Any] = {"color": "gold", "bbox": {"facecolor": "black", "alpha": 0.4, "linewidth": 0, "pad": 0.8}}
    marks = ("LRAP" if view.mirrored else "RLAP") if view.axial else "APSI"
    for mark, (x, y) in zip(marks, places, strict=True):
        axes.text(x, y, mark, transform=axes.transAxes, fontsize=7, ha="center", va="center", **legible)
    if view.has_scale:
        axes.plot([0.06 * width, 0.06 * width + _SCALE_MM], [0.04 * height] * 2, color="gold", linewidth=2)
        axes.text(0.06 * width, 0.07 * height, f"{_SCALE_MM} mm", fontsize=6, **legible)
