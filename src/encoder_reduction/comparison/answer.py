"""What each dimension costs and saves against the baseline, in figures and in sentences."""

import pandas as pd

from ..presets import DIMENSIONS

# What is saved, by the metric that says it.
_SAVINGS = {
    "parameters": "Parameters (%)",
    "inference_ms": "Inference time (%)",
    "training_memory_gb": "Training memory (%)",
    "training_seconds": "Training time (%)",
}


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Change of every reduction against the baseline of its model: accuracy in points, the rest in percent."""
    baselines = rows[rows["dim"].eq("none")].set_index("model")
    reduced = rows[rows["dim"].ne("none") & rows["model"].isin(baselines.index)]
    base = baselines.loc[reduced["model"]].reset_index(drop=True)
    reduced = reduced.reset_index(drop=True)
    table = pd.DataFrame({"Model": reduced["checkpoint"], "Config": reduced["config"]})
    table["Accuracy (points)"] = 100 * (reduced["accuracy"] - base["accuracy"])
    for metric, title in _SAVINGS.items():
        table[title] = 100 * (reduced[metric] / base[metric] - 1)
    return table


def answer(rows: pd.DataFrame) -> str:
    """Sentences on which dimension costs the most quality and which saves the most, averaged over models."""
    table = changes(rows)
    if table.empty:
        return "There is no reduction beside its baseline yet, so there is nothing to compare."
    table["dim"] = table["Config"].str.partition("-")[0]
    means = table.groupby("dim").mean(numeric_only=True).reindex([d for d in DIMENSIONS if d in set(table["dim"])])
    points = means["Accuracy (points)"]
    lines = [
        f"For quality: cutting {points.idxmin()} costs the most accuracy ({points.min():+.1f} points on average over"
        f" {table['Model'].nunique()} models), cutting {points.idxmax()} the least ({points.max():+.1f}).",
        "For cost: "
        + "; ".join(
            f"{title.removesuffix(' (%)').lower()} falls most with {means[title].idxmin()} ({means[title].min():+.0f}%)"
            for title in _SAVINGS.values()
        )
        + ".",
    ]
    if rows["seeds"].max() < 3:
        lines.append("With fewer than three seeds this is an observation, not a finding.")
    return " ".join(lines)
