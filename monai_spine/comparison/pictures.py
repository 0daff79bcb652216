"""Pictures of a comparison: learning curves, confusion matrices, reliability, what a right answer costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import BboxBase
from sklearn.metrics import confusion_matrix

from monai_spine.comparison.answers import Answers
from monai_spine.comparison.questions import Question, spoken
from monai_spine.training.calibration import reliability_table
from monai_spine.training.calibration_pictures import draw_reliability
from monai_spine.training.grading_pictures import draw_confusion
from monai_spine.whole_files import written_whole

__all__ = ["confusions", "costs", "learning_curves", "reliabilities", "save_figure"]

_COLUMNS = 4
_USUAL, _HEADROOM = 0.95, 1.3


def learning_curves(epochs: Mapping[str, Sequence[pd.DataFrame]], metric: str) -> Figure:
    """Loss of training and a figure of validation over the epochs, one plot per contender and one line per run.

    A few values far above all others leave the picture, so that they do not press the rest flat.

    Args:
        epochs: By contender, the tables of `EpochRecord`.
        metric: The validator's, such as `validation_loss`.
    """

    def draw(axes: Axes, tables: Sequence[pd.DataFrame]) -> None:
        for table in tables:
            axes.plot(table["epoch"], table["mean_train_loss"], color="C0", alpha=0.7, marker=".", label="training")
            axes.plot(table["epoch"], table[metric], color="C1", alpha=0.7, marker=".", label="validation")
        axes.set_xlabel("epoch")
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[:2], labels[:2], fontsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    figure = _grid(epochs, draw, size=(2.9, 2.4), sharey=True)
    values = pd.concat([table[["mean_train_loss", metric]] for tables in epochs.values() for table in tables]).to_numpy(float)
    highest = _HEADROOM * float(np.nanquantile(values, _USUAL))
    if np.nanmax(values) > highest > 0:
        figure.axes[0].set_ylim(top=highest)
    figure.supylabel(f"loss of training, {metric.removeprefix('validation_').replace('_', ' ')} of validation", fontsize=9)
    return figure


def confusions(answers: Mapping[str, Answers], question: Question) -> Figure:
    """Counts (true, called) of all folds and seeds together, one plot per contender."""
    names = [spoken(name).removesuffix(" stenosis").removesuffix(" narrowing") for name in question.answers]

    def draw(axes: Axes, found: Answers) -> None:
        draw_confusion(axes, confusion_matrix(found.labels, found.called, labels=range(len(names))), names)
        axes.tick_params(labelsize=7)

    edge = 1.7 + 0.42 * len(names)
    return _grid(answers, draw, size=(edge, edge))


def reliabilities(answers: Mapping[str, Answers]) -> Figure:
    """Probability of the most probable answer against how often it is right, one plot per contender."""

    def draw(axes: Axes, found: Answers) -> None:
        draw_reliability(axes, {"all folds": reliability_table(found.probabilities, found.labels)})
        axes.legend(loc="lower right", fontsize=7)

    figure = _grid(answers, draw, size=(2.6, 2.6), sharey=True)
    figure.supxlabel("probability of the most probable answer", fontsize=9)
    figure.supylabel("share that is right", fontsize=9)
    return figure


def costs(means: pd.DataFrame, figure_key: str, title: str) -> Figure:
    """Accuracy, or another figure, over milliseconds for one crop; the larger the dot the more weights, bars are one SD."""
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    size = 30 + 300 * np.sqrt(means["parameters"] / means["parameters"].max())
    kind = means["contender"].str.extract(r" ([23]D)$")[0].fillna("the bundle's own")
    spread = means[f"{figure_key}_sd"].fillna(0)
    axes.errorbar(means["inference_ms"], means[figure_key], yerr=spread, fmt="none", ecolor="0.7", elinewidth=1, zorder=1)
    for at, (label, part) in enumerate(means.groupby(kind)):
        axes.scatter(part["inference_ms"], part[figure_key], s=size[part.index], color=f"C{at}", alpha=0.6, zorder=2)
        axes.scatter([], [], s=50, color=f"C{at}", alpha=0.6, label=label)
    labels = [
        axes.annotate(
            str(row["contender"]),
            (float(row["inference_ms"]), float(row[figure_key])),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5},
        )
        for row in means.sort_values(figure_key).to_dict("records")
    ]
    axes.set(xscale="log", xlabel="milliseconds for one crop (median)", ylabel=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.15)
    if kind.nunique() > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.grid(alpha=0.3)
    _move_apart(figure, labels)
    return figure


def _move_apart(figure: Figure, labels: Sequence[Annotation]) -> None:
    """Move each label up until it lies on none of those before it."""
    figure.draw_without_rendering()
    placed: list[BboxBase] = []
    for label in labels:
        box = Text.get_window_extent(label)
        x, y = label.xyann
        start = box.y0
        while (over := [one for one in placed if one.overlaps(box)]) != []:
            box = box.translated(0, max(one.y1 for one in over) - box.y0 + 1)
        label.xyann = (x, y + (box.y0 - start) * 72 / figure.dpi)
        placed.append(box)


def _grid(
    contents: Mapping[str, Any], draw: Callable[[Axes, Any], None], *, size: tuple[float, float], sharey: bool = False
) -> Figure:
    """One plot for each name, four in a row."""
    columns = min(_COLUMNS, len(contents))
    rows = -(-len(contents) // columns)
    figure = Figure(figsize=(max(3.0, columns * size[0]), 0.4 + rows * size[1]), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat
    for axes, (name, content) in zip(plots, contents.items(), strict=False):
        draw(axes, content)
        axes.set_title(name, fontsize=9)
    for axes in list(figure.axes)[len(contents) :]:
        axes.set_axis_off()
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, and return where.

    Raises:
        OutputError: It cannot be written.
    """
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=110, format="png")
    return path
