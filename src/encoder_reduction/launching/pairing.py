"""Which finished runs are measured in turn."""

from ..comparison import selection
from ..errors import UserError
from ..plan.presets import Preset
from ..tracking import store


def runs_to_pair(experiment_id: str, preset: Preset, model: str) -> list[str]:
    """Run ids of a model's baseline and of the best configuration of each dimension, the baseline first.

    Raises:
        UserError: the baseline or every reduction is missing.
    """
    finished = store.finished_runs(experiment_id, preset=preset.name, model=model)
    found, _ = selection.split_stages(selection.configurations(selection.latest_runs(finished, preset)[0]))
    source = selection.best(found, "accuracy")
    if "none" not in set(source["dim"]) or len(source) < 2:
        raise UserError(
            f"Paired profiling of model={model} needs its baseline and at least one finished reduction; in this"
            f" experiment there is only: {', '.join(source['config'])}."
        )
    return [next(iter(ids.values())) for ids in source["run_ids"]]
