"""The finished run that a plan builds on."""

import pandas as pd

from ..errors import UserError
from ..plan.sections import RunPlan
from ..tracking import matching, store


def find_source(experiment_id: str, plan: RunPlan) -> str | None:
    """The finished run that a plan builds on; ``None`` if it needs none.

    A transfer starts from a reduction of its model and dimension, whatever that was cut from (from the baseline where
    the dimension is ``none``); a distillation learns from the baseline, and a recovery is cut from it. Runs count that
    did what the plan says of them, or a variant of it. The configuration is chosen by its validation accuracy over all
    seeds, and of it the run of the plan's own seed is taken: runs of several seeds then start from models of several
    seeds.

    Raises:
        UserError: there is no such run yet.
    """
    if not plan.builds_on:
        return None
    wanted = plan.builds_on[0]
    found = store.finished_runs(
        experiment_id, stage=wanted.stage, model=wanted.model, preset=wanted.preset, dim=wanted.dim
    )
    found = found[matching.of_input(found, wanted.checkpoint) & matching.of_input(found, wanted.corpus)]
    for planned in plan.builds_on:
        ways = [planned]
        if plan.recovery:
            ways.append(planned.model_copy(update={"start": "baseline", "distillation": plan.recovery}))
        own = found[[not departure for departure in matching.departures(found, ways)]]
        if not own.empty and (source := _of_seed(own, plan.seed)):
            return source
    dim = f" -P dim={wanted.dim}" if wanted.dim != "none" else ""
    command = f"mlflow run . -e {wanted.stage} -P model={wanted.model}{dim} -P preset={wanted.preset}"
    raise UserError(
        f"No finished {wanted.stage} run of model={wanted.model} dim={wanted.dim} preset={wanted.preset}"
        f" seed={plan.seed} that did what the preset says is in this experiment; first: {command} -P seed={plan.seed}."
    )


def _of_seed(own: pd.DataFrame, seed: int) -> str | None:
    """Of the best configuration, the latest run of a seed.

    Configurations count that have as many seeds as any other: one lucky seed is not held against three.
    """
    latest = own.sort_values("start_time", ascending=False).drop_duplicates(["plan_fingerprint", "seed"])
    scores = latest.groupby("plan_fingerprint")["validation_accuracy"].agg(["mean", "size"])
    best = scores.loc[scores["size"].eq(scores["size"].max()), "mean"].idxmax()
    chosen = latest[latest["plan_fingerprint"].eq(best) & latest["seed"].eq(str(seed))]
    return None if chosen.empty else str(chosen.iloc[0]["run_id"])
