"""A preset: the whole study as one YAML file, loaded and validated once; a run's plan is cut from it.

Every number of the study lives in ``presets/*.yaml``. A run may override any field of the sections
that concern it, by the field's own name (``-P learning_rate=3e-5``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, Field, model_validator

from ..errors import UserError
from . import rules
from .complaints import one_of, refuse_unknown, updated, validated
from .equal_budgets import EqualBudgets
from .fields import Seed
from .sections import (
    DIMENSIONS,
    MIXED,
    Beginning,
    Budget,
    Checkpoint,
    Corpus,
    Dimension,
    Distillation,
    FineTuning,
    Inputs,
    ModelKey,
    Profiling,
    Reduction,
    RunPlan,
    Section,
    Stage,
    Variant,
)

PRESETS = Path(__file__).resolve().parents[3] / "presets"


class Preset(Section):
    """A whole study."""

    name: str
    seeds: tuple[Seed, ...] = Field(min_length=1, description="seeds of the study")
    models: dict[ModelKey, Checkpoint]
    source: Corpus
    target: Corpus
    fine_tuning: FineTuning
    transfer: FineTuning
    reductions: dict[Dimension, Reduction]
    distillation: Distillation
    recovery: Distillation | None = Field(
        None,
        description="how each reduction learns when it is cut once more, from the finished baseline; no such runs when"
        " absent",
    )
    equal_budgets: EqualBudgets = Field(EqualBudgets(), description="what is compared at equal budget")
    profiling: Profiling
    variants: tuple[Variant, ...] = Field(
        ("strategy", "criterion", "correct"),
        description="fields of a reduction in which runs of one dimension may differ and still be variants of it, of"
        " which the best on validation is taken; with any other difference they are not part of the plan",
    )

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        """``transfer`` states only what differs from ``fine_tuning``."""
        if isinstance(values, dict) and isinstance(values.get("fine_tuning"), dict):
            values = {**values, "transfer": values["fine_tuning"] | (values.get("transfer") or {})}
        return values

    @model_validator(mode="after")
    def _legal_reductions(self) -> Self:
        for dim, reduction in self.reductions.items():
            rules.check_reduction(dim, reduction)
        return self

    def plan(
        self, stage: Stage, model: str, dim: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> RunPlan:
        """The plan of one run.

        Args:
            stage: what the run does.
            model: ``bert``, ``roberta`` or ``distilbert``.
            dim: one dimension, several joined by ``+``, or ``mixed``, which is all; none for a baseline.
            overrides: values by field name (``epochs``, ``keep``, ``seed``, ...); ``None`` means absent.

        Raises:
            UserError: unknown model or dimension, unknown key, value out of range.
        """
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        one_of("model", model, tuple(self.models))
        dims = self._dimensions(dim)
        sections: dict[str, type[BaseModel]] = {"inputs": Inputs, "fine_tuning": FineTuning, "profiling": Profiling}
        if dims and stage == "reduce":
            sections |= {"reduction": Reduction, "budget": Budget, "distillation": Distillation, "beginning": Beginning}
        refuse_unknown(given, {"seed", *(f for s in sections.values() for f in s.model_fields)})
        fine_tuning = self.transfer if stage == "transfer" else self.fine_tuning
        budget = rules.budget(given, dims)
        distillation, inputs = updated(self.distillation, given), updated(Inputs(), given)
        learns = stage == "reduce" and distillation.distill != "none"
        start = updated(Beginning(), given).start
        taught = distillation.teacher is not None or start == "checkpoint"  # by another than the baseline
        planned = self.reductions if start == "pretrained" else rules.refitted(self.reductions)
        reductions = {name: rules.reduction(name, planned[name], given, dims) for name in dims}
        fine_tuning = updated(fine_tuning, given)
        rules.check_batch_tokens(fine_tuning)
        rules.check_epochs(stage, fine_tuning.epochs, start, distillation)
        rules.check_weights(stage, start, distillation, reductions)
        corpus = inputs.corpus_instead(self.target if stage == "transfer" else self.source)
        return validated(
            RunPlan,
            stage=stage,
            model=model,
            preset=self.name,
            checkpoint=inputs.checkpoint_instead(self.models[model]),
            corpus=corpus,
            fine_tuning=fine_tuning,
            reductions=reductions,
            budget=budget,
            start=start,
            distillation=distillation if learns else None,
            profiling=updated(self.profiling, given),
            seed=given.get("seed", self.seeds[0]),
            builds_on=self._sources(stage, model, dim, given, start == "baseline" or (learns and not taught)),
            variants=self.variants,
            recovery=self.recovery if stage == "transfer" and dims else None,
        )

    def _dimensions(self, dim: str | None) -> list[Dimension]:
        """Those that are named, each once, in the preset's order; all of them where it is ``mixed``."""
        if dim == MIXED:
            return list(self.reductions)
        named = dim.split("+") if dim else []
        for name in named:
            one_of("dim", name, (*self.reductions, MIXED))
        return [name for name in self.reductions if name in named]

    def _sources(
        self, stage: Stage, model: str, dim: str | None, given: Mapping[str, Any], of_baseline: bool
    ) -> tuple[RunPlan, ...]:
        """What a run starts or learns from: done with the values that are given for it, or as the preset has it."""
        inputs = {"checkpoint", "checkpoint_revision"}
        if stage == "transfer":
            source, source_dim = ("reduce", dim) if dim else ("baseline", None)
        elif stage == "reduce" and of_baseline:
            source, source_dim, inputs = "baseline", None, set(Inputs.model_fields)
        else:
            return ()
        own = {"seed", *FineTuning.model_fields, *Profiling.model_fields, *inputs}
        if not float(given.get("epochs", 1)):
            own -= {"epochs"}  # The cut is not trained; what is cut was.
        alike = {key: value for key, value in given.items() if key in own}
        planned = {key: value for key, value in alike.items() if key in {"seed", *inputs}}
        plans = [self.plan(source, model, source_dim, values) for values in (alike, planned)]
        return tuple(plans[:1] if plans[0] == plans[1] else plans)

    def sources(self, overrides: Mapping[str, Any]) -> list[Checkpoint | Corpus]:
        """The checkpoint and corpus that the overrides name; all of the preset's where they name none.

        Raises:
            UserError: a value is out of range.
        """
        inputs = updated(Inputs(), {key: value for key, value in overrides.items() if value is not None})
        if inputs.checkpoint is None and inputs.corpus is None:
            return [*self.models.values(), self.source, self.target]
        named: list[Checkpoint | Corpus] = []
        if inputs.checkpoint is not None:
            named.append(inputs.checkpoint_instead(next(iter(self.models.values()))))
        if inputs.corpus is not None:
            named.append(inputs.corpus_instead(self.source))
        return named

    def transfers(self, model: str, dim: str, overrides: Mapping[str, Any]) -> list[RunPlan]:
        """The transfer plans of one model: of one dimension, of the baseline (``none``), or of each (``all``)."""
        dims = DIMENSIONS if dim == "all" else (None,) if dim == "none" else (dim,)
        return [self.plan("transfer", model, name, overrides) for name in dims]


def load(name: str) -> tuple[Preset, str]:
    """Load a preset by name, by path, or as ``auto``.

    Returns:
        The preset, and one line that says which was chosen and why.

    Raises:
        UserError: no such preset, unreadable YAML, unknown key or bad value.
    """
    why = "as asked"
    if name == "auto":
        import torch  # Here, so that --help and a bad parameter need not wait for it.

        gpu = torch.cuda.is_available()
        name = "paper" if gpu else "packaged"
        why = f"preset=auto and {'a CUDA GPU is present' if gpu else 'no CUDA GPU is present'}"
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise UserError(f"Preset '{name}' does not exist; choose auto, {known}, or the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"Preset {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"Preset {path} must be a mapping with the sections of presets/packaged.yaml.")
    preset = validated(Preset, where=f"Preset {path.name}: ", **values)
    return preset, f"Preset '{preset.name}' ({why})."
