"""The part of the report that leaves PyTorch: the answer in a sentence, a picture, the table, what the columns mean."""

import numpy as np
import pandas as pd

from ..plan.runtimes import ONNX, ONNX_INT8, TORCH
from . import runtime_pictures, tables
from .report import Section
from .runtimes import ALONE, WHOLE, measured, taken

_DONE = {ONNX: "exported to ONNX", ONNX_INT8: "quantised to int8"}


def where_it_runs(experiment_id: str, preset: str, runs: pd.DataFrame) -> list[Section]:
    """The models outside of PyTorch; nothing where no paired measurement has taken them there.

    Args:
        experiment_id: of the paired measurements.
        preset: theirs.
        runs: all runs that count.
    """
    rows = measured(experiment_id, preset, runs)
    if rows.empty:
        return []
    section = Section("Where it runs")
    section.say("\n\n".join(_answer(own) for _, own in rows.groupby("checkpoint", sort=False)))
    caption = (
        "Accuracy on test against speed, in the plan's batches and one text at a time: a line a network, from PyTorch"
        " to ONNX Runtime to int8. Hollow: the plan's half, not recovered. Whiskers: 95% intervals, of accuracy against"
        " the baseline in PyTorch over the test examples, of speed over the rounds."
    )
    section.picture("runtimes", runtime_pictures.against_speed(rows), caption)
    every = _table(rows)
    section.table("runtimes_table", tables.runtimes_in_brief(every), every=every)
    section.say(_method(rows))
    return [section]


def how_to_ask(preset: str) -> str:
    """One line for whoever has seen PyTorch's times alone."""
    return (
        "Times are PyTorch's. What the same models give in ONNX Runtime, as they are and in int8:"
        f" `mlflow run . -e profile -P preset={preset} -P model=bert -P runtimes={TORCH},{ONNX},{ONNX_INT8}`; one as an"
        " ONNX file: `mlflow run . -e export -P model=bert -P alias=best`."
    )


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    again = rows["start"].eq("baseline") & rows["budget"].eq("")
    return pd.DataFrame(
        {
            "Model": rows["checkpoint"],
            "Config": rows["config"] + again.map({True: ", recovered", False: ""}),
            "Runtime": rows["runtime"],
            "Computes in": rows["precision"],
            "Times as fast": rows["speed_ratio"],
            "Times as fast low": rows["low"],
            "Times as fast high": rows["high"],
            "One text": rows["single_speed_ratio"],
            "One text low": rows["single_low"],
            "One text high": rows["single_high"],
            "Accuracy": rows["accuracy"],
            ALONE: rows[ALONE],
            f"{ALONE} low": rows[f"{ALONE} low"],
            f"{ALONE} high": rows[f"{ALONE} high"],
            "p (Holm)": rows[f"{ALONE} p"],
            "Difference": rows[f"{ALONE} verdict"].replace("", None),
            WHOLE: rows[WHOLE],
            f"{WHOLE} low": rows[f"{WHOLE} low"],
            f"{WHOLE} high": rows[f"{WHOLE} high"],
            "F1-score": rows["f1"],
            "F1 against PyTorch (points)": rows[f"F1 {ALONE}"],
            "File (MB)": rows["megabytes"],
            "Examples": rows["examples"],
        }
    )


def _answer(rows: pd.DataFrame) -> str:
    """One sentence on one model."""
    by_key = rows.set_index(["run_id", "runtime"])
    baseline, cut = rows["reference"].iloc[0], taken(rows)
    furthest = next(runtime for runtime in (ONNX_INT8, ONNX) if runtime in set(rows["runtime"]))
    parts = [
        f"{_DONE[furthest]} {_gives(by_key.loc[(baseline, furthest)])}",
        f"cut ({by_key.loc[(cut, TORCH), 'config']}) {_gives(by_key.loc[(cut, TORCH)])}",
        f"cut and {_DONE[furthest]} {_gives(by_key.loc[(cut, furthest)])}",
    ]
    precision = by_key.loc[(baseline, TORCH), "precision"]
    return f"**{rows['checkpoint'].iloc[0]}, beside its baseline in PyTorch ({precision}): {'; '.join(parts)}.**"


def _gives(row: pd.Series) -> str:
    points = row[WHOLE]
    lost = f"{points:+.1f} points, {row[f'{WHOLE} verdict']}" if not np.isnan(points) else "accuracy not compared"
    single = f"{row['single_speed_ratio']:.2f} times one text at a time"
    return f"it is {row['speed_ratio']:.2f} times as fast ({row['low']:.2f} to {row['high']:.2f}), {single} ({lost})"


def _method(rows: pd.DataFrame) -> str:
    sizes = sorted(set(rows["examples"]))
    return (
        "Times are of the baseline in PyTorch over each, measured in turn in one process with as many threads, on the"
        " same test texts: in batches of the plan's size, and one text at a time. Accuracy is"
        f" of {' and '.join(map(str, sizes))} test texts in batches of the plan's size: in int8 the range of a batch is"
        " shared by its texts, so others beside a text may change its answer. Each row is one trained run: intervals"
        " and McNemar's exact test (p after Holm's correction) say what other texts would show of these very models."
        " The cut of the sentence is the most accurate on validation."
    )
