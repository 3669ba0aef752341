"""Each reduction against the baseline of its model: quality with its certainty, and what is saved."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from .significance import ALPHA, Difference, difference, gain, holm

RunIds = dict[str, str]  # by seed
Row = dict[str, Any]
Predictions = dict[str, pd.DataFrame]  # by run id
Gains = dict[tuple[str, str], pd.DataFrame]  # by checkpoint and dimension: one row an example, one column a seed

POINTS = "Accuracy (points)"
TIME = "Inference time (%)"
IN_TURN, APART = "in turn", "apart"
NOISE = "within noise"
THESE_RUNS = "on these runs"
# The conditions of a measured speed, by the row's name and by that of the paired measurement.
_CONDITIONS = {
    "device": "device", "resolved_precision": "precision", "max_length": "max_length", "batch_size": "batch_size",
}  # fmt: skip
# What is saved, by the metric that says it.
SAVINGS = {
    "parameters": "Parameters (%)",
    "flops_per_example": "FLOPs (%)",
    "inference_ms": TIME,
    "training_memory_of_network_gb": "Training memory (%)",
    "inference_memory_of_network_gb": "Inference memory (%)",
    "training_seconds": "Training time (%)",
}
# Runs that were made before there was this figure have one that holds what the process has besides.
_FORMERLY = {f"{phase}_memory_of_network_gb": f"{phase}_memory_gb" for phase in ("training", "inference")}


def with_baseline(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reduced rows whose model has a baseline among the rows, and these baselines, row by row."""
    baselines = rows[rows["dim"].eq("none")].set_index("model")
    reduced = rows[rows["dim"].ne("none") & rows["model"].isin(baselines.index)]
    return reduced.reset_index(drop=True), baselines.loc[reduced["model"]].reset_index(drop=True)


