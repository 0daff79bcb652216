"""Names beside the column: readable on bright fat, none upon another, none beyond the picture; what is doubtful is amber.

The colour never says it alone: doubtful levels bear the words of their flags, and the column's doubts stand below the slice.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.text import Text
from scipy.optimize import isotonic_regression

from monai_spine.levels import in_percent
from monai_spine.report.palette import DOUBTFUL, SURE
from monai_spine.report.sheet import PIXELS_PER_POINT, Box, Sheet

if TYPE_CHECKING:
    from monai_spine.geometry import Point
    from monai_spine.levels import LevelPoint, Levels

__all__ = ["color_of", "doubt_lines", "draw_doubts", "draw_labels", "label_room_px", "spread", "strip_px"]

Floats = npt.NDArray[np.float64]

_NAME_SIZE, _FLAG_SIZE = 21, 15
_WIDEST_LETTER = 0.6
"""Mean width of a letter as a share of its height, not less than it is in any text written here."""
_ASIDE_PX, _GAP_PX, _EDGE_PX = 16.0, 9.0, 8.0
_LINE_PX = 1.35 * _FLAG_SIZE * PIXELS_PER_POINT
_CANAL_MM = 25.0


@dataclass(frozen=True)
class _Label:
    """What is written of a level, and the place that it belongs to, in pixels."""

    texts: list[Text]
    box: Box
    place: tuple[float, float]
    color: str

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


def color_of(level: LevelPoint) -> str:
    """White, or amber where something is doubtful."""
    return DOUBTFUL if level.doubts else SURE


def label_room_px(levels: Levels) -> float:
    """How much room at least the widest label needs beside the canal."""
    names = [_NAME_SIZE * len(_name(level)) for level in levels.levels]
    flags = [_FLAG_SIZE * len(flag) for level in levels.levels for flag in _flags(level)]
    return _ASIDE_PX + _WIDEST_LETTER * PIXELS_PER_POINT * max([*names, *flags], default=0) + _EDGE_PX


def draw_labels(sheet: Sheet, levels: Levels) -> None:
    """Write name, confidence and flags of each level behind its canal, with a line from there."""
    labels = [_written(sheet, level) for level in levels.levels]
    if not labels:
        return
    (_, low, _, high), right = sheet.area, float(sheet.figure.bbox.width)
    column = np.array([label.place for label in labels])
    middles = spread(column[:, 1], [label.height for label in labels], low=low + _EDGE_PX, high=high - _EDGE_PX)
    for label, middle in zip(labels, middles, strict=True):
        passed = np.interp(middle + np.array([-0.5, 0.0, 0.5]) * label.height, column[::-1, 1], column[::-1, 0])
        width = label.box[2] - label.box[0]
        left = min(max(label.place[0], *passed) + _ASIDE_PX, right - _EDGE_PX - width)
        _move(sheet, label, left - label.box[0], middle + label.height / 2 - label.box[3])
        sheet.shade(sheet.box_of(label.texts))
        _lead(sheet, label, (left - 3, middle))


def _written(sheet: Sheet, level: LevelPoint) -> _Label:
    """The texts of a level, not yet in their place."""
    color = color_of(level)
    name = sheet.text((0.0, 0.5), _name(level), fontsize=_NAME_SIZE, color=color, ha="left", va="top")
    texts = [name]
    for flag in _flags(level):
        _, lower, *_ = sheet.box_of(texts)
        texts.append(sheet.text(sheet.at_pixels(0.0, lower - 3), flag, fontsize=_FLAG_SIZE, color=color, ha="left", va="top"))
    return _Label(texts, sheet.box_of(texts), sheet.in_pixels(_beside(sheet, level)), color)


def _beside(sheet: Sheet, level: LevelPoint) -> tuple[float, float]:
    """The canal's place on the sheet; where it was not seen, the place behind the disc where it should be."""
    point: Point = level.disc_ras_mm if level.canal_ras_mm is None else level.canal_ras_mm
    across, up, _ = sheet.view.locate(point)
    return sheet.place(across - (_CANAL_MM if level.canal_ras_mm is None else 0.0), up)


def _name(level: LevelPoint) -> str:
    return f"{level.level.label}  {in_percent(level.confidence)}"


def _flags(level: LevelPoint) -> list[str]:
    return [flag.replace("_", " ") for flag in level.flags]


def _move(sheet: Sheet, label: _Label, right_px: float, up_px: float) -> None:
    for text in label.texts:
        x, y = sheet.in_pixels(text.get_position())
        text.set_position(sheet.at_pixels(x + right_px, y + up_px))


def _lead(sheet: Sheet, label: _Label, end: tuple[float, float]) -> None:
    """A thin line from the canal to its label."""
    sheet.stroke([label.place, end], color=label.color, linewidth=1.0, alpha=0.8)


def spread(middles: Sequence[float] | Floats, heights: Sequence[float], *, low: float, high: float) -> Floats:
    """Heights at which labels lie near their places and not upon each other, moved as little as that takes (least squares).

    Args:
        middles: Where each belongs, from the top down, in pixels that grow upwards.
        heights: Of each label.
        low: The lower edge of what is there for them.
        high: The upper edge; where there is too little, labels are packed from here.
    """
    sizes = np.asarray(heights, float)
    steps = np.concatenate([[0.0], np.cumsum((sizes[1:] + sizes[:-1]) / 2 + _GAP_PX)])
    depth = isotonic_regression(high - np.asarray(middles, float) - steps).x
    first, last = sizes[0] / 2, high - low - steps[-1] - sizes[-1] / 2
    return np.asarray(high - (np.clip(depth, first, max(first, last)) + steps))


def doubt_lines(levels: Levels, width_px: float) -> list[str]:
    """The column's doubts in words, broken into lines that fit a width."""
    letters = int((width_px - 2 * _EDGE_PX) / (_WIDEST_LETTER * _FLAG_SIZE * PIXELS_PER_POINT))
    said = [f"{doubt.flag.replace('_', ' ')}: {doubt.seen}" for doubt in levels.column_doubts]
    return [line for text in said for line in textwrap.wrap(text, max(letters, 12), subsequent_indent="  ")]


def strip_px(lines: Sequence[str]) -> int:
    """Height of a strip for lines below the slice."""
    return round(len(lines) * _LINE_PX + 2 * _EDGE_PX) if lines else 0


def draw_doubts(sheet: Sheet, lines: Sequence[str]) -> None:
    """Write lines into the strip below the slice."""
    for number, line in enumerate(lines):
        place = sheet.at_pixels(_EDGE_PX, sheet.area[1] - _EDGE_PX - number * _LINE_PX)
        sheet.text(place, line, fontsize=_FLAG_SIZE, color=DOUBTFUL, ha="left", va="top")
