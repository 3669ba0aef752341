"""The plan as typed data: a preset is loaded from YAML and validated once, a run's plan is cut from it.

Every number of the study lives in ``presets/*.yaml``. A run may override any field of the sections
that concern it, by the field's own name (``-P learning_rate=3e-5``).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_serializer,
    model_validator,
)

from .errors import UserError

Section = TypeVar("Section", bound=BaseModel)

PRESETS = Path(__file__).resolve().parents[2] / "presets"


def _split(value: Any) -> Any:
    """``128,512`` as it is typed after ``-P``; a YAML list stays as it is."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Stage = Literal["baseline", "reduce", "transfer"]
ModelKey = Literal["bert", "roberta", "distilbert"]
Dimension = Literal["heads", "hidden", "layers"]
MODELS: tuple[ModelKey, ...] = ("bert", "roberta", "distilbert")
DIMENSIONS: tuple[Dimension, ...] = ("heads", "hidden", "layers")

STRATEGIES = {
    "heads": ("prune", "regroup"),
    "hidden": ("slice",),
    "layers": ("alternate", "first", "last", "ends", "influence"),
}
CRITERIA = {
    "heads": ("gradient", "magnitude", "first", "random"),
    "hidden": ("activation", "magnitude", "first", "random"),
    "layers": (),
}

# What the comparison takes for the best configuration, judged on the validation split.
RULES = {
    "accuracy": "the most accurate",
    "efficiency": "the fastest within one standard error of the most accurate",
    "knee": "the knee of the Pareto front of accuracy and inference time",
}

