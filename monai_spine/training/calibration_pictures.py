"""Reliability plots and risk–coverage curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_spine.training.calibration import ReliabilityBin, expected_calibration_error
from monai_spine.training.risk_coverage import RiskCoverage

__all__ = ["draw_reliability", "reliability_figure", "risk_figure"]

_LEAST = 20


def reliability_figure(title: str, tables: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Predicted against observed probability of the most probable severity; below it, how many findings each bin holds.

    Args:
        title: Above the plot.
        tables: As `reliability_table` gives them, by the name that the legend shows.
    """
    figure = Figure(figsize=(4.2, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    draw_reliability(above, tables)
    for table in tables.values():
        below.stairs([row.count for row in table], [table[0].lower, *(row.upper for row in table)])
    above.set(title=title, ylabel="observed")
    below.set(xlabel="probability of the most probable severity", ylabel="findings")
    return figure


def draw_reliability(axes: Axes, tables: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    """Predicted against observed, with the diagonal where both agree; arguments as of `reliability_figure`."""
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for name, table in tables.items():
        filled = [row for row in table if row.weight > 0]
        error = expected_calibration_error(table)
        axes.plot([r.predicted for r in filled], [r.observed for r in filled], marker="o", label=f"{name}: error {error:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right")


def risk_figure(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Share of wrong grades over the share of findings that are graded, the surest first.

    A curve begins where 20 findings are kept, or half of all where there are fewer than 40: of less the share jumps by chance.

    Args:
        curves: By the name that the legend shows.
    """
    figure = Figure(figsize=(4.8, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        shown = curve.coverage * curve.findings >= min(_LEAST, curve.findings // 2) - 0.5
        axes.plot(curve.coverage[shown], curve.risk[shown], label=f"{name}: area {curve.area:.3f}")
    axes.set(xlabel="share that is graded, the surest first", ylabel="share of these that is wrong", xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="upper left")
    return figure
