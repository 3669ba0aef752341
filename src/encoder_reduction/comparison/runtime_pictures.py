"""Accuracy against speed in each runtime: what cutting gives, what quantising gives, what both give."""

import matplotlib.patheffects as effects
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plan.runtimes import ONNX, ONNX_INT8, TORCH
from .pictures import DIM_COLOURS, GREY, SMALL, STYLE, plain_axes
from .runtimes import WHOLE, taken

_MARKERS = {TORCH: "o", ONNX: "s", ONNX_INT8: "^"}
_CALLED = {TORCH: "PyTorch", ONNX: "ONNX Runtime", ONNX_INT8: "ONNX Runtime, int8"}


def against_speed(rows: pd.DataFrame) -> Figure:
    """A panel a model; a line a run through its runtimes, in the colour of what is cut.

    Args:
        rows: as :func:`.runtimes.measured` has them.
    """
    models = list(dict.fromkeys(rows["checkpoint"]))
    figure = Figure(figsize=(1.2 + 4.4 * len(models), 4.4), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (name, own) in zip(panels, rows.groupby("checkpoint", sort=False), strict=True):
        whole = own[own["run_id"].eq(own["reference"]) & own["runtime"].eq(TORCH)]
        accuracy = whole["accuracy"].item()
        axes.axhline(accuracy, color=GREY, linewidth=0.6, linestyle=":")
        for _, line in own.groupby("run_id", sort=False):
            _draw(axes, line, accuracy)
        _name_corners(axes, own)
        axes.set_title(name, **STYLE)
        axes.set_xlabel("Times as fast as the baseline in PyTorch", **STYLE)
        axes.margins(x=0.08, y=0.1)
        plain_axes(axes)
    panels[0].set_ylabel("Test accuracy", **STYLE)
    _explain(figure, panels[0], rows)
    return figure


def _draw(axes: Axes, line: pd.DataFrame, accuracy: float) -> None:
    """One run's line; its whiskers say how far its accuracy is from the baseline's, and its speed."""
    first = line.iloc[0]
    colour = DIM_COLOURS.get(first["dim"], GREY)
    half = first["dim"] != "none" and first["budget"] == ""
    axes.plot(line["speed_ratio"], line["accuracy"], color=colour, linewidth=1.2, alpha=0.8, zorder=2)
    for row in line.to_dict("records"):
        x, y = row["speed_ratio"], row["accuracy"]
        axes.scatter(x, y, facecolor="white" if half else colour, edgecolor=colour, marker=_MARKERS[row["runtime"]],
                     s=36, zorder=4)  # fmt: skip
        ends = [accuracy + row[f"{WHOLE} {end}"] / 100 for end in ("low", "high")]
        axes.plot([x, x], ends, color=colour, linewidth=0.7, alpha=0.45, zorder=1)
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=0.7, zorder=1)


def _name_corners(axes: Axes, own: pd.DataFrame) -> None:
    """What is cut, what is quantised and what is both, of the baseline and of the cut that the answer speaks of."""
    baseline, cut = own["reference"].iloc[0], taken(own)
    furthest = [runtime for runtime in _MARKERS if runtime in set(own["runtime"])][-1]
    only = "quantised" if furthest == ONNX_INT8 else "exported"
    named = {(baseline, TORCH): "baseline", (cut, TORCH): "cut", (baseline, furthest): only, (cut, furthest): "both"}
    for (run_id, runtime), text in named.items():
        row = own[own["run_id"].eq(run_id) & own["runtime"].eq(runtime)].iloc[0]
        written = axes.annotate(
            text, (row["speed_ratio"], row["accuracy"]), (5, 6), textcoords="offset points", **SMALL
        )
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
