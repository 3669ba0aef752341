"""The answer at equal budget in sentences: which dimension to cut, what it costs, and how sure that is."""

from collections.abc import Sequence

import pandas as pd

from ..plan.sections import MIXED, STRATEGIES, Budget
from .changes import THESE_RUNS
from .equal_budget import AtBudget, achieved, off_budget
from .significance import ALPHA
from .winners import Winner

_TIMES = {0.5: "twice", 0.33: "three times", 0.25: "four times", 0.2: "five times"}
_SEEDS = {1: "one seed", 2: "two seeds"}
_PARTS = {0.5: "half", 0.33: "a third", 0.25: "a quarter", 0.2: "a fifth"}
# What a sentence calls what is cut.
_CALLED = {
    "heads": "attention heads",
    "hidden": "the hidden size",
    "layers": "layers",
    "intermediate": "the feed-forward width",
    MIXED: "all dimensions a little (mixed)",
}


def in_one_sentence(found: Sequence[AtBudget]) -> str:
    """For whoever reads nothing else: what to cut and what matters most, at the first budget that is answered."""
    at = next((each for each in found if each.chosen), None)
    if at is None:
        return ""
    chosen = at.chosen
    if chosen.rivals.empty:
        return (
            f"**{goal(at.budget)}, only one cut is compared yet**: {called(chosen.dim)}, which {_costs(chosen.points)}."
        )
    if chosen.decided:
        said = f"**{goal(at.budget)}, cut {called(chosen.dim)}**: that {_costs(chosen.points)}."
    else:
        said = f"**{goal(at.budget)}, no cut is told apart as the best**: validation takes {called(chosen.dim)}, which"
        said += f" {_costs(chosen.points)} on test"
        said += f"; not told apart from it: {_listed(chosen.not_told_apart)}" if chosen.not_told_apart else ""
        said += f"; better on test: {_listed(chosen.better_on_test)}" if chosen.better_on_test else ""
        said += "."
    alone = chosen.gains[chosen.gains.index.isin(STRATEGIES)].sort_values()
    if len(alone) > 1 and alone.iloc[0] < 0:
        said += f" Of single dimensions, cutting {called(alone.index[0])} costs the most quality there:"
        said += f" {-alone.iloc[0]:.1f} points."
    return said if chosen.seeds > 2 else f"{said} That is of {_SEEDS[chosen.seeds]}: an observation, not a finding."


def answers(found: Sequence[AtBudget]) -> str:
    """One paragraph a budget."""
    return "\n\n".join(" ".join([*_about(at), *_beyond(at), *_off(at), *_verdict(at)]) for at in found)


def why_halves_differ(changes: pd.DataFrame) -> str:
    """Why the ranking of the plan's halves may be another: they do not save alike."""
    speeds = changes.groupby("Dimension", sort=False)["Speed-up"].mean()
    figures = ", ".join(f"{dim} {speed:.1f} times as fast" for dim, speed in speeds.items())
    return (
        f"The plan halves each dimension. Its halves do not save alike ({figures}), so what costs"
        " the most there is partly what was cut the most; and they were cut before they were fine-tuned, not after."
    )


def how_to_ask(preset: str) -> str:
    """What a store without an answer at equal budget is told."""
    return (
        f"What each dimension costs *at the same speed* these runs do not say; `mlflow run . -P preset={preset}"
        " -P budgets=latency:0.5` adds the runs that do."
    )


def goal(budget: str) -> str:
    """``To be twice as fast`` for ``latency:0.5``."""
    asked = Budget(budget=budget)
    part = _PARTS.get(asked.share, f"{asked.share:.0%}")
    if asked.quantity == "latency":
        return f"To be {_TIMES.get(asked.share, f'{1 / asked.share:.1f} times')} as fast"
    return f"To need {part} of the {asked.quantity.replace('flops', 'FLOPs')}"


def called(dim: str) -> str:
    """What a sentence calls one dimension or several."""
    return _CALLED.get(dim) or " and ".join(_CALLED[each] for each in dim.split("+"))


def _about(at: AtBudget) -> list[str]:
    """What is chosen with its figures, and what the others cost."""
    if at.changes.empty:
        return [f"{goal(at.budget)}: nothing that was cut to this budget is finished beside its baseline."]
    if at.chosen is None:
        there = ", ".join(at.changes["Dimension"].unique())
        return [
            f"{goal(at.budget)}: nothing is chosen, since no model has runs that met it with predictions of the same"
            f" validation and test texts and seeds (finished: {there})."
        ]
    chosen, (low, high) = at.chosen, at.chosen.interval
    own = at.changes["Dimension"].eq(chosen.dim) & at.changes["Model"].isin(chosen.models)
    accounted = "" if chosen.rivals.empty else ", which accounts for its having been chosen"
    said = f"{goal(at.budget)}, {'cut' if chosen.decided else 'validation takes'} {called(chosen.dim)}:"
    said += f" {chosen.points:+.1f} points (95% {low:+.1f} to {high:+.1f}{accounted}), measured"
    said += f" {at.changes.loc[own, 'Speed-up'].mean():.2f} times as fast, over {_models(at)}."
    others = chosen.gains.drop(chosen.dim).sort_values(ascending=False)
    costs = "; ".join(f"cutting {called(dim)} {_costs(points, '')}" for dim, points in others.items())
    return [said, f"Of the others, {costs}."] if costs else [said]


