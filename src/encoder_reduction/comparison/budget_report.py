"""The part of the report that compares dimensions at equal budget: sentences, pictures, tables."""

from collections.abc import Sequence

import pandas as pd

from . import budget_pictures, tables
from .budget_answer import answers, in_one_sentence
from .equal_budget import AtBudget, differing, table_of
from .report import Section


def at_equal_budget(
    title: str,
    found: Sequence[AtBudget],
    runs: pd.DataFrame,
    halves: tuple[pd.DataFrame, pd.DataFrame],
) -> list[Section]:
    """What is said of equal budgets; nothing where no run has one.

    Args:
        title: the question that it answers.
        found: what there is at each budget.
        runs: all runs that count.
        halves: the plan's rows, and their changes.
    """
    if not found:
        return []
    section, (rows, changes) = Section(title), halves
    for text in filter(None, (in_one_sentence(found), answers(found), _fairness(found, runs))):
        section.say(text)
    points = budget_pictures.points_of(found, changes, rows)
    if drawn := len(points) and points["kind"].eq("budget").any():
        caption = (
            "Accuracy on test against speed. Lines: cut from the trained baseline to a budget, refitted and recovered"
        )
        caption += " alike. Whiskers: 95% intervals, of accuracy over seeds and test examples against the baseline, of"
        caption += " speed over the rounds of the paired measurement. Dashed: the Pareto front."
        section.picture("equal_budget", budget_pictures.against_speed(points), caption)
    every = pd.concat([table_of(at, runs) for at in found], ignore_index=True)
    section.table("equal_budget_table", tables.at_budget_in_brief(every), every=every)
    section.say(
        "Speed-up is measured in turn with the baseline. Before training is the accuracy after cutting and refitting"
        " alone; total time is that of training, what came before it included. Parameters, memory and"
        " accuracy are means over seeds; sizes are each seed's where they differ."
    )
    if drawn:
        caption = "The same against what else is saved; less is to the right."
        section.picture("equal_budget_costs", budget_pictures.against_costs(points), caption)
    return [section]


def _fairness(found: Sequence[AtBudget], runs: pd.DataFrame) -> str:
    """Whether all rows were treated alike."""
    if all(at.changes.empty for at in found):
        return ""
    different = dict.fromkeys(text for at in found for text in differing(at, runs))
    if different:
        return f"The rows were not all treated alike: they differ in {'; '.join(different)}."
    return "All rows were treated alike: recovered for as many epochs, on as many texts, at the same learning rate."
