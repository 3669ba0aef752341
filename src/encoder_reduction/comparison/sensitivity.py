"""How sensitive quality is to each dimension, against what cutting it saves."""

import numpy as np
import pandas as pd

from ..plan.sections import DIMENSIONS
from .changes import POINTS, SAVINGS, Gains, aligned, complete_models
from .selection import choose
from .significance import crossed, drawn_again

_LEAST_SAVING = 1.0  # percent; below, a rate of exchange would divide by noise


def ranking(table: pd.DataFrame, gains: Gains) -> pd.DataFrame:
    """The dimensions, averaged over the models that have all of them, the one that costs the most accuracy first.

    Args:
        table: the changes of every reduction.
        gains: accuracy gained by test example and seed; intervals (95%) and the probability of a dimension to cost
            the most say what other seeds and other examples would have shown, or with one seed other examples alone.

    Returns:
        One row a dimension; empty where no model has all of them.
    """
    models = complete_models(table)
    own = table[table["Model"].isin(models)]
    means = own.groupby("Dimension")[[POINTS, *SAVINGS.values(), "Speed-up", "Speed-up by FLOPs"]].mean()
    dims = [dim for dim in DIMENSIONS if dim in means.index]
    means = means.reindex(dims)
    values = by_dimension(gains, models, dims)
    if values is not None and len(dims) > 1:
        intervals = np.array([crossed(each).interval for each in values])
        drawn = drawn_again(values)
        costliest = drawn == drawn.min(axis=1, keepdims=True)  # Several, where they cost the same.
        means.insert(1, "95% low", intervals[:, 0])
        means.insert(2, "95% high", intervals[:, 1])
        means.insert(3, "Costs most (probability)", (costliest / costliest.sum(axis=1, keepdims=True)).mean(axis=0))
    return means.sort_values(POINTS).reset_index()


def by_dimension(gains: Gains, models: list[str], dims: list[str]) -> np.ndarray | None:
    """Points gained ``(dimensions, seeds, examples)``, averaged over the models, where all of them share some."""
    if not (dims and models) or any((model, dim) not in gains for dim in dims for model in models):
        return None
    shared = np.array([each.to_numpy().T for each in aligned([gains[model, dim] for dim in dims for model in models])])
    return 100 * shared.reshape(len(dims), len(models), *shared.shape[1:]).mean(axis=1) if shared.size else None


def exchange_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Points of accuracy that are lost for each 10% of a resource that is saved; empty where under 1% is saved."""
    rates = table[["Model", "Config"]].copy()
    for column in SAVINGS.values():
        saved = -table[column]
        rates[f"per 10% of {plain(column)}"] = (-10 * table[POINTS] / saved).where(saved >= _LEAST_SAVING)
    return rates


def keep_curves(found: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by how much of a dimension stays, where at least two reduced levels of it were run.

    Args:
        found: all configurations on the source corpus.

    Returns:
        ``model``, ``checkpoint``, ``dim``, ``level``, ``config``, ``accuracy``, ``accuracy_seed_std``, ``seeds``,
        from the baseline down; of several configurations of a level, the best on validation.
    """
    columns = ["model", "checkpoint", "dim", "level", "config", "accuracy", "accuracy_seed_std", "seeds"]
    curves = []
    for (model, dim), own in found[found["dim"].isin(DIMENSIONS)].groupby(["model", "dim"], sort=False):
        full = found[found["model"].eq(model) & found["dim"].eq("none")].head(1)
        levels = own.loc[[choose(level, "accuracy") for _, level in own.groupby("level")]]
        if len(full) and len(levels[levels["level"].lt(1)]) > 1:
            curve = pd.concat([full.assign(dim=dim), levels[levels["level"].lt(1)]])
            curves.append(curve.sort_values("level", ascending=False)[columns])
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean change of accuracy along each curve, in points: the area under it, over the range that was run."""
    rows = []
    for (model, dim), curve in curves.groupby(["checkpoint", "dim"], sort=False):
        x, y = curve["level"].to_numpy()[::-1], curve["accuracy"].to_numpy()[::-1]
        area = np.trapezoid(100 * (y - y[-1]), x) / (x[-1] - x[0])
        rows.append({"Model": model, "Dimension": dim, "Kept at least": f"{x[0]:.0%}", "Mean change (points)": area})
    return pd.DataFrame(rows)


def of_same_start(target: pd.DataFrame, planned: pd.DataFrame, recovered: pd.DataFrame) -> pd.DataFrame:
    """The changes on the source corpus of what the adapted rows started from, be it as planned or recovered."""
    again = target[target["start"].eq("baseline")]
    from_recovered = set(zip(again["checkpoint"], again["dim"], strict=True))

    def started(changes: pd.DataFrame) -> pd.Series:
        keys = zip(changes["Model"], changes["Dimension"], strict=True)
        return pd.Series([key in from_recovered for key in keys], index=changes.index, dtype=bool)

    parts = [planned[~started(planned)], recovered[started(recovered)]]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def retention(source: pd.DataFrame, target: pd.DataFrame) -> pd.DataFrame:
    """The gap to the baseline on both corpora: what adaptation makes of what a reduction lost.

    Args:
        source, target: the changes on each corpus.

    Returns:
        ``Model``, ``Config``, ``Dimension``, the gap on both in points of accuracy with its 95% interval, and
        ``Wider by (points)``: how much the gap has grown.
    """
    columns = ["Model", "Config", "Dimension", POINTS, "95% low", "95% high"]
    both = source[columns].merge(target[columns], on=columns[:3], suffixes=(" source", " target"))
    both["Wider by (points)"] = both[f"{POINTS} source"] - both[f"{POINTS} target"]
    return both


def plain(title: str) -> str:
    """A column's title in a sentence."""
    name = title.removesuffix(" (%)")
    return name if name == "FLOPs" else name.lower()
