"""This project's FineTuner and transformers' Trainer on the same texts: speed, accuracy and memory, in turns."""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from encoder_reduction.comparison.significance import crossed
from encoder_reduction.data import corpora
from encoder_reduction.data.tokenisation import tokenise
from encoder_reduction.models import checkpoints
from encoder_reduction.models.dropout import set_dropout
from encoder_reduction.plan import presets
from encoder_reduction.plan.precision import compute_dtype
from encoder_reduction.plan.sections import FineTuning, RunPlan
from encoder_reduction.profiling.compute import Shape, matrix_product_rate, total
from encoder_reduction.profiling.inference import flops_of
from encoder_reduction.profiling.memory import peak_memory
from encoder_reduction.training.fine_tuning import FineTuner
from encoder_reduction.training.pieces import Pieces

LENGTHS: dict[str, dict[str, Any]] = {
    "snippets": {},
    "imdb": {"corpus": "packaged:movies-long", "max_length": 512},
}
_ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if _ON_GPU else "cpu")
HALF = "fp16" if _ON_GPU else "bf16"
_GROUPED = {HALF: True, "train_sampling_strategy": "group_by_length"}


@dataclass(frozen=True)
class Way:
    """How to train.

    Attributes:
        name: what the table calls it.
        stock: arguments of transformers' Trainer beyond its defaults; ``None`` for this project's FineTuner.
        attention_dropout: the checkpoint's own when absent.
    """

    name: str
    stock: dict[str, Any] | None = None
    attention_dropout: float | None = None


WAYS = {
    "defaults": Way("Trainer, defaults", {}),
    "half": Way(f"Trainer, {HALF}", {HALF: True}),
    "grouped": Way(f"Trainer, {HALF}, grouped by length", _GROUPED),
    "best": Way(f"Trainer, {HALF}, grouped, attention dropout 0", _GROUPED, 0.0),
    "ours-dropping": Way("this project, attention dropout 0.1"),
    "ours": Way("this project, attention dropout 0", None, 0.0),
}


