"""What the registry says of a model: what it is, how good, how fast, from which run."""

from collections.abc import Iterable

import pandas as pd

from ..tracking.registry import Card, card
from .changes import IN_TURN, POINTS, SAVINGS, Row, with_changes


def model_cards(
    compared: Iterable[tuple[pd.DataFrame, pd.DataFrame]], runs: pd.DataFrame, experiment_id: str
) -> dict[str, Card]:
    """The card of the model of every compared run, by run id.

    Args:
        compared: configurations, and their changes against the baseline.
        runs: the runs that they are made of.
        experiment_id: where these are.
    """
    by_id = {run["run_id"]: run for run in runs.to_dict("records")}
    return {
        run_id: _card(row, by_id[run_id], experiment_id)
        for rows, changes in compared
        for row in with_changes(rows[rows["dim"].ne("none")], changes, how="left").to_dict("records")
        for run_id in row["run_ids"].values()
    }


def _card(row: Row, own: Row, experiment_id: str) -> Card:
    of = "the trained baseline" if row["start"] == "baseline" else "the pretrained encoder"
    what = f"**{row['checkpoint']} made smaller: {row['config']}**, cut from {of},"
    paragraphs = [f"{what} fine-tuned on {own['corpus']} (seed {own['seed']}).", _quality(row, own)]
    if pd.isna(row[POINTS]):
        return card([*paragraphs, "No baseline was compared."], own, experiment_id, {})
    baseline = row["accuracy"] - row[POINTS] / 100
    against = {"baseline_accuracy": baseline, "speed_up": row["Speed-up"]}
    return card([*paragraphs, _change(row, baseline), _speed(row)], own, experiment_id, against)


def _quality(row: Row, own: Row) -> str:
    seeds = len(row["run_ids"])
    over = f"; over {seeds} seeds {row['accuracy']:.3f}" if seeds > 1 else ""
    return f"**Test accuracy {own['accuracy']:.3f}**, weighted F1 {own['f1']:.3f}{over}."


def _change(row: Row, baseline: float) -> str:
    noise = ""
    if pd.notna(row["95% low"]):
        noise = f" (95% {row['95% low']:+.1f} to {row['95% high']:+.1f}, {row['Difference']})"
    return f"The baseline's accuracy is {baseline:.3f}: **{row[POINTS]:+.1f} points**{noise}."


def _speed(row: Row) -> str:
    how = "measured apart, minutes later"
    if row["Timed"] == IN_TURN:
        how = f"95% {row['Speed-up low']:.2f} to {row['Speed-up high']:.2f}, measured in turn"
    share = 100 + row[SAVINGS["parameters"]]
    return f"**{row['Speed-up']:.2f} times as fast** as the baseline ({how}), with {share:.0f}% of its parameters."
