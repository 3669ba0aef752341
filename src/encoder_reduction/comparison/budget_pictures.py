"""Accuracy against what is saved, a line for each dimension: which cut is the cheapest for the same gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plan.sections import MIXED
from .changes import POINTS, with_changes
from .equal_budget import AtBudget
from .pictures import DIM_COLOURS, DIM_MARKERS, GREY, SMALL, STYLE, plain_axes
from .selection import pareto_front

SPEED = "Speed-up"
# What small multiples show besides, by the column of the points.
_COSTS = {"parameters": "Parameters (millions)", "memory": "Memory of inference (MB, network alone)"}
_BETWEEN_LABELS = 11  # points


@dataclass(frozen=True)
class _Label:
    text: str
    colour: str
    x: float
    y: float


def points_of(found: Sequence[AtBudget], halves: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Every mark of the pictures.

    Args:
        found: what there is at equal budget.
        halves: changes of the plan's halved dimensions.
        rows: the plan's rows.

    Returns:
        ``checkpoint``, ``dim``, ``kind`` (``whole``, ``budget`` or ``half``), ``Speed-up`` with ``x_low`` and
        ``x_high``, ``accuracy`` with ``low`` and ``high`` (of the difference to the baseline), ``parameters`` in
        millions, ``memory`` in MB.
    """
    reduced = [(at.rows, at.changes, "budget") for at in found]
    marks = [_marks(*each) for each in [*reduced, (rows, halves, "half")]]
    carrying = {name for part in marks[:-1] for name in part["checkpoint"]}
    whole = rows[rows["dim"].eq("none")]
    whole = _figures(whole.assign(**{SPEED: 1.0, "kind": "whole"}))
    every = pd.concat([whole, *marks], ignore_index=True)
    return every[every["checkpoint"].isin(carrying)]


def against_speed(points: pd.DataFrame) -> Figure:
    """Accuracy against measured speed-up: a panel a model, a line a dimension, hollow marks for the plan's halves."""
    return _drawn(points, {SPEED: "Times as fast as the baseline"})


def against_costs(points: pd.DataFrame) -> Figure:
    """The same against parameters and memory: a column a model, a row a quantity; less is to the right."""
    return _drawn(points, {column: title for column, title in _COSTS.items() if points[column].notna().any()})


def _drawn(points: pd.DataFrame, quantities: Mapping[str, str]) -> Figure:
    """A column of panels a model, a row a quantity, by its column and title."""
    figure, panels = _panels(points, len(quantities))
    labels: list[tuple[Axes, list[_Label]]] = []
    for line, (column, title) in zip(panels, quantities.items(), strict=True):
        for axes, (name, own) in zip(line, points.groupby("checkpoint", sort=False), strict=True):
            labels.append((axes, _draw(axes, own[own[column].notna()], column)))
            if column != SPEED:
                axes.invert_xaxis()
            axes.set_title(name, **STYLE)
            axes.set_xlabel(title, **STYLE)
        line[0].set_ylabel("Test accuracy", **STYLE)
    _explain(figure, panels[0][0])
    figure.draw_without_rendering()  # so that the scales, which panels share, are known
    for axes, own in labels:
        _label(axes, own)
    return figure


def _marks(rows: pd.DataFrame, changes: pd.DataFrame, kind: str) -> pd.DataFrame:
    if changes.empty:
        return pd.DataFrame(columns=["checkpoint"])
    reduced = rows[rows["dim"].ne("none")]
    both = with_changes(reduced, changes)
    base = both["accuracy"] - both[POINTS] / 100
    both = both.assign(
        kind=kind,
        x_low=both["Speed-up low"],
        x_high=both["Speed-up high"],
        low=base + both["95% low"] / 100,
        high=base + both["95% high"] / 100,
    )
    return _figures(both)


def _figures(rows: pd.DataFrame) -> pd.DataFrame:
    memory = rows.get("inference_memory_of_network_gb", pd.Series(np.nan, rows.index))
    rows = rows.assign(parameters=rows["parameters"] / 1e6, memory=1000 * memory)
    columns = ["checkpoint", "dim", "kind", SPEED, "x_low", "x_high", "accuracy", "low", "high", "parameters", "memory"]
    return rows.reindex(columns=columns)