Integers = Annotated[tuple[PositiveInt, ...], BeforeValidator(_split)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Checkpoint(_Section):
    """Pretrained weights and their tokenizer."""

    name: str = Field(description="what tags and tables call it")
    source: str = Field(description="'packaged:<family>', a hub id, or a local folder")
    revision: str | None = Field(None, description="hub revision; what main was when it was fetched, when absent")


class Corpus(_Section):
    """A two-class sentiment corpus with train, validation and test splits."""

    name: str = Field(description="what tags and tables call it")
    source: str = Field(description="'packaged:<corpus>', a hub id, or a folder of csv, json or parquet files")
    revision: str | None = Field(None, description="hub revision; what main was when it was fetched, when absent")
    text_column: str = Field("text", description="column that has the text")
    label_column: str = Field("label", description="column that has the label")
    validation_examples: int | None = Field(
        None, gt=1, description="carved from train, stratified, where the corpus has no validation split"
    )


class Inputs(_Section):
    """What one run may take instead of the preset's checkpoint and corpus."""

    checkpoint: str | None = Field(None, description="another checkpoint: a hub id or a folder")
    checkpoint_revision: str | None = Field(None, description="its hub revision")
    corpus: str | None = Field(None, description="another corpus: a hub id, or a folder with train.csv and test.csv")
    corpus_revision: str | None = Field(None, description="its hub revision")
    text_column: str | None = Field(None, description="column of the corpus that has the text")
    label_column: str | None = Field(None, description="column of the corpus that has the label")
    validation_examples: int | None = Field(None, gt=1, description="carved from train where there is no such split")

    def checkpoint_instead(self, planned: Checkpoint) -> Checkpoint:
        """The checkpoint of the run."""
        if self.checkpoint is None:
            return planned.model_copy(update=_given(revision=self.checkpoint_revision))
        return Checkpoint(name=_short(self.checkpoint), source=self.checkpoint, revision=self.checkpoint_revision)

    def corpus_instead(self, planned: Corpus) -> Corpus:
        """The corpus of the run."""
        columns = _given(
            text_column=self.text_column, label_column=self.label_column, validation_examples=self.validation_examples
        )
        if self.corpus is None:
            return planned.model_copy(update=columns | _given(revision=self.corpus_revision))
        kept = {"validation_examples": planned.validation_examples} | columns
        return Corpus(name=_short(self.corpus), source=self.corpus, revision=self.corpus_revision, **kept)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _short(source: str) -> str:
    """What tags and tables call a hub id or a folder: its last part."""
    return source.rstrip("/").rpartition("/")[2]


class FineTuning(_Section):
    """How a model is fine-tuned and on how much of the corpus."""

    epochs: float = Field(gt=0, description="passes over the training examples")
    batch_size: int = Field(gt=0, description="examples per optimizer step")
    learning_rate: float = Field(gt=0, lt=1, description="peak learning rate of the linear schedule")
    warmup_ratio: float = Field(ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(ge=0, description="decoupled weight decay of AdamW")
    max_length: int = Field(gt=2, description="tokens after which a text is cut")
    precision: Literal["auto", "fp16", "bf16", "fp32"] = Field(
        description="arithmetic of training; auto: fp16 on CUDA, bf16 on a CPU that has it, else fp32"
    )
    max_train_examples: int | None = Field(None, gt=1, description="stratified subset of the training split")
    max_validation_examples: int | None = Field(None, gt=1, description="stratified subset for selection")
    max_test_examples: int | None = Field(None, gt=1, description="stratified subset that is reported")


class Reduction(_Section):
    """How much of one dimension stays, and how that part is chosen."""

    keep: float = Field(0.5, gt=0, le=1, description="share of the dimension that stays")
    size: int | None = Field(None, gt=0, description="exact size that stays; overrides keep")
    strategy: str = Field(description="how the dimension is cut")
    criterion: str | None = Field(None, description="how what stays is ranked")
    correct: Literal["none", "least_squares"] = Field(
        "none", description="refit the reduced weights on calibration text before fine-tuning"
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: the same architecture from scratch, as a control"
    )
    calibration_examples: int = Field(gt=0, description="training texts that criteria and correction look at")
    calibration_seed: int | None = Field(None, description="seed of the draw of these texts; the run's when absent")


class Distillation(_Section):
    """Whether and how a reduced model learns from the baseline of its model and corpus."""

    distill: bool = Field(description="learn from the finished baseline run as well as from the labels")
    temperature: float = Field(gt=0, description="softens the logits of teacher and student")
    distill_weight: float = Field(ge=0, le=1, description="share of the teacher in the loss")


class Profiling(_Section):
    """How long measurements may take and how sure they must be."""

    test_texts: int = Field(gt=0, description="texts of the test split that latency is measured on")
    relative_width: float = Field(gt=0, description="wanted width of the median's interval over the median")
    min_repetitions: int = Field(gt=1, description="repetitions at the least")
    time_budget: float = Field(gt=0, description="seconds that one latency measurement may take")
    fixed_lengths: Integers = Field(description="lengths in tokens that latency is measured at besides, as 128,512")

    @field_serializer("fixed_lengths")
    def _as_typed(self, lengths: tuple[int, ...]) -> str:
        return ",".join(map(str, lengths))


class RunPlan(_Section):
    """Everything that determines one run."""

    stage: Stage
    model: ModelKey
    preset: str
    checkpoint: Checkpoint
    corpus: Corpus
    source_corpus: str = Field(description="name of the corpus of the runs that this one may build on")
    fine_tuning: FineTuning
    reductions: dict[Dimension, Reduction] = {}
    distillation: Distillation | None = Field(None, description="only where the run distils")
    profiling: Profiling
    seed: int

    @property
    def dim(self) -> str:
        """The reduced dimensions, joined by ``+``; ``none`` for a baseline."""
        return "+".join(self.reductions) or "none"

    @property
    def label(self) -> str:
        """What lines of progress call the run."""
        return f"{self.stage:<8} {self.model:<10} {self.dim:<6} seed {self.seed}"


class Preset(_Section):
    """A whole study."""

    name: str
    seeds: tuple[int, ...] = Field(min_length=1, description="seeds of the study")
    models: dict[ModelKey, Checkpoint]
    source: Corpus
    target: Corpus
    fine_tuning: FineTuning
    transfer: FineTuning
    reductions: dict[Dimension, Reduction]
    distillation: Distillation
    profiling: Profiling

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
            _check_reduction(dim, reduction)
        return self

    def plan(
        self, stage: Stage, model: str, dim: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> RunPlan:
        """The plan of one run.

        Args:
            stage: what the run does.
            model: ``bert``, ``roberta`` or ``distilbert``.
            dim: one dimension, or several joined by ``+``; none for a baseline.
            overrides: values by field name (``epochs``, ``keep``, ``seed``, ...); ``None`` means absent.

        Raises:
            UserError: unknown model or dimension, unknown key, value out of range.
        """
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        _one_of("model", model, tuple(self.models))
        dims = dim.split("+") if dim else []
        for name in dims:
            _one_of("dim", name, tuple(self.reductions))
        sections: dict[str, type[BaseModel]] = {"inputs": Inputs, "fine_tuning": FineTuning, "profiling": Profiling}
        if dims and stage == "reduce":
            sections |= {"reduction": Reduction, "distillation": Distillation}
        _refuse_unknown(given, {"seed", *(f for s in sections.values() for f in s.model_fields)})
        fine_tuning = self.transfer if stage == "transfer" else self.fine_tuning
        if "size" in given and len(dims) > 1:
            raise UserError(f"size={given['size']} is ambiguous for dim={dim}: give keep, or reduce one dimension.")
        distillation, inputs = _updated(self.distillation, given), _updated(Inputs(), given)
        corpus = inputs.corpus_instead(self.target if stage == "transfer" else self.source)
        return _validated(
            RunPlan,
            stage=stage,
            model=model,
            preset=self.name,
            checkpoint=inputs.checkpoint_instead(self.models[model]),
            corpus=corpus,
            source_corpus=self.source.name if stage == "transfer" else corpus.name,
            fine_tuning=_updated(fine_tuning, given),
            reductions={name: _reduction(name, self.reductions[name], given, dims) for name in dims},
            distillation=distillation if stage == "reduce" and distillation.distill else None,
            profiling=_updated(self.profiling, given),
            seed=given.get("seed", self.seeds[0]),
        )

    def sources(self, overrides: Mapping[str, Any]) -> list[Checkpoint | Corpus]:
        """The checkpoint and corpus that the overrides name; all of the preset's where they name none.

        Raises:
            UserError: a value is out of range.
        """
        inputs = _updated(Inputs(), {key: value for key, value in overrides.items() if value is not None})
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
    preset = _validated(Preset, where=f"Preset {path.name}: ", **values)
    return preset, f"Preset '{preset.name}' ({why})."


def _reduction(dim: Dimension, default: Reduction, given: Mapping[str, Any], dims: list[str]) -> Reduction:
    """A dimension's reduction with the overrides that make sense for it.

    With several dimensions, ``strategy`` and ``criterion`` go to those that know the value.
    """
    given = dict(given)
    for key, table in (("strategy", STRATEGIES), ("criterion", CRITERIA)):
        if key in given and given[key] not in table[dim] and any(given[key] in table[d] for d in dims):
            del given[key]
    reduction = _updated(default, given)
    _check_reduction(dim, reduction)
    return reduction


def _check_reduction(dim: Dimension, reduction: Reduction) -> None:
    _one_of(f"strategy of dim={dim}", reduction.strategy, STRATEGIES[dim])
    if reduction.criterion is not None:
        if not CRITERIA[dim]:
            raise UserError(f"criterion={reduction.criterion} does not apply to dim={dim}; choose a strategy instead.")
        _one_of(f"criterion of dim={dim}", reduction.criterion, CRITERIA[dim])
    elif CRITERIA[dim]:
        raise UserError(f"dim={dim} needs a criterion; choose one of: {', '.join(CRITERIA[dim])}.")


def _updated(section: Section, given: Mapping[str, Any]) -> Section:
    own = {key: value for key, value in given.items() if key in type(section).model_fields}
    return _validated(type(section), **(section.model_dump() | own)) if own else section


def _one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UserError(f"Unknown {what} '{value}'; choose one of: {', '.join(allowed)}.")


def _refuse_unknown(given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise UserError(f"Unknown parameter: {', '.join(unknown)}; this run takes: {', '.join(sorted(known))}.")


def _validated(cls: type[Section], where: str = "", **values: Any) -> Section:
    """Build a section; say everything that is wrong with it in one sentence."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise UserError(where + "; ".join(_complaint(cls, item) for item in error.errors()) + ".") from error


def _complaint(cls: type[BaseModel], item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        section: Any = cls
        for part in item["loc"][:-1]:
            section = section.model_fields[part].annotation if part in getattr(section, "model_fields", {}) else None
        known = f" (known here: {', '.join(section.model_fields)})" if section else ""
        return f"unknown key '{key}'{known}"
    if item["type"] == "missing":
        return f"'{key}' is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}={item['input']} is not allowed: {message[0].lower()}{message[1:]}"
