"""Which of the runs that were made are those that a plan asks for, by what they say of themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from ..data import hub, inputs
from ..plan.sections import Checkpoint, Corpus, RunPlan

# What the run had, and what the plan says, by field.
Departure = dict[str, tuple[object, object]]

# Fields that the plan left to the checkpoint, by a comma; the run says under their own names what that came to.
LEFT_TO_CHECKPOINT = "left_to_checkpoint"

_SIZE = {"keep", "size", "budget"}
# What a budget decides.
_DECIDED = ("keep", "size", "spread")
# Of a single dimension nothing is searched.
_SEARCH = ("search_candidates", "search_examples")


def departures(found: pd.DataFrame, plans: Iterable[RunPlan]) -> pd.Series:
    """How each run departs from the plan of its stage, model and dimension; an empty :data:`Departure` if it does not.

    A run may differ in its seed, in how it was profiled, and in the plan's ``variants``. A size that was given counts
    as the plan's share if runs of that share came to it. What a run does not say (it was made before there was such a
    field) is taken as the field's default.

    Args:
        found: runs, as :func:`.store.finished_runs` gives them.
        plans: those that are asked for; of several seeds one is enough.
    """
    by_kind = {(plan.stage, plan.model, plan.dim, plan.start, _budget_of(plan)): plan for plan in plans}
    result = pd.Series(
        [_departure(row, _asked_for(row, by_kind)) for row in found.to_dict("records")],
        index=found.index,
        dtype=object,
    )
    if result.empty:
        return result
    sizes = found["stage"] + " " + found["model"] + " " + found["config"]
    planned = set(sizes[~result.map(bool)])
    # The configuration of a budget is called by the budget, which spells no size.
    spelled = result.map(lambda departure: set(departure) <= _SIZE - {"budget"}) & sizes.isin(planned)
    return result.mask(spelled, other=pd.Series([{}] * len(result), index=result.index))


def of_input(found: pd.DataFrame, wanted: Checkpoint | Corpus) -> pd.Series:
    """Which runs had a checkpoint or corpus: its contents, wherever they lay, or its source where these are not known.

    Runs that were made before they said so are known by its name.
    """
    what = type(wanted).__name__.lower()
    name, source, revision = (
        found[tag] if tag in found else pd.Series(None, found.index, dtype=object)
        for tag in (what, f"{what}_source", f"{what}_revision")
    )
    here = inputs.revision(wanted)
    own = source.eq(wanted.source)
    if here is not None:
        own = revision.eq(here) & (own | here.startswith(hub.LOCAL))
    return own.where(source.notna(), name.eq(wanted.name))


def only_in_size(departure: Departure) -> bool:
    """Whether a run is the plan's but for how much of the dimension stays."""
    return bool(departure) and set(departure) <= _SIZE


def in_words(departure: Departure) -> str:
    """``epochs=10 instead of 3, init=random instead of pretrained``."""
    return ", ".join(
        f"{field}={had}" + (f" instead of {wanted}" if wanted is not None else "")
        for field, (had, wanted) in departure.items()
    )


def _asked_for(row: Mapping[str, Any], by_kind: Mapping[tuple[str, ...], RunPlan]) -> RunPlan | None:
    """The plan that a run is held against: of its budget and of what it cut, as far as there is one."""
    kind = tuple(row.get(name) for name in ("stage", "model", "dim"))
    start = "pretrained" if row.get("stage") == "transfer" or _absent(row.get("start")) else row["start"]
    budget = None if _absent(row.get("budget")) else row["budget"]
    ways = ((start, budget), (start, None), ("pretrained", None))
    return next((plan for way in ways if (plan := by_kind.get((*kind, *way)))), None)


def _budget_of(plan: RunPlan) -> str | None:
    return plan.budget.budget if plan.budget else None


def _departure(row: Mapping[str, Any], plan: RunPlan | None) -> Departure:
    if plan is None:
        return {"dim": (row.get("dim"), None)}
    found: Departure = {}
    left = str(row.get(LEFT_TO_CHECKPOINT)).split(",")
    free = {*plan.variants, *(_DECIDED if plan.budget else ()), *(_SEARCH if len(plan.reductions) == 1 else ())}
    for prefix, section in _sections(plan):
        for field, wanted in section:
            had = row.get(prefix + field)
            if _absent(had) or (wanted is None and field in left):
                info = type(section).model_fields[field]
                had = wanted if info.is_required() else info.default
            if field not in free and not _same(had, wanted):
                found[prefix + field] = (had, wanted)
    if plan.stage == "transfer":  # Its start is its source's.
        return found
    how = {"start": plan.start, "distill": plan.distillation.distill if plan.distillation else "none"}
    how["budget"] = _budget_of(plan)
    for field, wanted in how.items():
        had = row.get(field)
        if not _absent(had) and not _same(had, wanted):
            found[field] = (had, wanted)
    return found


def _sections(plan: RunPlan) -> list[tuple[str, BaseModel]]:
    """What determines a trained network, each section with what stands before its fields' names in MLflow."""
    if plan.stage != "reduce":
        return [("", plan.fine_tuning)]
    several = len(plan.reductions) > 1
    others = [("", section) for section in (plan.distillation, plan.budget) if section]
    return [
        ("", plan.fine_tuning),
        *others,
        *((f"{dim}." if several else "", each) for dim, each in plan.reductions.items()),
    ]


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and pd.isna(value))


def _same(had: object, wanted: object) -> bool:
    """Whether both mean the same value; what ``mlflow run`` logged is the text that was typed, as ``2e-5``."""
    try:
        return float(had) == float(wanted)
    except (TypeError, ValueError):
        return str(had).lower() == str(wanted).lower()