def _models(at: AtBudget) -> str:
    """The models that the choice is an average over, and those that lack a dimension."""
    others = [model for model in dict.fromkeys(at.changes["Model"]) if model not in at.chosen.models]
    named = ", ".join(at.chosen.models)
    return f"{named} (not {', '.join(others)}, where a dimension is missing)" if others else named


def _beyond(at: AtBudget) -> list[str]:
    """Which dimensions cannot, with how far they go."""
    models = {*at.beyond["checkpoint"], *at.changes["Model"]}
    said = []
    for dim, own in at.beyond.groupby("dim", sort=False):
        alone = f"{called(dim)} alone" if "+" not in dim and dim != MIXED else called(dim)
        where = "" if set(own["checkpoint"]) == models else f" for {', '.join(own['checkpoint'])}"
        least = " to ".join(dict.fromkeys(f"{value:.0%}" for value in (own["least"].min(), own["least"].max())))
        said.append(f"cutting {alone} cannot{where} ({least} of the {at.quantity} stays at the least)")
    text = "; ".join(said)
    return [f"{text[:1].upper()}{text[1:]}."] if text else []


def _off(at: AtBudget) -> list[str]:
    """Which rows are no equals."""
    rows, metric = at.rows[off_budget(at.rows)].to_dict("records"), achieved(Budget(budget=at.budget))
    names = ", ".join(f"{row['checkpoint']} {row['dim']} ({row[metric]:.2f})" for row in rows)
    return [f"Left out of the choice, more than a tenth above the budget: {names}."] if names else []


def _verdict(at: AtBudget) -> list[str]:
    """Whether the first is told apart from the second, and from whom it is not."""
    if at.chosen is None or at.chosen.rivals.empty:
        return []
    chosen, second = at.chosen, at.chosen.rivals.iloc[0]
    lines = [_against_the_next(chosen)]
    unclear = [dim for dim in chosen.not_told_apart if dim != second["Dimension"]]
    better = [dim for dim in chosen.better_on_test if dim != second["Dimension"]]
    if unclear:
        also = "Nor is it" if second["Dimension"] in chosen.not_told_apart else "It is not"
        lines.append(f"{also} told apart from {_listed(unclear)}.")
    behind = [dim for dim in chosen.told_apart if dim != second["Dimension"]]
    if behind:
        lines.append(f"It is ahead of {_listed(behind)} beyond noise.")
    if better:
        lines.append(f"On test it is behind {_listed(better)}, beyond noise.")
    drawn = "texts" if chosen.seeds == 1 else "seeds and texts"
    lines.append(f"Were {drawn} drawn again, it would be chosen {chosen.again:.0%} of the time.")
    return lines if chosen.seeds > 2 else [*lines, "With fewer than three seeds this is an observation, not a finding."]


def _against_the_next(chosen: Winner) -> str:
    second = chosen.rivals.iloc[0]
    p = "p < 0.001" if second["p (Holm)"] < 0.001 else f"p = {second['p (Holm)']:.3f}"
    held = f"({p}{' after Holm' if len(chosen.rivals) > 1 else ''}, {chosen.test})"
    between = f"he difference of {second['Ahead (points)']:+.1f} points to the next best on validation,"
    between += f" {called(second['Dimension'])}, is"
    runs = f" {THESE_RUNS}" if chosen.seeds == 1 else ""
    if second["p (Holm)"] >= ALPHA:
        return f"Undecided: t{between} within noise {held}."
    if second["Ahead (points)"] < 0:
        return f"Undecided, since validation and test disagree: t{between} beyond noise{runs} {held}."
    return f"T{between} beyond noise{runs} {held}."


def _listed(dims: Sequence[str]) -> str:
    """``a, b, c``; semicolons where a name has an and of its own."""
    names = [called(dim) for dim in dims]
    return ("; " if any(" and " in name for name in names) else ", ").join(names)


def _costs(points: float, of: str = " of accuracy") -> str:
    """``loses 0.5 points of accuracy``."""
    if abs(points) < 0.05:
        return f"loses nothing{of}"
    return f"{'loses' if points < 0 else 'gains'} {abs(points):.1f} points{of}"
