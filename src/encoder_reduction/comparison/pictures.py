"""The trade-off at a glance: figures that could go into a paper as they are.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; markers or places repeat what they say.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plan.sections import DIMENSIONS, MIXED
from .changes import POINTS, TIME
from .selection import pareto_front

_MODEL_COLOURS = {"bert": "#0072B2", "roberta": "#D55E00", "distilbert": "#009E73"}
DIM_MARKERS = {
    "none": "o", "heads": "^", "hidden": "s", "layers": "D", "intermediate": "v", "heads+intermediate": "P", MIXED: "*",
}  # fmt: skip
DIM_COLOURS = {
    "none": "#555555", "heads": "#E69F00", "hidden": "#56B4E9", "layers": "#CC79A7", "intermediate": "#009E73",
    "heads+intermediate": "#0072B2", MIXED: "#D55E00",
}  # fmt: skip
GREY = "#666666"
STYLE = {"fontsize": 9}
SMALL = {"fontsize": 8}

_CHANGES = (POINTS, "Parameters (%)", "FLOPs (%)", TIME, "Training memory (%)", "Training time (%)")
_RESOURCES = {
    "training_memory_gb": "Peak training memory (GB)",
    "inference_memory_gb": "Peak inference memory (GB)",
    "training_seconds": "Training time (s)",
    "inference_ms": "Inference time (ms per example)",
}
CURVES = {"train_loss": "Training loss", "epoch_validation_accuracy": "Validation accuracy"}


def trade_off(rows: pd.DataFrame) -> Figure:
    """Accuracy against inference time, a colour for each model, the Pareto front drawn; bars: deviations over seeds.

    Args:
        rows: the chosen configurations on the source corpus.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    edge = rows.loc[pareto_front(rows["inference_ms"], rows["accuracy"])].sort_values("inference_ms")
    axes.step(edge["inference_ms"], edge["accuracy"], where="post", color=GREY, linewidth=0.8, zorder=1)
    for row in rows.itertuples():
        axes.errorbar(
            row.inference_ms, row.accuracy, xerr=row.inference_ms_seed_std, yerr=row.accuracy_seed_std,
            color=_MODEL_COLOURS.get(row.model, GREY), marker=DIM_MARKERS[row.dim], markersize=6, elinewidth=0.7,
        )  # fmt: skip
    for dim in rows["dim"].unique():
        _name_dimension(axes, rows, dim)
    _name_models(axes, rows)
    axes.plot([], [], color=GREY, linewidth=0.8, label="Pareto front")
    axes.legend(frameon=False, loc="lower right", **STYLE)
    axes.margins(x=0.08, y=0.14)
    axes.set_xlabel("Inference time (ms per example)", **STYLE)
    axes.set_ylabel("Test accuracy", **STYLE)
    plain_axes(axes)
    return figure


