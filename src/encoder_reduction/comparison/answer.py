"""What each dimension costs and saves against the baseline, in figures and in sentences."""

import pandas as pd

from ..presets import DIMENSIONS
from .significance import ALPHA, Difference, costliest, difference, gains, holm

RunIds = dict[str, str]  # by seed
Predictions = dict[str, pd.DataFrame]  # by run id

_PAIRED, _APART = "in turn", "apart"
_TIME = "Inference time (%)"
# What is saved, by the metric that says it.
_SAVINGS = {
    "parameters": "Parameters (%)",
    "flops_per_example": "FLOPs (%)",
    "inference_ms": _TIME,
    "training_memory_gb": "Training memory (%)",
    "training_seconds": "Training time (%)",
}


def changes(rows: pd.DataFrame, ratios: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Change of every reduction against the baseline of its model: accuracy in points, the rest in percent.

    Args:
        rows: the best configurations on the source corpus.
        predictions: the test predictions of each run, where it stored them; intervals and p come from these.
        ratios: speed ratios of paired measurements; where one of a row is there, inference time is taken
            from it, and the column ``Timed`` says ``in turn`` instead of ``apart``.
    """
    baselines = rows[rows["dim"].eq("none")].set_index("model")
    reduced = rows[rows["dim"].ne("none") & rows["model"].isin(baselines.index)]
    base = baselines.loc[reduced["model"]].reset_index(drop=True)
    reduced = reduced.reset_index(drop=True)
    table = pd.DataFrame({"Model": reduced["checkpoint"], "Config": reduced["config"]})
    pairs = list(zip(reduced["run_ids"], base["run_ids"], strict=True))
    table["Accuracy (points)"] = 100 * (reduced["accuracy"] - base["accuracy"])
    found = [_difference(predictions, *ids) for ids in pairs]
    table["95% low"] = [each.accuracy_interval[0] if each else None for each in found]
    table["95% high"] = [each.accuracy_interval[1] if each else None for each in found]
    table["p (Holm)"] = holm([each.p if each else float("nan") for each in found])
    for metric, title in _SAVINGS.items():
        table[title] = 100 * (reduced[metric] / base[metric] - 1)
    speed = pd.Series([_paired_speed(ratios, *ids) for ids in pairs], dtype=float)
    table[_TIME] = (100 * (1 / speed - 1)).fillna(table[_TIME])
    table["Timed"] = [_APART if missing else _PAIRED for missing in speed.isna()]
    return table


def _paired_speed(ratios: pd.DataFrame, reduced: RunIds, baseline: RunIds) -> float | None:
    """The latest paired speed of a configuration relative to its baseline, on the table's workload."""
    found = ratios[ratios["run_id"].isin(reduced.values()) & ratios["reference"].isin(baseline.values())]
    if found.empty:
        return None
    found = found[found["workload"].eq("texts")]
    return float(found.loc[found["batch_size"].eq(found["batch_size"].max()), "speed_ratio"].iloc[0])


def _shared_seeds(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> list[tuple[str, str]]:
    """Run ids of baseline and reduction for every seed of which both predicted the same examples."""
    return [
        (baseline[seed], reduced[seed])
        for seed in sorted(set(baseline) & set(reduced))
        if _same_examples(predictions.get(baseline[seed]), predictions.get(reduced[seed]))
    ]


def _same_examples(first: pd.DataFrame | None, second: pd.DataFrame | None) -> bool:
    """Whether both are there and of the same test examples; other subsets are no pairs."""
    return first is not None and second is not None and set(first["id"]) == set(second["id"])


def _difference(predictions: Predictions, reduced: RunIds, baseline: RunIds) -> Difference | None:
    seeds = _shared_seeds(predictions, reduced, baseline)
    return difference(*(_tables(predictions, seeds, side) for side in (0, 1))) if seeds else None


def _tables(predictions: Predictions, seeds: list[tuple[str, str]], side: int) -> list[pd.DataFrame]:
    return [predictions[pair[side]] for pair in seeds]


def _costliest(rows: pd.DataFrame, predictions: Predictions) -> pd.Series | None:
    """Bootstrap probability of each dimension to cost the most accuracy, averaged over the models."""
    baselines = rows[rows["dim"].eq("none")].set_index("model")["run_ids"]
    by_dim: dict[str, list[pd.Series]] = {}
    for row in rows[rows["dim"].ne("none") & rows["model"].isin(baselines.index)].itertuples():
        seeds = _shared_seeds(predictions, row.run_ids, baselines[row.model])
        if seeds:
            by_dim.setdefault(row.dim, []).append(gains(*(_tables(predictions, seeds, side) for side in (0, 1))))
    if len(by_dim) < 2:
        return None
    return costliest(pd.DataFrame({dim: pd.concat(each, axis=1).mean(axis=1) for dim, each in by_dim.items()}).dropna())


def answer(rows: pd.DataFrame, table: pd.DataFrame, predictions: Predictions) -> str:
    """Sentences on which dimension costs the most quality and which saves the most, averaged over models.

    Args:
        rows: the best configurations on the source corpus.
        table: their :func:`changes`.
        predictions: the test predictions of each run, where it stored them.
    """
    if table.empty:
        return "There is no reduction beside its baseline yet, so there is nothing to compare."
    dim = table["Config"].str.partition("-")[0]
    means = table.groupby(dim).mean(numeric_only=True).reindex([d for d in DIMENSIONS if d in set(dim)])
    points = means["Accuracy (points)"]
    lines = [
        f"For quality: cutting {points.idxmin()} costs the most accuracy ({points.min():+.1f} points on average over"
        f" {table['Model'].nunique()} models), cutting {points.idxmax()} the least ({points.max():+.1f}).",
        *_certainty(table, _costliest(rows, predictions)),
        "For cost: "
        + "; ".join(
            f"{_plain(title)} falls most with {means[title].idxmin()} ({means[title].min():+.0f}%)"
            for title in _SAVINGS.values()
        )
        + ".",
    ]
    if rows["seeds"].max() < 3:
        lines.append("With fewer than three seeds this is an observation, not a finding.")
    return " ".join(lines)


def method(table: pd.DataFrame) -> str:
    """What the columns of the changes mean."""
    lines = [
        "Accuracy in points of the test split, with the 95% interval of a paired bootstrap over the test examples"
        " and p of McNemar's exact test after Holm's correction; all else in percent of the baseline.",
        "FLOPs are what the network computes; inference time is what that came to.",
    ]
    if table["Timed"].eq(_PAIRED).any():
        lines.append("Times marked 'in turn' were measured together with the baseline, in one process.")
    if table["Timed"].eq(_APART).any():
        lines.append("Times marked 'apart' come from runs of their own and are as doubtful as the machine was busy.")
    return " ".join(lines)


def _certainty(table: pd.DataFrame, probability: pd.Series | None) -> list[str]:
    """Sentences on what of this another test sample might have shown differently."""
    lines = []
    if probability is not None:
        shares = ", ".join(f"{dim} {share:.0%}" for dim, share in probability.items())
        lines.append(f"Were the test examples drawn again, the costliest would be: {shares} of the time.")
    tested = table[table["p (Holm)"].notna()]
    if len(tested):
        noise = tested[tested["p (Holm)"].ge(ALPHA)]
        names = ", ".join(f"{row.Model} {row.Config}" for row in noise.itertuples())
        lines.append(
            f"Of {len(tested)} differences in accuracy {len(tested) - len(noise)} are beyond noise (McNemar's exact"
            f" test, p below {ALPHA} after Holm's correction)" + (f"; within noise: {names}." if names else ".")
        )
    return lines


def _plain(title: str) -> str:
    name = title.removesuffix(" (%)")
    counted = {"FLOPs": "the number of FLOPs", "Parameters": "the number of parameters"}
    return counted.get(name, name.lower())
