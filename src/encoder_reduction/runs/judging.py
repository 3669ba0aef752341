"""What a way of cutting is worth, told in seconds: after cutting and refitting, and after a short recovery."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from scipy.special import log_softmax
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..data import corpora
from ..plan.precision import calibration_arithmetic
from ..plan.sections import Dimension, Reduction, RunPlan
from ..reductions import Cut, cut, importance_of
from ..reductions.importance import PerLayer
from ..reductions.observed import Batch
from ..training.evaluation import score
from ..training.fine_tuning import FineTuner
from ..training.pieces import Pieces
from ..training.prediction import logits_of
from .networks import calibration_batches
from .teaching import teach

# Validation texts that candidates are judged on, at the most.
_TEXTS = 512


@dataclass(frozen=True)
class Scores:
    """What a network says of the validation texts.

    Attributes:
        divergence: Kullback-Leibler divergence of its predictions from the whole network's, mean over the texts, nats.
        accuracy: share of correct predictions.
        losses: cross-entropy of each text against its label, nats.
    """

    divergence: float
    accuracy: float
    losses: tuple[float, ...] = field(repr=False)

    @property
    def loss(self) -> float:
        """The mean over the texts."""
        return float(np.mean(self.losses))

    def loses_to(self, other: "Scores") -> bool:
        """Whether another loss is less by more than its standard error, text by text."""
        gaps = np.subtract(self.losses, other.losses)
        return bool(gaps.mean() > gaps.std(ddof=1) / np.sqrt(len(gaps)))


@dataclass
class Judge:
    """Cuts the network of a run in ways that its plan leaves open, and scores what is left.

    Attributes:
        plan: of the run.
        source_run: the finished run that it builds on.
        whole: the network that is cut.
        tokenizer: its tokenizer.
        data: the texts.
        tokenised: the same, as the network reads them.
    """

    plan: RunPlan
    source_run: str | None
    whole: PreTrainedModel = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    data: DatasetDict = field(repr=False)
    tokenised: dict[str, Dataset] = field(repr=False)
    _last: tuple[dict[Dimension, Reduction], Cut] | None = field(default=None, init=False, repr=False)

    def cut(self, reductions: Mapping[Dimension, Reduction]) -> Cut:
        """What is left of the network, refitted; not to be changed by who asks."""
        asked = dict(reductions)
        if self._last is None or self._last[0] != asked:
            with calibration_arithmetic(self.plan.fine_tuning.precision):
                self._last = (asked, cut(self.whole, asked, self._batches, self.plan.seed, self._importance))
        return self._last[1]

    def score(self, model: PreTrainedModel) -> Scores:
        """Of a network, as it is."""
        logits, labels = self._logits(model), np.asarray(self._texts["labels"])
        predicted, wanted = log_softmax(logits, axis=-1), log_softmax(self._wanted, axis=-1)
        divergence = float((np.exp(wanted) * (wanted - predicted)).sum(axis=-1).mean())
        return Scores(
            divergence=divergence if np.isfinite(divergence) else np.inf,  # as far as can be, and in order
            accuracy=score(logits, labels)["accuracy"],
            losses=tuple(-predicted[np.arange(len(labels)), labels].astype(float)),
        )

    def recover(self, reductions: Mapping[Dimension, Reduction], examples: int, folder: Path) -> Scores:
        """Train what is left on some training texts, once, and score it then.

        Args:
            reductions: what is left.
            examples: how many texts.
            folder: for what training goes on from.

        Raises:
            NonFiniteLossError: it diverges.
        """
        cut, self._last = self.cut(reductions), None
        settings, seed = self.plan.fine_tuning.model_copy(update={"epochs": 1.0}), self.plan.seed
        tokenised = corpora.draw(self.tokenised["train"], examples, seed, label="labels")
        teacher = None
        if self.plan.distillation:
            texts = corpora.draw(self.data["train"], examples, seed)  # the same
            tokenised, teacher = teach(self.plan, self.source_run, self.whole, cut, self.tokenizer, tokenised, texts)
        tuner = FineTuner(
            cut.model, self.tokenizer, settings, seed, lambda values, step: None, False, self.plan.distillation, teacher
        )
        try:
            tuner.train(tokenised, self._texts, Pieces(folder))
        finally:
            # As a teacher it was frozen, and gradients tell what to cut of it another time.
            self.whole.requires_grad_(True)
        return self.score(cut.model)

    @cached_property
    def _batches(self) -> list[Batch]:
        return calibration_batches(self.plan, self.whole, self.tokenizer, self.tokenised["train"])

    @cached_property
    def _importance(self) -> dict[str, PerLayer]:
        return importance_of(self.whole, self.plan.reductions, self._batches, self.plan.seed)

    @cached_property
    def _texts(self) -> Dataset:
        return corpora.draw(self.tokenised["validation"], _TEXTS, 0, label="labels")

    @cached_property
    def _wanted(self) -> np.ndarray:
        return self._logits(self.whole)

    def _logits(self, model: PreTrainedModel) -> np.ndarray:
        return logits_of(model, self.tokenizer, self._texts, self.plan.fine_tuning.precision)
