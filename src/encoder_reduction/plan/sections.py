"""The plan as typed data: what a run is, section by section."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from .fields import Dropped, Integers, NotDumpedWhereAbsent, OnceTrueOrFalse, Seed, ShareOfWhole

Stage = Literal["baseline", "reduce", "transfer"]
ModelKey = Literal["bert", "roberta", "distilbert"]
Dimension = Literal["heads", "hidden", "layers", "intermediate"]
Variant = Literal["strategy", "criterion", "correct", "spread"]
Start = Literal["pretrained", "baseline", "checkpoint"]
MODELS: tuple[ModelKey, ...] = ("bert", "roberta", "distilbert")
# The plan's; the feed-forward width is one that can be cut besides.
DIMENSIONS: tuple[Dimension, ...] = ("heads", "hidden", "layers")
MIXED = "mixed"
STRATEGIES = {
    "heads": ("prune", "regroup"),
    "hidden": ("project", "slice"),
    "layers": ("alternate", "first", "last", "ends", "influence"),
    "intermediate": ("prune",),
}
CRITERIA = {
    "heads": ("gradient", "fisher", "magnitude", "first", "random"),
    "hidden": ("activation", "magnitude", "first", "random"),
    "layers": (),
    "intermediate": ("activation", "gradient", "fisher", "magnitude", "first", "random"),
}
# Where layers may keep unequal numbers.
SPREADING = ("heads", "intermediate")
# What the comparison takes for the best configuration, judged on the validation split.
RULES = {
    "accuracy": "the most accurate",
    "efficiency": "the fastest within one standard error of the most accurate",
    "knee": "the knee of the Pareto front of accuracy and inference time",
}


class Section(BaseModel):
    """Frozen, complete, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Checkpoint(Section):
    """Pretrained weights and their tokenizer."""

    name: str = Field(description="what tags and tables call it")
    source: str = Field(description="'packaged:<family>', a hub id, or a local folder")
    revision: str | None = Field(None, description="hub revision; what main was when it was fetched, when absent")


class Corpus(Section):
    """A two-class sentiment corpus with train, validation and test splits."""

    name: str = Field(description="what tags and tables call it")
    source: str = Field(description="'packaged:<corpus>', a hub id, or a folder of csv, json or parquet files")
    revision: str | None = Field(None, description="hub revision; what main was when it was fetched, when absent")
    text_column: str = Field("text", description="column that has the text")
    label_column: str = Field("label", description="column that has the label")
    validation_examples: int | None = Field(
        None, gt=1, description="carved from train, stratified, where the corpus has no validation split"
    )


class Inputs(Section):
    """What one run may take instead of the preset's checkpoint and corpus."""

    checkpoint: str | None = Field(None, description="another checkpoint: a hub id or a folder")
    checkpoint_revision: str | None = Field(None, description="its hub revision")
    corpus: str | None = Field(
        None, description="another corpus: a hub id, a folder with train.csv and test.csv, or packaged:movies-long"
    )
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
    """What tags and tables call a hub id, a folder or something packaged: its last part."""
    return source.removeprefix("packaged:").rstrip("/").rpartition("/")[2]