def relative_changes(changes: pd.DataFrame) -> Figure:
    """What each dimension changes against its baseline: one small picture a quantity, one bar a model.

    Accuracy and paired inference times carry their 95% interval.

    Args:
        changes: the table of the same name.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True).ravel()
    models = list(dict.fromkeys(changes["Model"]))
    order = [dim for dim in DIMENSIONS if dim in set(changes["Dimension"])]
    intervals = {
        POINTS: (changes["95% low"], changes["95% high"]),
        TIME: (100 * (1 / changes["Speed-up high"] - 1), 100 * (1 / changes["Speed-up low"] - 1)),
    }
    # A line for the name of each dimension, then one for each model.
    first_lines = {dim: index * (len(models) + 1.3) for index, dim in enumerate(order)}
    for axes, column in zip(panels, _CHANGES, strict=True):
        low, high = intervals.get(column, (None, None))
        shown = changes.assign(value=changes[column], low=low, high=high)
        for dim, line in first_lines.items():
            part = shown[shown["Dimension"].eq(dim)].set_index("Model").reindex(models)
            places = [line + 1 + index for index in range(len(models))]
            axes.barh(places, part["value"].astype(float), height=0.85, color=DIM_COLOURS[dim])
            for place, (start, end) in zip(places, part[["low", "high"]].astype(float).to_numpy(), strict=True):
                axes.plot([start, end], [place, place], color="black", linewidth=0.8)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_title(column, **STYLE)
        plain_axes(axes)
    names = [(line + index, name) for dim, line in first_lines.items() for index, name in enumerate([dim, *models])]
    for axes in panels:
        axes.set_yticks(*zip(*names, strict=True), fontsize=7)
        axes.tick_params(axis="y", length=0)
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in order else "normal")
    panels[0].set_ylim(names[-1][0] + 0.7, -0.7)
    return figure


def resources(rows: pd.DataFrame) -> Figure:
    """Memory and time of every row as bars, grouped by model; whiskers: deviations over seeds.

    Args:
        rows: the chosen configurations on the source corpus.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    models = list(dict.fromkeys(rows["checkpoint"]))
    dims = [dim for dim in ("none", *DIMENSIONS) if dim in set(rows["dim"])]
    width = 0.8 / len(dims)
    for axes, (metric, title) in zip(figure.subplots(2, 2).ravel(), _RESOURCES.items(), strict=True):
        for index, dim in enumerate(dims):
            part = rows[rows["dim"].eq(dim)].set_index("checkpoint").reindex(models)
            places = [position + (index - (len(dims) - 1) / 2) * width for position in range(len(models))]
            axes.bar(
                places, part[metric], yerr=part[f"{metric}_seed_std"], width=0.9 * width, color=DIM_COLOURS[dim],
                label=_called(dim), error_kw={"linewidth": 0.8},
            )  # fmt: skip
        axes.set_title(title, **STYLE)
        axes.set_xticks(range(len(models)), models, **SMALL)
        plain_axes(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(dims), **STYLE)
    return figure


def retained(kept: pd.DataFrame, rows: pd.DataFrame, corpora: tuple[str, str]) -> Figure:
    """The gap to the baseline after adaptation against the gap before, with 95% intervals.

    Args:
        kept: the gaps on both corpora, of :func:`retention`.
        rows: the chosen configurations, which name the models.
        corpora: names of source and target.
    """
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    model_of = rows.drop_duplicates("checkpoint").set_index("checkpoint")["model"]
    ends = kept.filter(like="source").stack().min(), kept.filter(like="target").stack().min()
    low = min(*ends, 0) - 1
    axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8)
    axes.annotate("same gap on both", (low, low), (16, 0), textcoords="offset points", color=GREY, **SMALL)
    for row in kept.to_dict("records"):
        colour = _MODEL_COLOURS.get(model_of[row["Model"]], GREY)
        x, y = row[f"{POINTS} source"], row[f"{POINTS} target"]
        axes.plot([row["95% low source"], row["95% high source"]], [y, y], color=colour, linewidth=0.7, alpha=0.6)
        axes.plot([x, x], [row["95% low target"], row["95% high target"]], color=colour, linewidth=0.7, alpha=0.6)
        axes.scatter(x, y, color=colour, marker=DIM_MARKERS[row["Dimension"]], s=38, zorder=2)
    _name_models(axes, rows)
    for dim in [dim for dim in DIMENSIONS if dim in set(kept["Dimension"])]:
        axes.scatter([], [], color=GREY, marker=DIM_MARKERS[dim], label=dim, s=30)
    axes.legend(frameon=False, loc="upper left", **SMALL)
    for corpus, name in zip(corpora, (axes.set_xlabel, axes.set_ylabel), strict=True):
        name(f"Accuracy against the baseline on {corpus} (points)", **STYLE)
    plain_axes(axes)
    return figure


