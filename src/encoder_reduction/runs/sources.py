"""The finished run that a plan builds on."""

from ..errors import UserError
from ..plan.sections import RunPlan
from ..tracking import store


def find_source(experiment_id: str, plan: RunPlan) -> str | None:
    """The finished run that a plan builds on, the best by validation accuracy; ``None`` if it needs none.

    A transfer starts from a reduction of its model and dimension (from the baseline where the dimension
    is ``none``), a distillation learns from the baseline. Runs count that used the same preset, checkpoint
    and source corpus; controls from random weights and distilled models do not.

    Raises:
        UserError: there is no such run yet.
    """
    if plan.stage != "transfer" and plan.distillation is None:
        return None
    baseline = plan.distillation is not None or plan.dim == "none"
    stage, dim = ("baseline", "none") if baseline else ("reduce", plan.dim)
    found = store.finished_runs(
        experiment_id, stage=stage, model=plan.model, preset=plan.preset, dim=dim,
        checkpoint=plan.checkpoint.name, corpus=plan.source_corpus,
    )  # fmt: skip
    found = store.without_controls(found)
    if found.empty:
        command = f"mlflow run . -e {stage} -P model={plan.model}" + (f" -P dim={dim}" if dim != "none" else "")
        raise UserError(
            f"No finished {stage} run of model={plan.model} dim={dim} preset={plan.preset} is in this experiment;"
            f" first: {command} -P preset={plan.preset}."
        )
    return str(found.loc[found["validation_accuracy"].idxmax(), "run_id"])