def changes(rows: pd.DataFrame, ratios: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Change of every reduction against its baseline: quality in points, resources in percent.

    Args:
        rows: the chosen configurations on one corpus.
        ratios: speed ratios of paired measurements; where one of a row is there, speed-up and inference time
            are taken from it, and the column ``Timed`` says ``in turn`` instead of ``apart``.
        predictions: the test predictions of each run, where it stored them; intervals and p come from these.
    """
    reduced, base = with_baseline(rows)
    found = [_difference(predictions, *ids) for ids in zip(reduced["run_ids"], base["run_ids"], strict=True)]
    table = pd.DataFrame({"Model": reduced["checkpoint"], "Config": reduced["config"], "Dimension": reduced["dim"]})
    table[POINTS] = (100 * (reduced["accuracy"] - base["accuracy"])).round(9)  # -2.75 and not -2.7499999
    table["95% low"], table["95% high"] = _ends([each and each.accuracy.interval for each in found])
    table["p (Holm)"] = holm([each.p if each else np.nan for each in found])
    table["Test"] = [each.test if each else None for each in found]
    table["Difference"] = [verdict(p, each) for p, each in zip(table["p (Holm)"], found, strict=True)]
    table["F1 (points)"] = 100 * (reduced["f1"] - base["f1"])
    table["F1 95% low"], table["F1 95% high"] = _ends([each and each.f1.interval for each in found])
    table["Seeds"] = [each.accuracy.seeds if each else 0 for each in found]
    for metric, title in SAVINGS.items():
        table[title] = 100 * (_relative(metric, reduced, base) - 1)
    _add_speed(table, ratios, reduced, base)
    return table


def with_changes(rows: pd.DataFrame, table: pd.DataFrame, how: Literal["inner", "left"] = "inner") -> pd.DataFrame:
    """Rows with what the table of :func:`changes` says of them."""
    return rows.merge(table, how=how, left_on=["checkpoint", "dim"], right_on=["Model", "Dimension"])


def _relative(metric: str, reduced: pd.DataFrame, base: pd.DataFrame) -> pd.Series:
    """A reduction's figure in units of its baseline's, row by row."""
    unknown = pd.Series(np.nan, reduced.index)
    own, theirs = (each.get(metric, unknown) for each in (reduced, base))
    if former := _FORMERLY.get(metric):
        new = own.notna(), theirs.notna()
        # All runs have training's earlier figure. Inference's was another process's: only old ones are compared by it.
        by_former = not (new[0] & new[1]).all() if former.startswith("training") else not (new[0] | new[1]).any()
        if by_former:
            own, theirs = (each.get(former, unknown) for each in (reduced, base))
    return own / theirs


def _add_speed(table: pd.DataFrame, ratios: pd.DataFrame, reduced: pd.DataFrame, base: pd.DataFrame) -> None:
    pairs = zip(reduced.to_dict("records"), base.to_dict("records"), strict=True)
    paired = pd.DataFrame(
        [_paired_speed(ratios, *pair) for pair in pairs], columns=["speed_ratio", "low", "high"]
    ).astype(float)
    table["Timed"] = np.where(paired["speed_ratio"].isna(), APART, IN_TURN)
    table["Speed-up"] = paired["speed_ratio"].fillna(1 / (1 + table[TIME] / 100))
    table["Speed-up low"], table["Speed-up high"] = paired["low"], paired["high"]
    table["Speed-up by FLOPs"] = 1 / (1 + table[SAVINGS["flops_per_example"]] / 100)
    table[TIME] = 100 * (1 / table["Speed-up"] - 1)


def _paired_speed(ratios: pd.DataFrame, reduced: Row, baseline: Row) -> dict[str, float]:
    """The latest paired speed of a configuration relative to its baseline, under the conditions of both rows.

    What was cut to a budget was measured in turn with the baseline when it was made, which counts where nothing later
    was.
    """
    own = {"speed_ratio": "speed_ratio", "low": "speed_ratio_low", "high": "speed_ratio_high"}
    before = {name: reduced[metric] for name, metric in own.items() if reduced.get("budget") and metric in reduced}
    if ratios.empty:
        return before
    found = ratios[
        ratios["run_id"].isin(reduced["run_ids"].values())
        & ratios["reference"].isin(baseline["run_ids"].values())
        & ratios["workload"].eq("texts")
    ].reindex(columns=["speed_ratio", "low", "high", *_CONDITIONS.values()])  # older measurements name fewer conditions
    for row in (reduced, baseline):
        for name, measured in _CONDITIONS.items():
            found = found[found[measured].map(plain_value).eq(plain_value(row.get(name)))]
    return before if found.empty else found.iloc[0].to_dict()


def plain_value(value: object) -> str | None:
    """A condition as text, so that 16, 16.0 and "16" are one; nothing where it is not known."""
    if pd.isna(value):
        return None
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)


def verdict(p: float, found: Difference | None) -> str:
    """A difference in words: of one seed, that another would show the same is not said."""
    if found is None:
        return "not tested"
    if p >= ALPHA:
        return NOISE
    word = "loss" if found.accuracy.mean < 0 else "gain"
    return f"{word} {THESE_RUNS}" if found.accuracy.seeds == 1 else word


def shared_seeds(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> dict[str, tuple[str, str]]:
    """Run ids of baseline and reduction, by seed, where both predicted the same examples."""
    return {
        seed: (baseline[seed], reduced[seed])
        for seed in sorted(set(baseline) & set(reduced), key=int)
        if _same_examples(predictions.get(baseline[seed]), predictions.get(reduced[seed]))
    }


def gains_by_row(rows: pd.DataFrame, predictions: Predictions) -> Gains:
    """Correct with the reduction minus correct with the baseline, of each example and seed, where both are known."""
    found = {}
    for reduced, base in zip(*(part.to_dict("records") for part in with_baseline(rows)), strict=True):
        if seeds := shared_seeds(predictions, reduced["run_ids"], base["run_ids"]):
            by_seed = {seed: gain(*(predictions[run_id] for run_id in pair)) for seed, pair in seeds.items()}
            found[reduced["checkpoint"], reduced["dim"]] = pd.DataFrame(by_seed).dropna()
    return found


def aligned(gains: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The same on the examples and seeds that all of them have; empty where there are none."""
    examples = functools.reduce(pd.Index.intersection, (each.index for each in gains))
    seeds = functools.reduce(pd.Index.intersection, (each.columns for each in gains))
    return [each.loc[examples, seeds] for each in gains]


def complete_models(table: pd.DataFrame) -> list[str]:
    """The models that have a row of every dimension of the table: only their averages speak of the same models."""
    dims = table.groupby("Model", sort=False)["Dimension"].nunique()
    return list(dims[dims.eq(table["Dimension"].nunique())].index)


def _difference(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> Difference | None:
    seeds = shared_seeds(predictions, reduced, baseline)
    if not seeds:
        return None
    return difference(*zip(*((predictions[run_id] for run_id in pair) for pair in seeds.values()), strict=True))


def _same_examples(first: pd.DataFrame | None, second: pd.DataFrame | None) -> bool:
    """Whether both are there and of the same test examples; other subsets are no pairs."""
    return first is not None and second is not None and set(first["id"]) == set(second["id"])


def _ends(intervals: list[tuple[float, float] | None]) -> tuple[list[float], list[float]]:
    return tuple([interval[end] if interval else np.nan for interval in intervals] for end in (0, 1))
