"""The plan's three expectations, each confirmed, refuted or left open by the data, with the figures that say so.

What one seed shows of accuracy confirms and refutes nothing: it is said to hold "on these runs".

Fewer heads: less memory, weaker long dependencies. Narrower: far fewer parameters, poorer representations.
Fewer layers: faster, shallower.
"""

import numpy as np
import pandas as pd

from .changes import THESE_RUNS, TIME, Gains, Predictions, aligned, gains_by_row
from .significance import Estimate, crossed

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "left open"

# Column -> percent by which it must fall for every model, for the expectation to hold.
_LEAST_FALL = {"Training memory (%)": 5, "Parameters (%)": 50, TIME: 10}


def expectations(rows: pd.DataFrame, table: pd.DataFrame, predictions: Predictions) -> str:
    """Two sentences on each of the plan's expectations, as a Markdown list.

    Args:
        rows: the chosen configurations on the source corpus.
        table: their changes.
        predictions: the test predictions of each run, where it stored them.
    """
    gains = _by_dimension(gains_by_row(rows, predictions))
    lines = {
        "heads": [
            _falls(table, "heads", "Training memory (%)", "Fewer heads need less memory"),
            _long_texts(gains, predictions),
        ],
        "hidden": [
            _falls(table, "hidden", "Parameters (%)", "A narrower network has far fewer parameters"),
            _loses(gains, "hidden", "and its representations are poorer"),
        ],
        "layers": [
            _falls(table, "layers", TIME, "Fewer layers are faster"),
            _loses(gains, "layers", "and what they compute is shallower"),
        ],
    }
    known = set(table["Dimension"])
    return "\n".join(f"- {' '.join(sentences)}" for dim, sentences in lines.items() if dim in known)


def _falls(table: pd.DataFrame, dim: str, column: str, claim: str) -> str:
    """Whether a resource falls by as much as expected, for all models or for none."""
    own, least = table[table["Dimension"].eq(dim) & table[column].notna()], _LEAST_FALL[column]
    if own.empty:
        return f"{claim}: **{OPEN}** (no run and its baseline say this alike)."
    fell = own[column] <= -least
    verdict = CONFIRMED if fell.all() else OPEN if fell.any() else REFUTED
    figures = ", ".join(f"{name} {change:+.0f}%" for name, change in zip(own["Model"], own[column], strict=True))
    what = column.removesuffix(" (%)").lower()
    promise = ""
    if column == TIME:
        measured, promised = own["Speed-up"].mean(), own["Speed-up by FLOPs"].mean()
        promise = f"; {measured:.2f} times as fast on average, where FLOPs promise {promised:.2f}"
    return f"{claim}: **{verdict}** ({what} {figures}; expected at least {-least}% for every model{promise})."


def _by_dimension(gains: Gains) -> dict[str, pd.DataFrame]:
    """Points gained by example and seed, averaged over the models that have the dimension."""
    found = {}
    for dim in {dim for _, dim in gains}:
        own = aligned([each for (_, of), each in gains.items() if of == dim])
        if not own[0].empty:
            found[dim] = 100 * sum(own) / len(own)
    return found


def _loses(gains: dict[str, pd.DataFrame], dim: str, claim: str) -> str:
    """Whether accuracy falls by more than another draw of seeds and test examples would explain."""
    if dim not in gains:
        return f"{claim[:1].upper()}{claim[1:]}: **{OPEN}** (the runs share no test predictions with their baselines)."
    found = crossed(gains[dim].to_numpy().T)
    return f"{claim[:1].upper()}{claim[1:]}: **{_verdict(found)}** ({_points(found)})."


def _long_texts(gains: dict[str, pd.DataFrame], predictions: Predictions) -> str:
    """Whether pruned heads lose more on the longer half of the test texts than on the shorter."""
    claim = "They lose long dependencies"
    tokens = next((table.set_index("id")["tokens"] for table in predictions.values() if "tokens" in table), None)
    if "heads" not in gains or tokens is None:
        return f"{claim}: **{OPEN}** (the runs stored no test predictions with the lengths of the texts)."
    lengths, values = tokens.reindex(gains["heads"].index).to_numpy(), gains["heads"].to_numpy().T
    long = lengths > np.median(lengths)
    if not long.any():
        return f"{claim}: **{OPEN}** (most of the test texts are equally long)."
    found = crossed(_contrasts(values, long))
    threshold = f"longer than {np.median(lengths):.0f} tokens"
    return f"{claim}: **{_verdict(found)}** ({_points(found)} on texts {threshold}, relative to the others)."


def _contrasts(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Values ``(seeds, examples)`` whose mean is that of the chosen examples less that of the others.

    Each is the difference of the means, moved by what the example contributes to it (its influence).
    """
    inside, outside = (values[:, group].mean(axis=1, keepdims=True) for group in (chosen, ~chosen))
    influence = np.where(chosen, (values - inside) / chosen.mean(), (outside - values) / (1 - chosen.mean()))
    return inside - outside + influence


def _verdict(found: Estimate) -> str:
    low, high = found.interval
    if low <= 0 <= high:
        return OPEN
    if found.seeds == 1:
        return f"{THESE_RUNS}: {'yes' if high < 0 else 'no'}"
    return CONFIRMED if high < 0 else REFUTED


def _points(found: Estimate) -> str:
    low, high = found.interval
    return f"accuracy {found.mean:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}"
