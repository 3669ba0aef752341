"""What the registry says of a model: what it is, how good, how fast, from which run."""

from dataclasses import dataclass

import pandas as pd

from ..tracking import store
from ..tracking.registry import Card, card
from .changes import IN_TURN, POINTS, SAVINGS, Predictions, Row, changes


@dataclass(frozen=True)
class ModelCards:
    """The cards of one comparison's models, each held against its baseline by itself.

    Attributes:
        baselines: the chosen rows of the baselines.
        changed: of the chosen rows that cut the pretrained encoder, which are measured in turn with the baselines.
        runs: the runs that all rows are made of.
        ratios: of paired measurements.
        predictions: on test, by run id; what is missing is read from the store.
        experiment_id: where the runs are.
    """

    baselines: pd.DataFrame
    changed: pd.DataFrame
    runs: pd.DataFrame
    ratios: pd.DataFrame
    predictions: Predictions
    experiment_id: str

    def of(self, row: Row) -> Card:
        """The card of the first seed's model of a configuration."""
        run_id = next(iter(row["run_ids"].values()))
        own = self._run(run_id)
        of = "the trained baseline" if row["start"] == "baseline" else "the pretrained encoder"
        what = f"{row['checkpoint']}, {row['config']}, cut from {of},"
        paragraphs = [f"{what} fine-tuned on {own['corpus']} (seed {own['seed']}).", _quality(row, own)]
        baseline = self.baselines[self.baselines["model"].eq(row["model"])]
        if baseline.empty:
            return card([*paragraphs, "No baseline was compared."], own, self.experiment_id, {})
        change = self._change(row, baseline)
        theirs = baseline.iloc[0]["run_ids"]
        figures = {"baseline_accuracy": self._run(theirs.get(own["seed"], next(iter(theirs.values()))))["accuracy"]}
        timed, same_sizes = self._timed(row, change)
        if timed is not None:
            figures["speed_up"] = timed["Speed-up"]
        paragraphs += [_against(change, baseline.iloc[0]["accuracy"]), _speed(change, timed, same_sizes)]
        return card(paragraphs, own, self.experiment_id, figures)

    def _run(self, run_id: str) -> Row:
        return self.runs[self.runs["run_id"].eq(run_id)].iloc[0].to_dict()

    def _change(self, row: Row, baseline: pd.DataFrame) -> pd.Series:
        """Its row of :func:`.changes.changes`: the only one, so that nothing is corrected for others."""
        needed = [*row["run_ids"].values(), *baseline.iloc[0]["run_ids"].values()]
        read = store.predictions_of(run_id for run_id in needed if run_id not in self.predictions)
        rows = pd.concat([baseline, pd.DataFrame([row])], ignore_index=True)
        return changes(rows, self.ratios, {**self.predictions, **read}).iloc[0]

    def _timed(self, row: Row, change: pd.Series) -> tuple[pd.Series | None, bool]:
        """What says its speed, if anything was measured in turn: it, or what was cut to the same sizes before."""
        if change["Timed"] == IN_TURN:
            return change, False
        same = self.changed["Model"].eq(row["checkpoint"]) & self.changed["Config"].eq(row["config"])
        measured = self.changed[same & self.changed["Timed"].eq(IN_TURN)]
        return (None, False) if measured.empty else (measured.iloc[0], True)


def _quality(row: Row, own: Row) -> str:
    seeds = len(row["run_ids"])
    over = f"; over {seeds} seeds {row['accuracy']:.3f}" if seeds > 1 else ""
    return f"**Test accuracy {own['accuracy']:.3f}**, weighted F1 {own['f1']:.3f}{over}."


def _against(change: pd.Series, baseline: float) -> str:
    noise = ""
    if pd.notna(change["95% low"]):
        noise = f" (95% {change['95% low']:+.1f} to {change['95% high']:+.1f}, {change['Difference']})"
    return f"The baseline's accuracy is {baseline:.3f}: **{change[POINTS]:+.1f} points**{noise}."


def _speed(change: pd.Series, timed: pd.Series | None, same_sizes: bool) -> str:
    parameters = f"{100 + change[SAVINGS['parameters']]:.0f}% of its parameters"
    if timed is None:
        return f"It has {parameters}. It was not measured in turn with the baseline, so nothing is said of its speed."
    on = ", on a network of the same sizes" if same_sizes else ""
    interval = f"95% {timed['Speed-up low']:.2f} to {timed['Speed-up high']:.2f}, measured in turn{on}"
    return f"**{timed['Speed-up']:.2f} times as fast** as the baseline ({interval}), with {parameters}."
