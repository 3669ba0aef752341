"""The whole way to a smaller model: the baseline if it is missing, the search, the cut, the recovery, the registry."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..comparison.significance import difference
from ..errors import UserError
from ..plan.presets import Preset
from ..plan.sections import MIXED, RunPlan
from ..runs.sources import find_source
from ..tracking import fingerprints, registry, store
from ..tracking.logged_models import EXAMPLE
from ..tracking.opening import open_run, settle
from .local import Launcher, Say

DEFAULT_BUDGET = "latency:0.5"


def plan_of(preset: Preset, model: str, dim: str | None, given: Mapping[str, Any]) -> RunPlan:
    """The plan of the reduced network: cut from what is trained, and recovered as the preset has it.

    Args:
        preset: the plan's numbers.
        model: ``bert``, ``roberta`` or ``distilbert``.
        dim: what may be cut; all by default.
        given: values instead of the preset's; without a budget it is half of the time.

    Raises:
        UserError: a value is out of range, or what is to be cut is not trained.
    """
    own = {key: value for key, value in given.items() if value is not None}
    recovery = preset.recovery.model_dump(exclude_none=True) if preset.recovery and float(own.get("epochs", 1)) else {}
    plan = preset.plan(
        "reduce", model, dim or MIXED, {"start": "baseline", "budget": DEFAULT_BUDGET, **recovery, **own}
    )
    if plan.start == "pretrained":
        raise UserError("start=pretrained is not trained yet: leave start out, give start=checkpoint, or use reduce.")
    return plan


def compress(plan: RunPlan, rerun: bool, say: Say) -> str:
    """Carry out a plan and what it builds on, register the model, and say in three lines what it is.

    Args:
        plan: as :func:`plan_of` gives it.
        rerun: repeat the reduction if it is finished; a finished baseline is never repeated.
        say: takes lines of progress.

    Raises:
        UserError: the budget is out of reach, or whatever else a run says.
    """
    settle()
    with open_run() as run:
        tags = {"stage": "compress", "preset": plan.preset, "model": plan.model, "dim": plan.dim}
        run.describe(f"{plan.model}/compress/{_alias(plan)}", tags, plan.budget.model_dump(exclude_none=True))
        launcher = Launcher(run, 1 + bool(plan.builds_on), rerun, say)
        if plan.builds_on:
            launcher.launch_source(plan)
            launcher.raise_failures()
        launcher.launch([plan])
        launcher.raise_failures()
        if launcher.out_of_reach:
            raise UserError(launcher.out_of_reach[0].reason)
        source_run = find_source(run.experiment_id, plan)
        found = store.finished_runs(run.experiment_id, fingerprint=fingerprints.of_plan(plan, source_run)).iloc[0]
        said = [_gained(found), _lost(found)]
        against = {"baseline_accuracy": found["whole_accuracy"], "speed_up": found["speed_ratio"]}
        card = registry.card(said, found, run.experiment_id, against)
        uri = registry.register_model(plan.model, _alias(plan), found["run_id"], card)
        if uri is None:
            raise UserError(f"The model of run {found['run_id']} is not in the store any more: give rerun=true.")
        run.metrics({name: found[name] for name in ("speed_ratio", "accuracy", "whole_accuracy", "parameters_share")})
        text = "\n".join([*said, _how_to_load(uri)])
        run.text(text, "summary.txt")
    return text


def _gained(found: pd.Series) -> str:
    return (
        f"{found['name']}: {found['speed_ratio']:.2f} times as fast as the network that was cut (95%"
        f" {found['speed_ratio_low']:.2f} to {found['speed_ratio_high']:.2f}, measured in turn), with"
        f" {found['parameters_share']:.0%} of its parameters; budget met: {found['budget_met']}"
    )


def _lost(found: pd.Series) -> str:
    run_id = found["run_id"]
    whole = store.predictions_of([run_id], store.WHOLE_PREDICTIONS_FILE)[run_id]
    lost = difference([whole], [store.predictions_of([run_id])[run_id]])
    low, high = lost.accuracy.interval
    noise = "within noise" if low <= 0 <= high else "beyond noise of the test texts"
    return (
        f"test accuracy {found['accuracy']:.3f}, before {found['whole_accuracy']:.3f}: {lost.accuracy.mean:+.1f}"
        f" points (95% {low:+.1f} to {high:+.1f}, {noise}; one seed)"
    )


def _how_to_load(uri: str) -> str:
    return (
        f'mlflow.pyfunc.load_model("{uri}").predict(["{EXAMPLE}"]), or a folder of Hugging Face:'
        f" mlflow artifacts download -u {uri} -d smaller"
    )


def _alias(plan: RunPlan) -> str:
    """What the registry calls the model."""
    others = [plan.dim] if plan.dim != MIXED else []
    others += [plan.checkpoint.name] if plan.start == "checkpoint" else []
    return registry.alias_of(plan.budget.name, *others)
