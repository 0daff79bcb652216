"""What TensorBoard shows of a grader: crops with their true and predicted grade, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_spine.anatomy import Severity

__all__ = ["GradingPictures", "confusion_figure", "crops_figure", "stacked"]

_SHORT = ("mild", "moderate", "severe")


def stacked(output: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (B, 3) and labels (B,) of a decollated batch, for Ignite's metrics."""
    return (
        torch.stack([torch.as_tensor(row["pred"]).float() for row in output]),
        torch.stack([torch.as_tensor(row["label"]).long().reshape(()) for row in output]),
    )


class GradingPictures:
    """Write crops and the confusion matrix to TensorBoard after each validation. Attach it to the evaluator.

    Args:
        writer: Where to write.
        count: How many crops are shown: as many of each severity as there are.
        thin_axis: The axis of the crops (0, 1, 2 for R, A, S) whose middle is shown.
    """

    def __init__(self, writer: Any, *, count: int = 12, thin_axis: int = 0) -> None:
        self.writer = writer
        self.count = count
        self.thin_axis = thin_axis
        self._start()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine | None = None) -> None:
        self._confusion = torch.zeros(3, 3)
        self._shown: list[list[tuple[np.ndarray, int, np.ndarray]]] = [[], [], []]

    def _collect(self, engine: Engine) -> None:
        for row in engine.state.output:
            label, probabilities = int(row["label"]), torch.as_tensor(row["pred"]).float().cpu()
            self._confusion[label, int(probabilities.argmax())] += 1
            if len(self._shown[label]) < self.count // len(Severity):
                image = torch.as_tensor(row["image"])[0]
                middle = image.select(self.thin_axis, image.shape[self.thin_axis] // 2).cpu().numpy()
                self._shown[label].append((middle, label, probabilities.numpy()))

    def _write(self, engine: Engine) -> None:
        confusion = idist.all_reduce(self._confusion) if idist.get_world_size() > 1 else self._confusion
        epoch = engine.state.epoch
        self.writer.add_figure("confusion_matrix", confusion_figure(torch.as_tensor(confusion).numpy()), epoch)
        shown = [crop for crops in self._shown for crop in crops]
        if shown:
            self.writer.add_figure("crops", crops_figure(shown), epoch)


def confusion_figure(counts: np.ndarray, names: Sequence[str] = _SHORT) -> Figure:
    """Counts (true, predicted) of the classes of these names, each row coloured by its shares."""
    size = len(names)
    figure = Figure(figsize=(1.5 + 0.7 * size, 1.1 + 0.7 * size), layout="constrained")
    draw_confusion(figure.add_subplot(), counts, names)
    return figure


def draw_confusion(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Counts (true, predicted) of the classes of these names, each row coloured by its shares."""
    size = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    slanted = size > len(_SHORT)
    axes.set_xticks(range(size), names, rotation=30 * slanted, ha="right" if slanted else "center")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in np.ndindex(size, size):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour)


def crops_figure(shown: list[tuple[np.ndarray, int, np.ndarray]]) -> Figure:
    """The middle slice of each crop (first axis to the right, second upwards), with its true and predicted grade."""
    columns = 4
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows), layout="constrained")
    for at, (image, label, probabilities) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, at + 1)
        axes.imshow(image.T, cmap="gray", origin="lower")
        axes.set_axis_off()
        guess = int(probabilities.argmax())
        colour = "black" if guess == label else "crimson"
        axes.set_title(f"true {_SHORT[label]}\n{_SHORT[guess]} {100 * probabilities[guess]:.0f} %", fontsize=8, color=colour)
    return figure
