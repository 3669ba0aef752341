"""Which runs a study consists of."""

from dataclasses import dataclass, field

from .equal_budgets import EqualBudgets
from .presets import Preset
from .sections import DIMENSIONS, MIXED, RunPlan


@dataclass(frozen=True)
class Study:
    """A preset with the values given instead of its own, and the seeds.

    Attributes:
        preset: the plan.
        overrides: values by field name, for every run.
        seeds: each run is repeated with each.
        budgets: what is compared at equal budget; as the preset has it by default.
    """

    preset: Preset
    overrides: dict[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    budgets: EqualBudgets | None = None

    def trainings(self) -> list[RunPlan]:
        """Every run that trains, in the order in which they build on each other."""
        return [*self.first(), *self.recoveries(), *self.at_equal_budget(), *self.transfers()]

    def first(self) -> list[RunPlan]:
        """Baselines and reductions."""
        return [
            self.preset.plan(stage, model, dim, values)
            for values in self._settings()
            for model in self.preset.models
            for stage, dim in [("baseline", None), *(("reduce", dim) for dim in DIMENSIONS)]
        ]

    def recoveries(self) -> list[RunPlan]:
        """The reductions of :meth:`first`, cut from its baselines; none where the preset has no ``recovery``."""
        if self.preset.recovery is None:
            return []
        recovery = {"start": "baseline", **self.preset.recovery.model_dump()}
        return [
            self.preset.plan("reduce", model, dim, {**values, **recovery})
            for values in self._settings()
            for model in self.preset.models
            for dim in DIMENSIONS
        ]

    @property
    def equal_budgets(self) -> EqualBudgets:
        """What is compared at equal budget: the study's own, or as the preset has it."""
        return self.budgets or self.preset.equal_budgets

    def at_equal_budget(self, budgets: EqualBudgets | None = None) -> list[RunPlan]:
        """The baselines of :meth:`first`, cut to the same budgets and recovered alike.

        Args:
            budgets: these instead of the study's.
        """
        equal = budgets or self.equal_budgets
        recovery = self.preset.recovery.model_dump() if self.preset.recovery else {}
        alike = {"start": "baseline", **recovery, **equal.searching}
        return [
            self.preset.plan("reduce", model, dim, {**values, **alike, "budget": budget})
            for values in self._settings()
            for model in self.preset.models
            if model in equal.budget_models
            for budget in equal.budgets
            for dim in equal.budget_dims
            if not self._only_regrouped(dim)
        ]

    def _only_regrouped(self, dim: str) -> bool:
        """Whether heads would be regrouped, which saves nothing and so meets no budget."""
        heads = self.preset.reductions.get("heads")
        return heads is not None and heads.strategy == "regroup" and (dim == MIXED or "heads" in dim.split("+"))

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
        """Paired measurements, one for each model; no matter of seeds."""
        return [self.preset.plan("baseline", model, overrides=self.overrides) for model in self.preset.models]

    def _settings(self) -> list[dict[str, object]]:
        return [{**self.overrides, "seed": seed} for seed in self.seeds or self.preset.seeds]
