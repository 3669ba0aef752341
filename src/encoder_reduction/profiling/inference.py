"""What a classifier's inference takes: on real texts and at fixed lengths, alone and with tokenisation."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..plan.precision import compute_dtype
from ..plan.sections import FineTuning, Profiling
from .compute import Flops, Shape, count_flops
from .latency import Call, Latency, measure
from .memory import PeakMemory, peak_memory

Batch = dict[str, torch.Tensor]

TEXTS = "texts"


@dataclass(frozen=True)
class Workload:
    """Batches of one kind that the forward pass is timed on.

    Attributes:
        name: ``texts`` (test texts in their own lengths) or a fixed number of tokens, as ``128``.
        batch_size: examples of a batch, the last one of ``texts`` perhaps excepted.
        batches: ``input_ids`` and ``attention_mask``, each ``(examples, tokens)``.
    """

    name: str
    batch_size: int
    batches: list[Batch]

    @property
    def shapes(self) -> list[Shape]:
        """What is computed for each batch."""
        return [Shape.of(batch["attention_mask"]) for batch in self.batches]

    @property
    def examples(self) -> int:
        """Examples of all batches together."""
        return sum(shape.examples for shape in self.shapes)


@dataclass(frozen=True)
class Profiler:
    """Times the forward pass of one model as the plan asks.

    Attributes:
        model: a classifier, as :func:`for_inference` leaves it.
        tokenizer: its tokenizer.
        fine_tuning: batch size, maximal length and precision.
        settings: how long, how sure, on how many texts and at which lengths.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    fine_tuning: FineTuning
    settings: Profiling

    def texts(self, tokenised: Dataset, batch_size: int) -> Workload:
        """The first tokenised test texts in their order, each batch padded to its longest."""
        chosen = tokenised.select(range(self._count(tokenised)))
        chosen = chosen.remove_columns([name for name in ("length", "labels") if name in chosen.column_names])
        collate = DataCollatorWithPadding(self.tokenizer)
        starts = range(0, len(chosen), batch_size)
        batches = [collate(chosen[start : start + batch_size]).to(self.model.device) for start in starts]
        return Workload(TEXTS, batch_size, batches)

    def fixed(self, tokens: int, batch_size: int) -> Workload:
        """One batch of texts of exactly so many tokens, none of them padding."""
        batch = _random_batch(self.model, batch_size, tokens, self.model.device)
        return Workload(str(tokens), batch_size, [batch])

    def workloads(self, tokenised: Dataset) -> list[Workload]:
        """Texts and each fixed length, in batches of one and of the plan's size."""
        sizes = sorted({1, self.fine_tuning.batch_size}, reverse=True)
        return [
            *(self.texts(tokenised, size) for size in sizes),
            *(self.fixed(length, size) for length in self.settings.fixed_lengths for size in sizes),
        ]

    def calls(self, workload: Workload) -> list[Call]:
        """One call of the forward pass for each batch."""
        return [self._forward(batch) for batch in workload.batches]

    def latency(self, workload: Workload) -> Latency:
        """Time of the forward pass; tokenising, padding and copying to the device are done before."""
        return self._measure(self.calls(workload), workload.examples)

    def memory(self, workload: Workload) -> PeakMemory:
        """Peak memory of one sweep; apart from latency, since reading a GPU's memory starts programs beside it."""
        calls = self.calls(workload)
        with peak_memory(self.model.device) as memory:
            for call in calls:
                call()
        return memory

    def tokenisation(self, texts: list[str]) -> Latency:
        """Time of turning the first texts into padded batches on the device."""
        return self._measure([partial(self._tokenise, group) for group in self._groups(texts)], self._count(texts))

    def end_to_end(self, texts: list[str]) -> Latency:
        """Time from the first texts to predicted classes on the host."""
        return self._measure([partial(self._predict, group) for group in self._groups(texts)], self._count(texts))

    def _predict(self, texts: list[str]) -> torch.Tensor:
        return self._forward(self._tokenise(texts))().logits.argmax(-1).cpu()

    def _count(self, texts: Sequence[object]) -> int:
        return min(self.settings.test_texts, len(texts))

    def _groups(self, texts: list[str]) -> list[list[str]]:
        count, size = self._count(texts), self.fine_tuning.batch_size
        return [list(texts[start : min(start + size, count)]) for start in range(0, count, size)]

    def _tokenise(self, texts: list[str]) -> Batch:
        limit = self.fine_tuning.max_length
        encoded = self.tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        return encoded.to(self.model.device)

    def _forward(self, batch: Batch) -> Call:
        def call() -> object:
            with torch.inference_mode():
                return self.model(**batch)

        return call

    def _measure(self, calls: list[Call], examples: int) -> Latency:
        return measure(
            calls,
            examples,
            device=self.model.device,
            relative_width=self.settings.relative_width,
            min_repetitions=self.settings.min_repetitions,
            time_budget=self.settings.time_budget,
        )


def for_inference(model: PreTrainedModel, precision: str) -> PreTrainedModel:
    """The model as it would be deployed, in place: without dropout, its weights in the precision's number format.

    They are converted once. Autocast, which training uses, converts all of them at every call: of bert-base at 16 x 128
    tokens that took a fifth of the time, of a single short text half of it (bfloat16 on a CPU).
    """
    return model.eval().to(compute_dtype(precision))


def flops_of(model: PreTrainedModel) -> Flops:
    """FLOPs of one example of a classifier by its length; a copy without weights is counted, nothing computed."""
    config, meta = copy.deepcopy(model.config), torch.device("meta")  # from_config writes its attention into it
    with meta:
        bare = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    return count_flops(lambda tokens: bare(_random_batch(bare, 1, tokens, meta)["input_ids"]))


def latency_table(latencies: Iterable[tuple[Workload, Latency]]) -> pd.DataFrame:
    """One row a workload: its shape, then every figure of its latency, milliseconds."""
    rows = []
    for workload, latency in latencies:
        shapes = workload.shapes
        low, high = latency.interval
        rows.append(
            {
                "workload": workload.name,
                "batch_size": workload.batch_size,
                "tokens": sum(shape.tokens for shape in shapes),
                "padded_tokens": sum(shape.examples * shape.padded for shape in shapes),
                **{name: value for name, value in asdict(latency).items() if name != "interval"},
                "interval_low": low,
                "interval_high": high,
                "examples_per_second": latency.examples_per_second,
            }
        )
    return pd.DataFrame(rows)


def _random_batch(model: PreTrainedModel, examples: int, tokens: int, device: torch.device) -> Batch:
    # From the upper half of the vocabulary: no special token, padding above all, is among them.
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary // 2, vocabulary, (examples, tokens), generator=torch.Generator().manual_seed(0),
                        device="cpu")  # fmt: skip
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
