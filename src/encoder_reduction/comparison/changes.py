"""Each reduction against the baseline of its model: quality with its certainty, and what is saved."""

import numpy as np
import pandas as pd

from .significance import ALPHA, Difference, difference, gains, holm

RunIds = dict[str, str]  # by seed
Predictions = dict[str, pd.DataFrame]  # by run id

POINTS = "Accuracy (points)"
TIME = "Inference time (%)"
IN_TURN, APART = "in turn", "apart"
NOISE = "within noise"
# What is saved, by the metric that says it.
SAVINGS = {
    "parameters": "Parameters (%)",
    "flops_per_example": "FLOPs (%)",
    "inference_ms": TIME,
    "training_memory_gb": "Training memory (%)",
    "inference_memory_gb": "Inference memory (%)",
    "training_seconds": "Training time (%)",
}


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
    pairs = list(zip(reduced["run_ids"], base["run_ids"], strict=True))
    found = [_difference(predictions, *ids) for ids in pairs]
    table = pd.DataFrame({"Model": reduced["checkpoint"], "Config": reduced["config"], "Dimension": reduced["dim"]})
    table[POINTS] = 100 * (reduced["accuracy"] - base["accuracy"])
    table["95% low"], table["95% high"] = _ends([each and each.accuracy_interval for each in found])
    table["p (Holm)"] = holm([each.p if each else np.nan for each in found])
    table["Difference"] = [_called(p, points) for p, points in zip(table["p (Holm)"], table[POINTS], strict=True)]
    table["F1 (points)"] = 100 * (reduced["f1"] - base["f1"])
    table["F1 95% low"], table["F1 95% high"] = _ends([each and each.f1_interval for each in found])
    table["Seeds"] = [each.seeds if each else 0 for each in found]
    table["Seeds 95% low"], table["Seeds 95% high"] = _ends([each and each.seed_interval for each in found])
    for metric, title in SAVINGS.items():
        table[title] = 100 * (reduced[metric] / base[metric] - 1)
    _add_speed(table, ratios, pairs)
    return table


def _add_speed(table: pd.DataFrame, ratios: pd.DataFrame, pairs: list[tuple[RunIds, RunIds]]) -> None:
    paired = pd.DataFrame(
        [_paired_speed(ratios, *ids) for ids in pairs], columns=["speed_ratio", "low", "high"]
    ).astype(float)
    table["Timed"] = np.where(paired["speed_ratio"].isna(), APART, IN_TURN)
    table["Speed-up"] = paired["speed_ratio"].fillna(1 / (1 + table[TIME] / 100))
    table["Speed-up low"], table["Speed-up high"] = paired["low"], paired["high"]
    table["Speed-up by FLOPs"] = 1 / (1 + table[SAVINGS["flops_per_example"]] / 100)
    table[TIME] = 100 * (1 / table["Speed-up"] - 1)


def _paired_speed(ratios: pd.DataFrame, reduced: RunIds, baseline: RunIds) -> dict[str, float]:
    """The latest paired speed of a configuration relative to its baseline, on the table's workload."""
    if ratios.empty:
        return {}
    found = ratios[ratios["run_id"].isin(reduced.values()) & ratios["reference"].isin(baseline.values())]
    found = found[found["workload"].eq("texts")]
    found = found[found["batch_size"].eq(found["batch_size"].max())]
    return {} if found.empty else found.iloc[0].reindex(["speed_ratio", "low", "high"]).to_dict()


def shared_seeds(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> list[tuple[str, str]]:
    """Run ids of baseline and reduction for every seed of which both predicted the same examples."""
    return [
        (baseline[seed], reduced[seed])
        for seed in sorted(set(baseline) & set(reduced), key=int)
        if _same_examples(predictions.get(baseline[seed]), predictions.get(reduced[seed]))
    ]


def gains_by_dimension(rows: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Correct with the reduction minus correct with the baseline, averaged over seeds and models.

    Returns:
        One row a test example that all have predicted, one column a dimension.
    """
    by_dim: dict[str, list[pd.Series]] = {}
    for reduced, base in zip(*(part.to_dict("records") for part in with_baseline(rows)), strict=True):
        if seeds := shared_seeds(predictions, reduced["run_ids"], base["run_ids"]):
            tables = zip(*((predictions[run_id] for run_id in pair) for pair in seeds), strict=True)
            by_dim.setdefault(reduced["dim"], []).append(gains(*tables))
    return pd.DataFrame(
        {dim: pd.concat(each, axis=1).mean(axis=1, skipna=False) for dim, each in by_dim.items()}
    ).dropna()


def _difference(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> Difference | None:
    seeds = shared_seeds(predictions, reduced, baseline)
    if not seeds:
        return None
    return difference(*zip(*((predictions[run_id] for run_id in pair) for pair in seeds), strict=True))


def _same_examples(first: pd.DataFrame | None, second: pd.DataFrame | None) -> bool:
    """Whether both are there and of the same test examples; other subsets are no pairs."""
    return first is not None and second is not None and set(first["id"]) == set(second["id"])


def _called(p: float, points: float) -> str:
    if np.isnan(p):
        return "not tested"
    return NOISE if p >= ALPHA else "loss" if points < 0 else "gain"


def _ends(intervals: list[tuple[float, float] | None]) -> tuple[list[float], list[float]]:
    return tuple([interval[end] if interval else np.nan for interval in intervals] for end in (0, 1))
