"""The search for a budget's sizes as a picture: what each way costs, and how near it stays to the whole network."""

import pandas as pd
from matplotlib.figure import Figure

from ..plan.sections import Budget

_TRIED, _RECOVERED, _TAKEN, _GREY = "#56B4E9", "#E69F00", "#D55E00", "#666666"


def search_picture(table: pd.DataFrame, budget: Budget) -> Figure:
    """Divergence after refitting against cost, one mark a way; those recovered and the one taken in other colours.

    Args:
        table: as :meth:`.search.Search.table` gives it.
        budget: whose share is drawn as a line.
    """
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    cost = table["achieved"].fillna(table["told"])
    recovered, taken = table["loss_recovered"].notna(), table["verdict"].str.startswith("taken")
    groups = (
        ("cut and refitted", ~recovered & ~taken, _TRIED, "o", 22),
        ("recovered for a short while", recovered & ~taken, _RECOVERED, "^", 36),
        ("taken", taken, _TAKEN, "*", 110),
    )
    for label, chosen, colour, marker, size in groups:
        if chosen.any():
            axes.scatter(
                cost[chosen], table.loc[chosen, "divergence_refitted"], color=colour, marker=marker, s=size, label=label
            )
    axes.axvline(budget.share, color=_GREY, linewidth=0.8, linestyle="--", label=f"budget ({budget.budget})")
    axes.set_yscale("log")
    axes.set_xlabel(f"{budget.quantity.capitalize()} as a share of the whole network's", fontsize=9)
    axes.set_ylabel("Divergence from the whole network (nats)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