def _draw(axes: Axes, own: pd.DataFrame, column: str) -> list[_Label]:
    """One panel: lines from the whole network through the budgets, and hollow marks; the labels of both."""
    if column == SPEED:
        _draw_front(axes, own)
    whole = own[own["kind"].eq("whole")].head(1)
    axes.scatter(whole[column], whole["accuracy"], color=DIM_COLOURS["none"], marker="o", s=40, zorder=3)
    for accuracy in whole["accuracy"]:
        axes.axhline(accuracy, color=GREY, linewidth=0.6, linestyle=":")
    labels = []
    for dim, part in own[own["kind"].ne("whole")].groupby("dim", sort=False):
        colour, marker = DIM_COLOURS.get(dim, GREY), DIM_MARKERS.get(dim, "o")
        line = part[part["kind"].eq("budget")].sort_values(SPEED)
        half = part[part["kind"].eq("half")]
        axes.scatter(half[column], half["accuracy"], facecolor="white", edgecolor=colour, marker=marker, s=34, zorder=3)
        if len(line):
            axes.plot([*whole[column], *line[column]], [*whole["accuracy"], *line["accuracy"]], color=colour,
                      linewidth=1.3, alpha=0.85, zorder=2)  # fmt: skip
            axes.scatter(line[column], line["accuracy"], color=colour, marker=marker, s=38, zorder=4)
            _whiskers(axes, line, column, colour)
        last = (line if len(line) else half).iloc[-1]
        labels.append(_Label(_name(dim), colour, last[column], last["accuracy"]))
    axes.margins(x=0.06, y=0.08)
    plain_axes(axes)
    return labels


def _whiskers(axes: Axes, line: pd.DataFrame, column: str, colour: str) -> None:
    for row in line.to_dict("records"):
        axes.plot([row[column]] * 2, [row["low"], row["high"]], color=colour, linewidth=0.8, alpha=0.55, zorder=1)
        if column == SPEED:
            axes.plot([row["x_low"], row["x_high"]], [row["accuracy"]] * 2, color=colour, linewidth=0.8, zorder=1)


def _draw_front(axes: Axes, own: pd.DataFrame) -> None:
    edge = own.loc[pareto_front(1 / own[SPEED], own["accuracy"])].sort_values(SPEED)
    axes.step(edge[SPEED], edge["accuracy"], where="pre", color=GREY, linewidth=0.9, linestyle="--", zorder=1)


def _label(axes: Axes, labels: Sequence[_Label]) -> None:
    """Names right of the panel, each as near to the height of its mark as the others let it, with a line to it."""
    per_point = axes.figure.dpi / 72
    heights = np.array([axes.transData.transform((each.x, each.y))[1] for each in labels]) / per_point
    bottom, top = axes.bbox.y0 / per_point, axes.bbox.y1 / per_point
    order = np.argsort(-heights, kind="stable")
    for label, height in zip([labels[index] for index in order], _apart(heights[order], top, bottom), strict=True):
        place = ((axes.bbox.x1 / per_point - axes.bbox.x0 / per_point) + 12, height - bottom)
        text = axes.annotate(
            label.text, (label.x, label.y), xytext=place, textcoords=("axes points", "axes points"), color=label.colour,
            va="center", ha="left", arrowprops={"arrowstyle": "-", "color": label.colour, "lw": 0.5, "alpha": 0.5},
            annotation_clip=False, **SMALL,
        )  # fmt: skip
        text.set_path_effects([effects.withStroke(linewidth=2, foreground="white")])


def _apart(heights: np.ndarray, top: float, bottom: float) -> np.ndarray:
    """Heights from the top down, moved as little as keeps them a line apart and within the panel."""
    placed = heights.copy()
    for index in range(1, len(placed)):
        placed[index] = min(placed[index], placed[index - 1] - _BETWEEN_LABELS)
    short = bottom - placed[-1] if len(placed) else 0
    if short > 0:
        placed[-1] = bottom
        for index in range(len(placed) - 2, -1, -1):
            placed[index] = max(placed[index], placed[index + 1] + _BETWEEN_LABELS)
    return np.minimum(placed, top + _BETWEEN_LABELS)


def _panels(points: pd.DataFrame, rows: int) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    columns = points["checkpoint"].nunique()
    figure = Figure(figsize=(2.6 + 3.9 * columns, 0.6 + 3.3 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.8 / figure.get_figwidth(), right=1 - 1.5 / figure.get_figwidth(), wspace=0.55,
                           bottom=0.85 / figure.get_figheight(), top=1 - 0.35 / figure.get_figheight(),
                           hspace=0.45)  # fmt: skip
    return figure, panels


def _explain(figure: Figure, axes: Axes) -> None:
    """What filled and hollow marks are."""
    filled = axes.scatter([], [], color=GREY, marker="o", s=30)
    hollow = axes.scatter([], [], facecolor="white", edgecolor=GREY, marker="o", s=30)
    names = ["cut to a budget and recovered", "the plan's half, not recovered"]
    figure.legend([filled, hollow], names, frameon=False, loc="lower center", ncols=2, **SMALL)


def _name(dim: str) -> str:
    return "all (mixed)" if dim == MIXED else dim.replace("+", " + ")
