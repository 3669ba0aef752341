"""A whole study on this machine, and the transfers of one model."""

from collections.abc import Sequence

from .. import comparison
from ..plan.sections import RunPlan
from ..plan.study import Study
from ..tracking.opening import open_run, settle
from .keeping import keep_best
from .local import Launcher, Say


def run_study(study: Study, rerun: bool, jobs: int, keep_models: str, say: Say) -> str:
    """Every run of a study, phase by phase, paired profiles, and the comparison.

    A run that fails does not stop the others; the comparison says what is missing.

    Returns:
        The report, as Markdown.

    Raises:
        UserError: some runs failed. The report is in the study's MLflow run all the same.
    """
    settle()
    phases = [study.first(), study.recoveries(), study.at_equal_budget(), study.transfers()]
    profiles, name = study.profiles(), study.preset.name
    with open_run() as run:
        run.describe(f"study/{name}", {"stage": "study", "preset": name}, {})
        launcher = Launcher(run, sum(map(len, phases)) + len(profiles), rerun, say, jobs)
        for plans in phases:
            launcher.launch(plans)
        launcher.launch_profiles(study, profiles)
        report = comparison.compare(study, run)
        if keep_models == "best":
            say(keep_best(study, run.experiment_id, comparison.Choice()))
        if launcher.failures:
            say(report)
            launcher.raise_failures()
    return report


def run_transfers(plans: Sequence[RunPlan], rerun: bool, say: Say) -> None:
    """Several transfers of one model, each in a run of its own under the one that is open.

    Raises:
        UserError: some runs failed.
    """
    with open_run() as run:
        run.describe(f"{plans[0].model}/transfer", {"stage": "transfers", "preset": plans[0].preset}, {})
        launcher = Launcher(run, len(plans), rerun, say)
        launcher.launch(plans)
        launcher.raise_failures()
