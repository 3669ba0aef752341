"""Everything that a comparison speaks of, read from the store once: rows, their changes, what stands beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ..errors import UserError
from ..plan.study import Study
from ..tracking import store
from . import selection, sensitivity
from .changes import Predictions, changes
from .equal_budget import AtBudget, at_budgets


@dataclass(frozen=True)
class Choice:
    """Which runs are compared, and how the best configuration is chosen.

    Attributes:
        rule: one of ``plan.sections.RULES``.
        seeds: only these; all by default.
        device: only runs from this one; by default the one with the most runs.
        tags: only runs with these MLflow tags.
        experiment: the experiment's name; that of the comparison's own run by default.
    """

    rule: str = "accuracy"
    seeds: Sequence[int] = ()
    device: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None


@dataclass(frozen=True)
class Gathered:
    """Chosen rows, one a model and dimension, and the changes of each against its baseline.

    Attributes:
        runs: those that count, those beside the plan, and what was left out.
        found: all configurations on the source corpus but those at a budget.
        source: the chosen ones that cut the pretrained encoder, and the baselines.
        recovered: the chosen ones that cut the trained baseline.
        target: the chosen ones that were adapted.
        to_budgets: all configurations at a budget.
        changed: of ``source``.
        changed_again: of ``recovered``.
        changed_there: of ``target``.
        before_adapting: of the rows that ``target`` started from.
        equal: what there is at each budget.
        ratios: of paired measurements.
        predictions: on test, by run id.
    """

    runs: selection.Counted
    found: pd.DataFrame
    source: pd.DataFrame
    recovered: pd.DataFrame
    target: pd.DataFrame
    to_budgets: pd.DataFrame
    changed: pd.DataFrame
    changed_again: pd.DataFrame
    changed_there: pd.DataFrame
    before_adapting: pd.DataFrame
    equal: list[AtBudget]
    ratios: pd.DataFrame
    predictions: Predictions

    @property
    def baselines(self) -> pd.DataFrame:
        """The chosen rows that are whole."""
        return self.source[self.source["dim"].eq("none")]

    @property
    def on_source(self) -> pd.DataFrame:
        """The runs that count on the source corpus."""
        return self.runs.planned[self.runs.planned["stage"].ne("transfer")]

    @property
    def everything(self) -> pd.DataFrame:
        """All runs, beside the plan as well."""
        return pd.concat([self.runs.planned, self.runs.other_sizes, self.runs.beside])

    @property
    def compared(self) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """All rows beside their changes."""
        pairs = [
            (self.source, self.changed),
            (self.recovered, self.changed_again),
            (self.target, self.changed_there),
        ]
        return pairs + [(at.rows[at.rows["dim"].ne("none")], at.changes) for at in self.equal]


def gather(study: Study, experiment_id: str, choice: Choice) -> Gathered:
    """Read the finished runs of a study, and choose.

    Raises:
        UserError: no run is left to compare.
    """
    tags = {**choice.tags, "preset": study.preset.name}
    runs = selection.latest_runs(store.finished_runs(experiment_id, **tags), study, choice.seeds, choice.device)
    _check_any(runs, study)
    found, adapted = selection.split_stages(selection.configurations(runs.planned))
    found, to_budgets = selection.split_budgets(found)
    as_planned, cut_again = selection.split_starts(found)
    source, recovered, target = (selection.best(rows, choice.rule) for rows in (as_planned, cut_again, adapted))
    baselines = source[source["dim"].eq("none")]
    predictions = store.predictions_of(_run_ids(source, recovered, target, to_budgets))
    validation = store.predictions_of(_run_ids(to_budgets), store.VALIDATION_FILE)
    ratios = store.speed_ratios(experiment_id, study.preset.name)
    beyond = selection.beyond(store.runs_out_of_reach(experiment_id, **tags), runs.planned, study)
    changed = changes(source, ratios, predictions)
    changed_again = changes(pd.concat([baselines, recovered], ignore_index=True), pd.DataFrame(), predictions)
    return Gathered(
        runs=runs,
        found=found,
        source=source,
        recovered=recovered,
        target=target,
        to_budgets=to_budgets,
        changed=changed,
        changed_again=changed_again,
        changed_there=changes(target, pd.DataFrame(), predictions),
        before_adapting=sensitivity.of_same_start(target, changed, changed_again),
        equal=at_budgets(to_budgets, baselines, beyond, ratios, (predictions, validation)),
        ratios=ratios,
        predictions=predictions,
    )


def _check_any(runs: selection.Counted, study: Study) -> None:
    if (runs.planned["stage"].eq("transfer") | runs.planned["budget"].ne("")).all():
        raise UserError(
            f"No finished baseline or reduction on {study.preset.source.name} is left to compare that did what the plan"
            f" says ({len(runs.other_sizes) + len(runs.beside)} did something else): run these first, or give compare"
            " the values that they were run with, as -P epochs=2."
        )


def _run_ids(*tables: pd.DataFrame) -> list[str]:
    return [run_id for rows in tables for ids in rows["run_ids"] for run_id in ids.values()]
