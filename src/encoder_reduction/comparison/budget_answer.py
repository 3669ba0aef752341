"""The answer at equal budget in sentences: which dimension to cut, what it costs, and how sure that is."""

from collections.abc import Sequence

import pandas as pd

from ..plan.sections import MIXED, STRATEGIES
from .changes import POINTS, THESE_RUNS
from .equal_budget import AtBudget
from .significance import ALPHA, MCNEMAR

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
    if chosen.decided:
        said = f"**{goal(at.budget)}, cut {called(chosen.dim)}**: that loses {_lost(chosen.points)} of accuracy."
    else:
        others = _listed([called(dim) for dim in chosen.not_told_apart])
        said = f"**{goal(at.budget)}, no cut is told apart as the best**: validation takes {called(chosen.dim)}, which"
        said += f" loses {_lost(chosen.points)} of accuracy on test; not told apart from it: {others}."
    costs = _costs(at)
    alone = costs[costs.index.isin(STRATEGIES)]
    if len(alone) > 1:
        said += f" Of single dimensions, cutting {called(alone.index[0])} costs the most quality there:"
        said += f" {_lost(alone.iloc[0])}."
    return said if chosen.seeds > 2 else f"{said} That is of {_SEEDS[chosen.seeds]}: an observation, not a finding."


def answers(found: Sequence[AtBudget]) -> str:
    """One paragraph a budget."""
    return "\n\n".join(_paragraph(at) for at in found)


def why_halves_differ(changes: pd.DataFrame) -> str:
    """Why the ranking of the plan's halves may be another: they do not save alike."""
    speeds = changes.groupby("Dimension", sort=False)["Speed-up"].mean()
    if len(speeds) < 2:
        return ""
    figures = ", ".join(f"{dim} {speed:.1f} times as fast" for dim, speed in speeds.items())
    return (
        f"The plan halves each dimension. Its halves do not save alike ({figures}), so what costs"
        " the most there is partly what was cut the most; and they were cut before they were fine-tuned, not after."
    )


def how_to_ask(preset: str) -> str:
    """What a store without such runs is told."""
    return (
        f"What each dimension costs *at the same speed* these runs do not say; `mlflow run . -P preset={preset}"
        " -P budgets=latency:0.5` adds the runs that do."
    )


def goal(budget: str) -> str:
    """``To be twice as fast`` for ``latency:0.5``."""
    quantity, _, share = budget.partition(":")
    part = _PARTS.get(float(share), f"{float(share):.0%}")
    if quantity == "latency":
        return f"To be {_TIMES.get(float(share), f'{1 / float(share):.1f} times')} as fast"
    return f"To need {part} of the {'FLOPs' if quantity == 'flops' else quantity}"


def called(dim: str) -> str:
    """What a sentence calls one dimension or several."""
    return _CALLED.get(dim) or " and ".join(_CALLED[each] for each in dim.split("+"))


def _paragraph(at: AtBudget) -> str:
    if at.chosen is None:
        there = ", ".join(at.changes["Dimension"].unique()) or "none"
        lines = [
            f"{goal(at.budget)}: the runs share no predictions of validation and test texts, so nothing is chosen"
            f" (finished: {there})."
        ]
        return " ".join([*lines, *_beyond(at)])
    low, high = at.chosen.interval
    speed = at.changes.loc[at.changes["Dimension"].eq(at.chosen.dim), "Speed-up"].mean()
    lines = [
        f"{goal(at.budget)}, cut {called(at.chosen.dim)}: {at.chosen.points:+.1f} points (95% {low:+.1f} to"
        f" {high:+.1f}, which accounts for its having been chosen), measured {speed:.2f} times as fast.",
        *_others(at),
        *_beyond(at),
        *_verdict(at),
    ]
    if at.chosen.seeds < 3:
        lines.append("With fewer than three seeds this is an observation, not a finding.")
    return " ".join(lines)


def _costs(at: AtBudget) -> pd.Series:
    """What each dimension gains in points, averaged over the models; what costs the most comes first."""
    compared = [at.chosen.dim, *at.chosen.rivals["Dimension"]]
    own = at.changes[at.changes["Dimension"].isin(compared)]
    return own.groupby("Dimension", sort=False)[POINTS].mean().sort_values()


def _others(at: AtBudget) -> list[str]:
    costs = _costs(at).drop(at.chosen.dim)[::-1]
    said = [f"cutting {called(dim)} loses {_lost(points)}" for dim, points in costs.items()]
    return [f"Of the others, {'; '.join(said)}."] if len(costs) else []


def _beyond(at: AtBudget) -> list[str]:
    """Which dimensions cannot, with how far they go."""
    quantity = {"latency": "time"}.get(at.quantity, at.quantity)
    said = []
    for dim, own in at.beyond.groupby("dim", sort=False):
        alone = f"{called(dim)} alone" if "+" not in dim and dim != MIXED else called(dim)
        least = " to ".join(dict.fromkeys(f"{value:.0%}" for value in (own["least"].min(), own["least"].max())))
        said.append(f"cutting {alone} cannot ({least} of the {quantity} stays at the least)")
    text = "; ".join(said)
    return [f"{text[:1].upper()}{text[1:]}."] if text else []


def _verdict(at: AtBudget) -> list[str]:
    """Whether the first is told apart from the second, and from whom it is not."""
    if at.chosen.rivals.empty:
        return []
    second = at.chosen.rivals.iloc[0]
    runs = f" {THESE_RUNS}" if at.chosen.seeds == 1 else ""
    p = "p < 0.001" if second["p (Holm)"] < 0.001 else f"p = {second['p (Holm)']:.3f}"
    held = f"({p}{' after Holm' if len(at.chosen.rivals) > 1 else ''}, {at.chosen.test})"
    between = f"The difference of {second['Ahead (points)']:+.1f} points to the next best on validation,"
    between += f" {called(second['Dimension'])}, is"
    if at.chosen.decided:
        lines = [f"{between} beyond noise{runs} {held}."]
    elif second["p (Holm)"] < ALPHA:
        lines = [f"Undecided: validation and test disagree. {between} beyond noise{runs} {held}."]
    else:
        lines = [f"Undecided: {between[0].lower()}{between[1:]} within noise {held}."]
    others = [called(dim) for dim in at.chosen.not_told_apart if dim != second["Dimension"]]
    if others:
        lines.append(f"Nor is it told apart from {_listed(others)}.")
    drawn = "validation texts" if at.chosen.test == MCNEMAR or at.chosen.seeds == 1 else "seeds and texts"
    lines.append(f"Were {drawn} drawn again, it would be chosen {at.chosen.again:.0%} of the time.")
    return lines


def _listed(names: Sequence[str]) -> str:
    """``a, b, c``; semicolons where a name has an and of its own."""
    apart = "; " if any(" and " in name for name in names) else ", "
    return apart.join(names)


def _lost(points: float) -> str:
    amount = abs(points)
    if amount < 0.05:
        return "nothing"
    return f"{amount:.1f} points" if points < 0 else f"nothing (it gains {amount:.1f} points)"
