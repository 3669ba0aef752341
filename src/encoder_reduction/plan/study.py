"""The whole plan: which runs it consists of, and their way through this machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import comparison, tracking
from .launcher import Launcher, Say
from .presets import DIMENSIONS, Preset, RunPlan


@dataclass(frozen=True)
class Study:
    """A preset with the values given instead of its own, and the seeds.

    Attributes:
        preset: the plan.
        overrides: values by field name, for every run.
        seeds: each run is repeated with each.
    """

    preset: Preset
    overrides: dict[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def first(self) -> list[RunPlan]:
        """Baselines and reductions."""
        return [
            self.preset.plan(stage, model, dim, values)
            for values in self._settings()
            for model in self.preset.models
            for stage, dim in [("baseline", None), *(("reduce", dim) for dim in DIMENSIONS)]
        ]

    def transfers(self) -> list[RunPlan]:
        """Adaptations of the best of :meth:`first`."""
        return [
            plan
            for values in self._settings()
            for model in self.preset.models
            for dim in ("none", "all")
            for plan in self.preset.transfers(model, dim, values)
        ]

    def profiles(self) -> list[RunPlan]:
        """Paired measurements, one for each model."""
        settings = self._settings()[0]
        return [self.preset.plan("baseline", model, overrides=settings) for model in self.preset.models]

    def _settings(self) -> list[dict[str, object]]:
        return [{**self.overrides, "seed": seed} for seed in self.seeds or self.preset.seeds]


def run_study(study: Study, rerun: bool, jobs: int, say: Say) -> str:
    """Baselines, reductions, transfers of every model, dimension and seed, paired profiles, the comparison.

    A run that fails does not stop the others; the comparison says what is missing.

    Returns:
        The report, as Markdown.

    Raises:
        UserError: some runs failed. The report is in the study's MLflow run all the same.
    """
    tracking.settle()
    first, second, third = study.first(), study.transfers(), study.profiles()
    name = study.preset.name
    with tracking.open_run() as run:
        run.describe(f"study/{name}", {"stage": "study", "preset": name}, {})
        launcher = Launcher(run, len(first) + len(second) + len(third), rerun, say, jobs)
        launcher.launch(first)
        launcher.launch(second)
        launcher.launch_profiles(study.preset, third)
        report = comparison.compare(study.preset, run)
        if launcher.failures:
            say(report)
            launcher.raise_failures()
    return report


def run_transfers(plans: Sequence[RunPlan], rerun: bool, say: Say) -> None:
    """Several transfers of one model, each in a run of its own under the one that is open.

    Raises:
        UserError: some runs failed.
    """
    with tracking.open_run() as run:
        run.describe(f"{plans[0].model}/transfer", {"stage": "transfers", "preset": plans[0].preset}, {})
        launcher = Launcher(run, len(plans), rerun, say)
        launcher.launch(plans)
        launcher.raise_failures()
