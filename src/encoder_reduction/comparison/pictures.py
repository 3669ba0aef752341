"""The trade-off at a glance: figures that could go into a paper as they are."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..presets import DIMENSIONS

# Okabe & Ito's palette, which colour-blind readers can tell apart; markers repeat what colours say.
_MODEL_COLOURS = {"bert": "#0072B2", "roberta": "#D55E00", "distilbert": "#009E73"}
_DIM_MARKERS = {"none": "o", "heads": "^", "hidden": "s", "layers": "D"}
_DIM_COLOURS = {"heads": "#E69F00", "hidden": "#56B4E9", "layers": "#CC79A7"}
_GREY = "#666666"
_STYLE = {"fontsize": 9}

# Column of the changes table -> title of its small picture.
_CHANGES = {
    "Accuracy (points)": "Accuracy (points)",
    "Parameters (%)": "Parameters (%)",
    "FLOPs (%)": "FLOPs (%)",
    "Inference time (%)": "Inference time (%)",
    "Training memory (%)": "Training memory (%)",
    "Training time (%)": "Training time (%)",
}


def trade_off(rows: pd.DataFrame) -> Figure:
    """Accuracy against inference time, a colour for each model, the Pareto front drawn.

    Args:
        rows: the best configurations on the source corpus.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(rows["inference_ms"], rows["accuracy"])
    edge = rows.loc[front].sort_values("inference_ms")
    axes.step(edge["inference_ms"], edge["accuracy"], where="post", color=_GREY, linewidth=0.8, zorder=1)
    for row in rows.itertuples():
        colour = _MODEL_COLOURS.get(row.model, _GREY)
        axes.scatter(row.inference_ms, row.accuracy, color=colour, marker=_DIM_MARKERS[row.dim], s=38, zorder=2)
    for dim, part in rows.groupby("dim"):
        _name(axes, dim, part)
    for model, name in rows.drop_duplicates("model").set_index("model")["checkpoint"].items():
        axes.scatter([], [], color=_MODEL_COLOURS.get(model, _GREY), label=name, s=30)
    axes.plot([], [], color=_GREY, linewidth=0.8, label="Pareto front")
    axes.legend(frameon=False, loc="lower right", **_STYLE)
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel("Inference time (ms per example)", **_STYLE)
    axes.set_ylabel("Test accuracy", **_STYLE)
    _plain(axes)
    return figure


def pareto_front(cost: pd.Series, value: pd.Series) -> list[int]:
    """Index of the rows that no other row beats in both cost (less) and value (more), cheapest first."""
    front, best = [], float("-inf")
    for index in pd.DataFrame({"cost": cost, "value": -value}).sort_values(["cost", "value"]).index:
        if value[index] > best:
            front.append(index)
            best = value[index]
    return front


def relative_changes(changes: pd.DataFrame) -> Figure:
    """What each dimension changes against its baseline: one small picture a quantity, one bar a model.

    Accuracy carries its 95% interval.

    Args:
        changes: the table of the same name.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True).ravel()
    dims = changes["Config"].str.partition("-")[0]
    models = list(dict.fromkeys(changes["Model"]))
    order = [dim for dim in DIMENSIONS if dim in set(dims)]
    for axes, (column, title) in zip(panels, _CHANGES.items(), strict=True):
        for position, dim in enumerate(order):
            part = changes[dims.eq(dim)].set_index("Model")
            _bars(axes, part.reindex(models), column, position, dim)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_title(title, **_STYLE)
        axes.set_yticks(range(len(order)), order, **_STYLE)
        _plain(axes)
    panels[0].invert_yaxis()
    figure.supxlabel(f"Bars of a dimension from top to bottom: {', '.join(models)}", **_STYLE)
    return figure


def _bars(axes: Axes, part: pd.DataFrame, column: str, position: int, dim: str) -> None:
    height = 0.8 / len(part)
    places = [position + (index - (len(part) - 1) / 2) * height for index in range(len(part))]
    axes.barh(places, part[column].astype(float), height=0.85 * height, color=_DIM_COLOURS[dim])
    if column == "Accuracy (points)":
        _whiskers(axes, places, part)


def _whiskers(axes: Axes, places: Sequence[float], part: pd.DataFrame) -> None:
    for place, low, high in zip(places, part["95% low"], part["95% high"], strict=True):
        if pd.notna(low):
            axes.plot([low, high], [place, place], color="black", linewidth=0.8)


def _name(axes: Axes, dim: str, part: pd.DataFrame) -> None:
    """The dimension's name above its points, once: names of single points would cover each other."""
    place = (part["inference_ms"].mean(), part["accuracy"].max())
    text = "baseline" if dim == "none" else dim
    axes.annotate(text, place, (0, 8), textcoords="offset points", ha="center", fontsize=8, color="black")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
