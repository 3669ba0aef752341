"""What a run says before it does anything, and whether it need be done at all."""

import os
from typing import Any

from ..data import inputs
from ..errors import UserError
from ..plan.sections import RunPlan
from ..profiling.machine import device_name
from ..tracking import fingerprints, store
from ..tracking.run import Run
from ..training.recorder import CURVES

SKIP_FINISHED = "ENCODER_REDUCTION_SKIP_FINISHED"


def finished_instead(run: Run, plan: RunPlan, source_run: str | None) -> dict[str, Any] | None:
    """The finished run of the same fingerprint, where the environment asks not to repeat one.

    Jobs of a study that wait in a queue do, since another may have done their work by the time they start.
    """
    if not os.environ.get(SKIP_FINISHED):
        return None
    found = store.finished_runs(run.experiment_id, fingerprint=fingerprints.of_plan(plan, source_run))
    if found.empty:
        return None
    first = found.iloc[0]
    run.describe(f"{first['name']} (finished before)", {"stage": "skipped", "finished_run": first["run_id"]}, {})
    return dict(first)


def begin(run: Run, plan: RunPlan, source_run: str | None) -> None:
    """Say what the run is before anything else, so that it is known whatever becomes of it.

    Raises:
        UserError: the run is to go on, and was begun with another plan, code, libraries or device.
    """
    fingerprint = fingerprints.of_plan(plan, source_run)
    taken = {"checkpoint": plan.checkpoint, "corpus": plan.corpus}
    revisions = {f"{what}_revision": inputs.revision(each) for what, each in taken.items()}
    if "fingerprint" in run.tags:
        if run.tags["fingerprint"] != fingerprint:
            raise UserError(
                f"Run {run.run_id} cannot go on: it was begun with other parameters, code, libraries or on another"
                " device; start it anew, without --run-id."
            )
        run.go_on_after(CURVES)
    run.tag(
        {
            "stage": plan.stage,
            "preset": plan.preset,
            "model": plan.model,
            "checkpoint": plan.checkpoint.name,
            "corpus": plan.corpus.name,
            **{f"{what}_source": each.source for what, each in taken.items()},
            **{tag: revision for tag, revision in revisions.items() if revision},
            "dim": plan.dim,
            "seed": plan.seed,
            "start": store.tags_of(source_run).get("start", "pretrained") if plan.stage == "transfer" else plan.start,
            **({"budget": plan.budget.budget} if plan.budget else {}),
            "distill": plan.distillation.distill if plan.distillation else "none",
            "device": device_name(),
            "fingerprint": fingerprint,
            "plan_fingerprint": fingerprints.of_configuration(plan),
            "code_fingerprint": fingerprints.of_code(),
            **({"source_run": source_run} if source_run else {}),
        }
    )
