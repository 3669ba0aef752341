"""Which models a study leaves in the store once the comparison has chosen."""

import dataclasses
from contextlib import suppress

from ..comparison import Choice
from ..errors import UserError
from ..plan.study import Study
from ..runs.sources import find_source
from ..tracking import store
from ..tracking.logged_models import remove_models
from ..tracking.registry import registered_runs
from . import progress
from .pairing import runs_to_pair


def keep_best(study: Study, experiment_id: str, choice: Choice) -> str:
    """Remove the models of reductions, adapted ones included, that were not chosen and that nobody needs any more.

    Baselines stay, since distillations learn from them; so do registered models, and those that a transfer or paired
    measurement of the study that is not done yet takes.

    Args:
        study: whose runs; those of all seeds that there are where it names none.
        experiment_id: where they are.
        choice: what the comparison took.

    Returns:
        What was removed.

    Raises:
        UserError: the store does not let them be removed.
    """
    found = store.finished_runs(experiment_id, **{**choice.tags, "preset": study.preset.name})
    study = dataclasses.replace(study, seeds=study.seeds or tuple(sorted(set(found["seed"].dropna().astype(int)))))
    found = found[found["stage"].isin(["reduce", "transfer"]) & found["dim"].ne("none")]
    found = found[found["seed"].isin([str(seed) for seed in study.seeds])]
    if choice.device:
        found = found[found["device"].eq(choice.device)]
    kept = registered_runs() | _still_needed(study, experiment_id)
    freed = [remove_models(run_id, "keep_models=best") for run_id in found["run_id"] if run_id not in kept]
    removed = sum(megabytes > 0 for megabytes in freed)
    return f"keep_models=best removed the models of {removed} reductions that were not chosen: {sum(freed):,.0f} MB."


def _still_needed(study: Study, experiment_id: str) -> set[str]:
    done = {each.run for each in progress.of_study(study, experiment_id) if each.state == progress.DONE}
    needed = set()
    for plan in study.transfers():
        with suppress(UserError):  # It has no source yet.
            needed |= {find_source(experiment_id, plan)} if plan.label not in done else set()
    for plan in study.profiles():
        with suppress(UserError):
            paired = runs_to_pair(experiment_id, study, plan.model)
            needed |= set(paired) if progress.profile_label(plan) not in done else set()
    return needed - {None}