def keep_curves(curves: pd.DataFrame) -> Figure:
    """Accuracy by how much of each dimension stays: one panel a model, one line a dimension.

    Args:
        curves: of :func:`sensitivity.keep_curves`.
    """
    figure, panels = _panels(curves, rows=1, height=3.2)
    for axes, (name, own) in zip(panels[0], curves.groupby("checkpoint", sort=False), strict=True):
        for dim, line in own.groupby("dim", sort=False):
            axes.errorbar(
                100 * line["level"], line["accuracy"], yerr=line["accuracy_seed_std"], color=DIM_COLOURS[dim],
                marker=DIM_MARKERS[dim], markersize=4, linewidth=1.2, elinewidth=0.7,
            )  # fmt: skip
            _name_end(axes, 100 * line["level"].iloc[-1], line["accuracy"].iloc[-1], dim, side="left")
        axes.set_title(name, **STYLE)
        axes.set_xlabel("Share that stays (%)", **STYLE)
        axes.margins(x=0.25)
    panels[0][0].set_ylabel("Test accuracy", **STYLE)
    return figure


def learning_curves(points: pd.DataFrame) -> Figure:
    """Training loss and validation accuracy by step: one panel a model, one line a configuration.

    Args:
        points: ``checkpoint``, ``dim``, ``metric``, ``step``, ``value``, in order of steps.
    """
    metrics = [metric for metric in CURVES if metric in set(points["metric"])]
    figure, panels = _panels(points, rows=len(metrics), height=1 + 2.2 * len(metrics))
    for metric, line_of_panels in zip(metrics, panels, strict=True):
        chosen = points[points["metric"].eq(metric)]
        for axes, name in zip(line_of_panels, dict.fromkeys(points["checkpoint"]), strict=True):
            for dim, line in chosen[chosen["checkpoint"].eq(name)].groupby("dim", sort=False):
                window = max(1, len(line) // 6) if metric == "train_loss" else 1
                smooth = line["value"].rolling(window, min_periods=1, center=True).mean()
                axes.plot(line["step"], smooth, color=DIM_COLOURS[dim], linewidth=1.2, label=_called(dim))
            axes.set_title(name, **STYLE)
        line_of_panels[0].set_ylabel(CURVES[metric], **STYLE)
    for axes in panels[-1]:
        axes.set_xlabel("Optimizer step", **STYLE)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=max(1, len(labels)), **STYLE)
    return figure


def _panels(frame: pd.DataFrame, rows: int, height: float) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """One column of panels for each checkpoint, with one scale a row."""
    columns = frame["checkpoint"].nunique()
    figure = Figure(figsize=(max(4.0, 2.6 * columns), height), layout="constrained")
    panels = figure.subplots(rows, columns, sharey="row", squeeze=False)
    for axes in panels.ravel():
        plain_axes(axes)
    return figure, panels


def _name_models(axes: Axes, rows: pd.DataFrame) -> None:
    for model, name in rows.drop_duplicates("model").set_index("model")["checkpoint"].items():
        axes.scatter([], [], color=_MODEL_COLOURS.get(model, GREY), label=name, s=30)


def _name_dimension(axes: Axes, rows: pd.DataFrame, dim: str) -> None:
    """Once for all points of a dimension, beyond them: names of single points would cover each other."""
    own, others = rows[rows["dim"].eq(dim)], rows[rows["dim"].ne(dim)]
    place = own["inference_ms"].mean()
    beside = others[(others["inference_ms"] - place).abs() < 0.15 * np.ptp(rows["inference_ms"])]
    below = bool((beside["accuracy"] > own["accuracy"].max()).any())
    spread = own["accuracy_seed_std"].fillna(0)
    edge = (own["accuracy"] - spread).min() if below else (own["accuracy"] + spread).max()
    away = {"xytext": (0, -8), "va": "top"} if below else {"xytext": (0, 8), "va": "bottom"}
    axes.annotate(_called(dim), (place, edge), textcoords="offset points", ha="center", **away, **SMALL)


def _name_end(axes: Axes, x: float, y: float, text: str, side: str) -> None:
    offset, align = ((-6, -3), "right") if side == "left" else ((6, -3), "left")
    axes.annotate(text, (x, y), offset, textcoords="offset points", ha=align, color=DIM_COLOURS[text], **SMALL)


def _called(dim: str) -> str:
    return "baseline" if dim == "none" else dim


def plain_axes(axes: Axes) -> None:
    """No frame but two lines, small figures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