class FineTuning(Section):
    """How a model is fine-tuned and on how much of the corpus."""

    epochs: float = Field(
        ge=0,
        description="passes over the training examples; 0: the network as it was cut, where start is not pretrained",
    )
    batch_size: int = Field(gt=0, description="examples per optimizer step")
    batch_tokens: Annotated[int | None, Field(gt=2), NotDumpedWhereAbsent] = Field(
        None, description="padded tokens per optimizer step at the most, instead of batch_size"
    )
    learning_rate: float = Field(gt=0, lt=1, description="peak learning rate of the linear schedule")
    warmup_ratio: float = Field(ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(ge=0, description="decoupled weight decay of AdamW")
    max_length: int = Field(gt=2, description="tokens after which a text is cut")
    precision: Literal["auto", "fp16", "bf16", "fp32"] = Field(
        description="arithmetic of training; auto: fp16 on CUDA, bf16 on a CPU that has it, else fp32"
    )
    attention_dropout: Dropped = Field(
        None, description="share of the attention weights that training drops; the checkpoint's own when absent"
    )
    hidden_dropout: Dropped = Field(
        None, description="share of the encoder's hidden units that training drops; the checkpoint's own when absent"
    )
    max_train_examples: int | None = Field(None, gt=1, description="stratified subset of the training split")
    max_validation_examples: int | None = Field(None, gt=1, description="stratified subset for selection")
    max_test_examples: int | None = Field(None, gt=1, description="stratified subset that is reported")


class Reduction(Section):
    """How much of one dimension stays, and how that part is chosen."""

    keep: float = Field(0.5, gt=0, le=1, description="share of the dimension that stays")
    size: int | None = Field(None, gt=0, description="exact size that stays; overrides keep")
    strategy: str = Field(description="how the dimension is cut")
    criterion: str | None = Field(None, description="how what stays is ranked")
    spread: Literal["uniform", "global"] = Field(
        "uniform", description="heads and intermediate: as many in each layer, or the best of all layers together"
    )
    correct: Literal["none", "least_squares"] = Field(
        "none", description="refit the reduced weights on calibration text before fine-tuning"
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: the same architecture from scratch, as a control"
    )
    calibration_examples: int = Field(gt=0, description="training texts that criteria and correction look at")
    calibration_seed: Seed | None = Field(None, description="seed of the draw of these texts; the run's when absent")


class Budget(Section):
    """What a reduced network may cost, which decides how much of each dimension stays."""

    budget: ShareOfWhole = Field(
        description="what may be left of the whole network's inference time on this device, of its FLOPs (of a text of"
        " 128 tokens) or of its parameters: latency:0.5, flops:0.5, parameters:0.5"
    )
    budget_tolerance: float = Field(
        0.06, ge=0, lt=1, description="how far a budget may be overspent where sizes are coarse, as whole layers are"
    )
    budget_batch_size: int | None = Field(
        None, gt=0, description="texts at once whose inference time is the budget's; batch_size when absent"
    )
    budget_tokens: int | None = Field(
        None, gt=2, description="their length in tokens; test texts in their own lengths when absent"
    )
    search_candidates: int = Field(
        18, gt=0, description="of several dimensions: how many ways to share a budget out are cut, refitted and judged"
    )
    search_examples: int = Field(
        256, ge=0, description="training texts on which the best of them are recovered before one is taken; 0: none"
    )

    @property
    def quantity(self) -> str:
        """``latency``, ``flops`` or ``parameters``."""
        return self.budget.partition(":")[0]

    @property
    def share(self) -> float:
        """What may be left of the whole network's."""
        return float(self.budget.partition(":")[2])

    @property
    def name(self) -> str:
        """As names have it: ``latency-0.5``."""
        return self.budget.replace(":", "-")

    @property
    def most(self) -> float:
        """The same with the tolerance."""
        return self.share * (1 + self.budget_tolerance)


class Distillation(Section):
    """Whether and how a reduced model learns from what it was before it was cut, or from another run's model."""

    distill: Annotated[Literal["none", "logits", "hidden"], OnceTrueOrFalse] = Field(
        description="none, or learn from a teacher as well as from the labels: from its logits, or with hidden from its"
        " hidden states too"
    )
    teacher: str | None = Field(
        None, description="a finished run to learn from; the baseline by default, the checkpoint where that was cut"
    )
    temperature: float = Field(gt=0, description="softens the logits of teacher and student")
    distill_weight: float = Field(ge=0, le=1, description="share of the teacher in the loss")
    hidden_weight: float = Field(1.0, gt=0, description="how much hidden states weigh beside logits")


class Beginning(Section):
    """What a reduction cuts."""

    start: Start = Field(
        "pretrained",
        description="which weights are cut: the checkpoint's encoder under a fresh head, the finished baseline run's,"
        " or the checkpoint's with the head that it brings",
    )


class Profiling(Section):
    """How long measurements may take and how sure they must be."""

    test_texts: int = Field(gt=0, description="texts of the test split that latency is measured on")
    relative_width: float = Field(gt=0, description="wanted width of the median's interval over the median")
    min_repetitions: int = Field(gt=1, description="repetitions at the least")
    time_budget: float = Field(gt=0, description="seconds that one latency measurement may take")
    fixed_lengths: Integers = Field(description="lengths in tokens that latency is measured at besides, as 128,512")

    @field_serializer("fixed_lengths")
    def _as_typed(self, lengths: tuple[int, ...]) -> str:
        return ",".join(map(str, lengths))


class RunPlan(Section):
    """Everything that determines one run."""

    stage: Stage
    model: ModelKey
    preset: str
    checkpoint: Checkpoint
    corpus: Corpus
    fine_tuning: FineTuning
    reductions: dict[Dimension, Reduction] = {}
    budget: Budget | None = Field(None, description="decides the sizes, where it is given")
    start: Start = Field("pretrained", description="which weights a reduction cuts")
    distillation: Distillation | None = Field(None, description="only where the run distils")
    profiling: Profiling
    seed: Seed
    builds_on: tuple["RunPlan", ...] = Field(
        (),
        description="plans of the run that this one starts or learns from; the first that has been carried out counts",
    )
    variants: tuple[Variant, ...] = Field((), description="fields in which that run may differ from its plan")
    recovery: Distillation | None = Field(
        None, description="of a transfer: how a reduction learnt that was cut from the baseline and may be its source"
    )

    @property
    def dim(self) -> str:
        """The reduced dimensions, joined by ``+``; ``none`` for a baseline, ``mixed`` for all that there are."""
        return MIXED if set(self.reductions) == set(STRATEGIES) else "+".join(self.reductions) or "none"

    @property
    def label(self) -> str:
        """What lines of progress call the run."""
        what = self.stage if self.start == "pretrained" else "recover"
        budget = f" {self.budget.budget}" if self.budget else ""
        return f"{what:<8} {self.model:<10} {self.dim:<6}{budget} seed {self.seed}"
