"""Which finished runs are measured in turn."""

from ..comparison import selection
from ..errors import UserError
from ..plan.study import Study
from ..tracking import store


def runs_to_pair(experiment_id: str, study: Study, model: str) -> list[str]:
    """Run ids of a model's baseline and of the best configuration of each dimension, the baseline first.

    Raises:
        UserError: the baseline or every reduction is missing.
    """
    finished = store.finished_runs(experiment_id, preset=study.preset.name, model=model)
    planned = selection.latest_runs(finished, study).planned
    planned = planned[planned["stage"].ne("transfer") & planned["start"].eq("pretrained")]
    if "none" not in set(planned["dim"]) or planned["dim"].nunique() < 2:
        raise UserError(
            f"Paired profiling of model={model} needs its baseline and at least one finished reduction; of the plan"
            f" there is in this experiment only: {', '.join(sorted(set(planned['config']))) or 'nothing'}."
        )
    source = selection.best(selection.configurations(planned), "accuracy")
    return [next(iter(ids.values())) for ids in source["run_ids"]]
