"""The models in the runtimes that they are deployed in: how fast each is, and what it has lost there."""

import numpy as np
import pandas as pd

from ..plan.runtimes import TORCH
from ..tracking import store
from .changes import verdict
from .selection import in_order
from .significance import Difference, difference, holm

ALONE = "Against PyTorch (points)"
WHOLE = "Against the baseline (points)"


def measured(experiment_id: str, preset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The latest paired measurement of each model that has its baseline for a reference, of runs that count.

    Args:
        experiment_id: of the measurements.
        preset: theirs.
        runs: all runs that count.

    Returns:
        One row for each run and runtime, as it was logged, with ``checkpoint``, ``dim``, ``start``, ``budget`` and
        ``validation_accuracy`` of the run, and what has become of its accuracy, in points: :data:`ALONE` against the
        same run in PyTorch, :data:`WHOLE` against the baseline in PyTorch; of each also ``low``, ``high``, ``p``
        (Holm), ``verdict``, and ``F1``. Empty where there is none.
    """
    found = store.runtimes(experiment_id, preset)
    rows = found if found.empty else _that_count(found, runs)
    return rows if rows.empty else _with_differences(rows)


def taken(rows: pd.DataFrame) -> str:
    """The run of one model whose cut the answer speaks of: the most accurate on validation."""
    cut = rows[rows["dim"].ne("none")]
    return str(cut.loc[cut["validation_accuracy"].idxmax(), "run_id"])


def _that_count(found: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    baselines = runs.loc[runs["dim"].eq("none"), "run_id"]
    found = found[found["reference"].isin(baselines) & found["device"].isin(runs["device"])]
    found = found[found["profile"].eq(found.groupby("model")["profile"].transform("first"))]
    named = ["run_id", "checkpoint", "dim", "start", "budget", "validation_accuracy"]
    rows = found.merge(runs[named], on="run_id")
    # A model without any cut beside it answers nothing.
    complete = rows.groupby("model")["dim"].transform("nunique").gt(1)
    return in_order(rows[complete]) if complete.any() else rows.iloc[:0]


def _with_differences(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what each has lost against its run in PyTorch, and against the baseline in PyTorch."""
    predictions = {
        (row.run_id, row.runtime): table
        for row in rows.itertuples()
        for table in _predictions(row.profile, row.run_id, row.runtime)
    }
    rows = rows.copy()
    for title, others in ((ALONE, rows["run_id"]), (WHOLE, rows["reference"])):
        pairs = zip(zip(rows["run_id"], rows["runtime"], strict=True), ((run, TORCH) for run in others), strict=True)
        found = [
            difference([predictions[theirs]], [predictions[own]])
            if own != theirs and {own, theirs} <= set(predictions)
            else None
            for own, theirs in pairs
        ]
        corrected = holm([each.p if each else np.nan for each in found])
        rows[title] = [each.accuracy.mean if each else np.nan for each in found]
        rows[[f"{title} low", f"{title} high"]] = [_ends(each) for each in found]
        rows[f"{title} p"] = corrected
        rows[f"{title} verdict"] = [verdict(*each) if each[1] else "" for each in zip(corrected, found, strict=True)]
        rows[f"F1 {title}"] = [each.f1.mean if each else np.nan for each in found]
    return rows


def _predictions(profile: str, run_id: str, runtime: str) -> list[pd.DataFrame]:
    return list(store.predictions_of([profile], store.runtime_predictions_file(run_id, runtime)).values())


def _ends(found: Difference | None) -> tuple[float, float]:
    return found.accuracy.interval if found else (np.nan, np.nan)
