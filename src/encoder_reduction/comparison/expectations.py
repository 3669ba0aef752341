"""The plan's three expectations, each confirmed, refuted or left open by the data, with the figures that say so.

Fewer heads: less memory, weaker long dependencies. Narrower: far fewer parameters, poorer representations.
Fewer layers: faster, shallower.
"""

import numpy as np
import pandas as pd

from .changes import TIME, Predictions, gains_by_dimension
from .significance import bootstrap

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
    gains = gains_by_dimension(rows, predictions)
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
    own, least = table[table["Dimension"].eq(dim)], _LEAST_FALL[column]
    fell = own[column] <= -least
    verdict = CONFIRMED if fell.all() else OPEN if fell.any() else REFUTED
    figures = ", ".join(f"{name} {change:+.0f}%" for name, change in zip(own["Model"], own[column], strict=True))
    what = column.removesuffix(" (%)").lower()
    promise = ""
    if column == TIME:
        measured, promised = own["Speed-up"].mean(), own["Speed-up by FLOPs"].mean()
        promise = f"; {measured:.2f} times as fast on average, where FLOPs promise {promised:.2f}"
    return f"{claim}: **{verdict}** ({what} {figures}; expected at least {-least}% for every model{promise})."


def _loses(gains: pd.DataFrame, dim: str, claim: str) -> str:
    """Whether accuracy falls by more than another draw of the test examples would explain."""
    if dim not in gains:
        return f"{claim[:1].upper()}{claim[1:]}: **{OPEN}** (the runs share no test predictions with their baselines)."
    values = 100 * gains[dim].to_numpy()
    interval = bootstrap(np.arange(len(values)), lambda rows: values[rows].mean(axis=-1))
    return f"{claim[:1].upper()}{claim[1:]}: **{_verdict(interval)}** ({_points(values.mean(), interval)})."


def _long_texts(gains: pd.DataFrame, predictions: Predictions) -> str:
    """Whether pruned heads lose more on the longer half of the test texts than on the shorter."""
    claim = "They lose long dependencies"
    tokens = next((table.set_index("id")["tokens"] for table in predictions.values() if "tokens" in table), None)
    if "heads" not in gains or tokens is None:
        return f"{claim}: **{OPEN}** (the runs stored no test predictions with the lengths of the texts)."
    lengths, values = tokens.reindex(gains.index).to_numpy(), 100 * gains["heads"].to_numpy()
    long = lengths > np.median(lengths)

    def more_on_long(rows: np.ndarray) -> np.ndarray:
        chosen, weight = values[rows], long[rows]
        on_long = (chosen * weight).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1)
        return on_long - (chosen * ~weight).sum(axis=-1) / np.maximum((~weight).sum(axis=-1), 1)

    everything = np.arange(len(values))
    interval = bootstrap(everything, more_on_long)
    figure = _points(float(more_on_long(everything)), interval)
    threshold = f"longer than {np.median(lengths):.0f} tokens"
    return f"{claim}: **{_verdict(interval)}** ({figure} on texts {threshold}, relative to the others)."


def _verdict(interval: tuple[float, float]) -> str:
    low, high = interval
    return CONFIRMED if high < 0 else REFUTED if low > 0 else OPEN


def _points(mean: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"accuracy {mean:+.1f} points, 95% interval {low:+.1f} to {high:+.1f}"
