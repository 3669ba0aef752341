"""Which finished runs are measured in turn."""

from ..comparison import selection
from ..errors import UserError
from ..plan.study import Study
from ..tracking import store
from ..tracking.logged_models import REMOVED


def runs_to_pair(experiment_id: str, study: Study, model: str) -> list[str]:
    """Run ids of a model's baseline, of the best configuration of each dimension, and of each at each budget.

    The baseline comes first.

    Raises:
        UserError: the baseline or every reduction is missing.
    """
    finished = store.finished_runs(experiment_id, preset=study.preset.name, model=model)
    planned = selection.latest_runs(finished, study).planned
    planned = planned[planned["stage"].ne("transfer")]
    if REMOVED in planned:  # keep_models=best: what was measured before stays measured.
        planned = planned[planned[REMOVED].isna()]
    at_budgets = planned[planned["budget"].ne("")]
    planned = planned[planned["start"].eq("pretrained") & planned["budget"].eq("")]
    if "none" not in set(planned["dim"]) or planned["dim"].nunique() < 2:
        raise UserError(
            f"Paired profiling of model={model} needs its baseline and at least one finished reduction; of the plan"
            f" there is in this experiment only: {', '.join(sorted(set(planned['config']))) or 'nothing'}."
        )
    rows = [selection.best(selection.configurations(planned), "accuracy")]
    if len(at_budgets):
        rows.append(selection.best(selection.configurations(at_budgets), "accuracy", ("model", "dim", "budget")))
    return [next(iter(ids.values())) for own in rows for ids in own["run_ids"]]
