"""Accuracy against speed in each runtime: what cutting gives, what quantising gives, what both give."""

import matplotlib.patheffects as effects
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plan.runtimes import ONNX, ONNX_INT8, TORCH
from .pictures import DIM_COLOURS, GREY, SMALL, STYLE, plain_axes
from .runtimes import WHOLE, taken

_MARKERS = {TORCH: "o", ONNX: "s", ONNX_INT8: "^"}
# Points from its mark to a name: what is quantised may be as fast as what is cut, and its name is to the right.
_AWAY = {"baseline": (0, 7, "center"), "cut": (-4, -12, "right")}
_PLACE = ("x", "from", "to")
_SPEEDS = {
    ("speed_ratio", "low", "high"): "in batches",
    ("single_speed_ratio", "single_low", "single_high"): "one text at a time",
}
_CALLED = {TORCH: "PyTorch", ONNX: "ONNX Runtime", ONNX_INT8: "ONNX Runtime, int8"}


def against_speed(rows: pd.DataFrame) -> Figure:
    """A column a model: above in the plan's batches, below one text at a time; a line a run through its runtimes.

    Args:
        rows: as :func:`.runtimes.measured` has them.
    """
    models = list(dict.fromkeys(rows["checkpoint"]))
    figure = Figure(figsize=(1.2 + 4.4 * len(models), 7.2), layout="constrained")
    panels = figure.subplots(len(_SPEEDS), len(models), sharey=True, squeeze=False)
    for line, (columns, where) in zip(panels, _SPEEDS.items(), strict=True):
        for axes, (name, own) in zip(line, rows.groupby("checkpoint", sort=False), strict=True):
            _draw(axes, own.assign(**{to: own[column] for to, column in zip(_PLACE, columns, strict=True)}))
            axes.set_title(f"{name}, {where}", **STYLE)
        line[0].set_ylabel("Test accuracy", **STYLE)
    for axes in panels[-1]:
        axes.set_xlabel("Times as fast as the baseline in PyTorch", **STYLE)
    _explain(figure, panels[0][0], rows)
    return figure


def _draw(axes: Axes, own: pd.DataFrame) -> None:
    """One panel."""
    whole = own[own["run_id"].eq(own["reference"]) & own["runtime"].eq(TORCH)]
    accuracy = whole["accuracy"].item()
    axes.axhline(accuracy, color=GREY, linewidth=0.6, linestyle=":")
    for _, line in own.groupby("run_id", sort=False):
        _draw_run(axes, line, accuracy)
    _name_corners(axes, own)
    axes.margins(x=0.08, y=0.1)
    plain_axes(axes)


def _draw_run(axes: Axes, line: pd.DataFrame, accuracy: float) -> None:
    """One run's line; its whiskers say how far its accuracy is from the baseline's, and its speed."""
    first = line.iloc[0]
    colour = DIM_COLOURS.get(first["dim"], GREY)
    half = first["dim"] != "none" and first["budget"] == ""
    axes.plot(line["x"], line["accuracy"], color=colour, linewidth=1.2, alpha=0.8, zorder=2)
    for row in line.to_dict("records"):
        axes.scatter(row["x"], row["accuracy"], facecolor="white" if half else colour, edgecolor=colour,
                     marker=_MARKERS[row["runtime"]], s=36, zorder=4)  # fmt: skip
        ends = [accuracy + row[f"{WHOLE} {end}"] / 100 for end in ("low", "high")]
        axes.plot([row["x"]] * 2, ends, color=colour, linewidth=0.7, alpha=0.45, zorder=1)
        axes.plot([row["from"], row["to"]], [row["accuracy"]] * 2, color=colour, linewidth=0.7, alpha=0.45, zorder=1)


def _name_corners(axes: Axes, own: pd.DataFrame) -> None:
    """What is cut, what is quantised and what is both, of the baseline and of the cut that the answer speaks of."""
    baseline, cut = own["reference"].iloc[0], taken(own)
    furthest = [runtime for runtime in _MARKERS if runtime in set(own["runtime"])][-1]
    only = "quantised" if furthest == ONNX_INT8 else "exported"
    named = {(baseline, TORCH): "baseline", (cut, TORCH): "cut", (baseline, furthest): only, (cut, furthest): "both"}
    for (run_id, runtime), text in named.items():
        row = own[own["run_id"].eq(run_id) & own["runtime"].eq(runtime)].iloc[0]
        x, y, side = _AWAY.get(text, (4, -12, "left"))
        place = (row["x"], row["accuracy"])
        written = axes.annotate(text, place, (x, y), textcoords="offset points", ha=side, zorder=5, **SMALL)
        written.set_path_effects([effects.withStroke(linewidth=2, foreground="white")])


def _explain(figure: Figure, axes: Axes, rows: pd.DataFrame) -> None:
    """Which marker is which runtime, and which colour is which cut."""
    marks = [
        axes.scatter([], [], color=GREY, marker=marker, s=30, label=_CALLED[runtime])
        for runtime, marker in _MARKERS.items()
        if runtime in set(rows["runtime"])
    ]
    lines = [
        axes.plot([], [], color=DIM_COLOURS.get(dim, GREY), label="baseline" if dim == "none" else dim)[0]
        for dim in dict.fromkeys(rows["dim"])
    ]
    figure.legend(handles=[*marks, *lines], frameon=False, loc="outside lower center", ncols=4, **SMALL)