@dataclass(frozen=True)
class Task:
    """A network and the texts that it is trained on.

    Attributes:
        model: the family.
        lengths: ``snippets`` or ``imdb``.
        seed: of the head, the draw and the training.
        texts: how many train; the plan's when absent.
        attention_dropout: the checkpoint's own when absent.
        base: bert-base with random weights, which shows what it takes, instead of the packaged model.
    """

    model: str
    lengths: str
    seed: int
    texts: int | None = None
    attention_dropout: float | None = None
    base: bool = False

    @cached_property
    def plan(self) -> RunPlan:
        values = {"max_train_examples": self.texts, "attention_dropout": self.attention_dropout, "seed": self.seed}
        return presets.load("packaged")[0].plan("baseline", self.model, overrides=values | LENGTHS[self.lengths])

    @property
    def settings(self) -> FineTuning:
        return self.plan.fine_tuning

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.network()[1]

    def network(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model under a head drawn with the seed, dropping what is asked."""
        model, tokenizer = checkpoints.load(self.plan.checkpoint, self.seed)
        if self.base:
            torch.manual_seed(self.seed)
            model = BertForSequenceClassification(BertConfig())
        set_dropout(model, self.settings)
        return model, tokenizer

    def data(self) -> dict[str, Dataset]:
        """The tokenised splits."""
        drawn = corpora.draw_splits(self.plan)
        return {split: tokenise(drawn[split], self.tokenizer, self.settings.max_length) for split in drawn}


@dataclass(frozen=True)
class Trained:
    """What a training took and reached.

    Attributes:
        examples_per_second: in optimizer steps and data loading.
        share: of the rate of a large matrix product.
        memory: the most resident memory, or a GPU's, above what there was before it, GB.
        right: which test texts the model gets right.
    """

    examples_per_second: float
    share: float
    memory: float
    right: np.ndarray


@dataclass
class Clock(TrainerCallback):
    """Seconds from the beginnings of epochs to their ends, as the FineTuner counts its own."""

    seconds: float = 0.0
    since: float = field(default=0.0, repr=False)

    def on_epoch_begin(self, *arguments: Any, **more: Any) -> None:
        self.since = time.perf_counter()

    def on_epoch_end(self, *arguments: Any, **more: Any) -> None:
        self.seconds += time.perf_counter() - self.since


def rate() -> float:
    """FLOP/s of a large matrix product."""
    return matrix_product_rate(DEVICE, compute_dtype("auto"), time_budget=0.5)


def share_of(model: PreTrainedModel, shapes: list[Shape], seconds: float) -> float:
    """What batches of these shapes computed in some seconds, of what a large matrix product would have."""
    return total(flops_of(model).training, shapes) / seconds / rate()


def with_the_trainer(task: Task, options: dict[str, Any]) -> Trained:
    """Transformers' Trainer at the plan's batch, learning rate and schedule; every other argument is its default."""
    (model, tokenizer), data, settings, clock = task.network(), task.data(), task.settings, Clock()
    collate, shapes = DataCollatorWithPadding(tokenizer), []

    def noting(rows: list[dict[str, Any]]) -> Any:
        batch = collate(rows)
        shapes.append(Shape.of(batch["attention_mask"]))
        return batch

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_ratio,  # below 1 it is a share of the steps
            weight_decay=settings.weight_decay,
            seed=task.seed,
            use_cpu=not _ON_GPU,  # without which it refuses bf16 there
            dataloader_pin_memory=_ON_GPU,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        trainer = Trainer(model, arguments, noting, train_dataset=data["train"], callbacks=[clock])
        with peak_memory(trainer.args.device) as memory:
            trainer.train()
        share = share_of(model, shapes, clock.seconds)
        trainer.args.train_sampling_strategy = "sequential"  # by which predictions would be shuffled too
        logits = trainer.predict(data["test"]).predictions
    right = logits.argmax(-1) == np.asarray(data["test"]["labels"])
    examples = len(data["train"]) * settings.epochs
    return Trained(examples / clock.seconds, share, memory.above_start, right)


def with_this_project(task: Task) -> Trained:
    """This project's FineTuner; validation, which the Trainer is not asked for, is on two texts."""
    (model, tokenizer), data = task.network(), task.data()
    tuner = FineTuner(model, tokenizer, task.settings, task.seed, lambda values, step: None, progress=False)
    with tempfile.TemporaryDirectory() as folder, peak_memory(DEVICE) as memory:
        training = tuner.train(data["train"], data["validation"].select(range(2)), Pieces(Path(folder) / "pieces"))
    right = tuner.logits(data["test"]).argmax(-1) == np.asarray(data["test"]["labels"])
    share = share_of(model, training.shapes, training.seconds)
    return Trained(training.examples / training.seconds, share, memory.above_start, right)


def trained(lengths: str, way: str, texts: int | None, seed: int, base: bool) -> Trained:
    """One training, in a process that has done nothing else."""
    chosen = WAYS[way]
    task = Task("bert", lengths, seed, texts, chosen.attention_dropout, base)
    return with_this_project(task) if chosen.stock is None else with_the_trainer(task, chosen.stock)


def compared(lengths: str, ways: list[str], texts: int | None, seeds: list[int], base: bool) -> pd.DataFrame:
    """A row for each way, trained with each seed in turns; what the last way's accuracy is held against."""
    found: dict[str, list[Trained]] = {way: [] for way in ways}
    for seed in seeds:
        for way in ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[way].append(pool.apply(trained, (lengths, way, texts, seed, base)))
            said = found[way][-1]
            click.echo(f"{seed} {way}: {said.examples_per_second:.2f}/s, {said.right.mean():.3f}", err=True)
    speeds = {way: [each.examples_per_second for each in found[way]] for way in ways}
    rows = []
    for way in ways:
        times = [own / first for own, first in zip(speeds[way], speeds[ways[0]], strict=True)]
        rows.append(
            {
                "Way": WAYS[way].name,
                "Examples/s": f"{median(speeds[way]):.2f}",
                "Lowest, highest": f"{min(speeds[way]):.2f}, {max(speeds[way]):.2f}",
                "Times the first": f"{median(times):.2f}",
                "Share of matrix product": f"{median(each.share for each in found[way]):.0%}",
                "Memory above start (GB)": f"{median(each.memory for each in found[way]):.2f}",
                "Accuracy": f"{mean(each.right.mean() for each in found[way]):.3f}",
                "Against the last (points)": _gain(found[way], found[ways[-1]]),
            }
        )
    return pd.DataFrame(rows)


def _gain(of: list[Trained], over: list[Trained]) -> str:
    """The difference in accuracy and its 95% interval over seeds and texts."""
    gains = [100 * (a.right.astype(float) - b.right) for a, b in zip(of, over, strict=True)]
    estimate = crossed(np.array(gains))
    low, high = estimate.interval
    return f"{estimate.mean:+.1f} ({low:+.1f} to {high:+.1f})"
