"""Fine-tuning through ``transformers.Trainer``, assembled once for every run."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
)

from ..errors import STOP
from ..plan.precision import resolve_precision
from ..plan.sections import Distillation, FineTuning
from ..profiling.compute import Shape
from ..profiling.memory import TrainingState, start_peak_again
from .batches import Padding, TokenBatches, by_length, check_batches, more_passes
from .devices import fast
from .distillation import Teacher
from .evaluation import Evaluation, evaluation, score
from .gpu import MULTIPLE
from .pieces import Pieces, Record
from .prediction import EVALUATION_BATCH, logits_of
from .recorder import NonFiniteLossError, OnLog, ProgressBar, Recorder, best_evaluation
from .trainer import PlanTrainer

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What fine-tuning took and reached.

    Attributes:
        seconds: time in optimizer steps and data loading; evaluation, logging and checkpoints excluded.
        steps: optimizer steps.
        shapes: every batch that was trained on.
        state: what the largest batch kept in memory, told apart; ``None`` where nothing was trained.
        attention_kernels: what computed attention (:class:`.attention.Kernels`); ``None`` likewise.
        micro_batch_size: examples of a batch that are computed at once; below the plan's where memory ran out, ``None``
            where batches have no certain number of examples.
        best_epoch: the epoch whose weights were kept, by validation accuracy.
        validation_accuracy: accuracy of the kept weights on the validation split.
        validation_f1: weighted F1 of the kept weights on the validation split.
        earlier_pieces: what was measured of each piece before an interruption.
    """

    seconds: float
    steps: int
    shapes: list[Shape]
    state: TrainingState | None
    attention_kernels: str | None
    micro_batch_size: int | None
    best_epoch: float
    validation_accuracy: float
    validation_f1: float
    earlier_pieces: list[Any]

    @property
    def examples(self) -> int:
        """Training examples, each epoch's counted."""
        return sum(shape.examples for shape in self.shapes)

    @property
    def tokens(self) -> int:
        """Training tokens, without padding."""
        return sum(shape.tokens for shape in self.shapes)

    @property
    def padding(self) -> float:
        """Share of the computed tokens that was padding."""
        return 1 - self.tokens / sum(shape.examples * shape.padded for shape in self.shapes)


class FineTuner:
    """A Trainer with the plan's settings; trains, then evaluates any split of the same tokenizer.

    It computes under autocast at the plan's precision, and without it where the model's weights are converted already.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: FineTuning,
        seed: int,
        on_log: OnLog,
        progress: bool = True,
        teaching: Distillation | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.tokenizer, self._teaching, self._teacher = model, tokenizer, teaching, teacher
        self._settings, self._seed, self._on_log, self._progress = settings, seed, on_log, progress
        self._padding = Padding(tokenizer, settings.max_length, MULTIPLE if torch.cuda.is_available() else 1)

    def train(self, train: Dataset, validation: Dataset, pieces: Pieces) -> Training:
        """Fine-tune on tokenised splits; the model keeps the weights of its best epoch, or all that it has without any.

        Training goes on from the last checkpoint of ``pieces``, if there is one. SIGTERM ends the process after
        the step that is under way, with a checkpoint.

        Where the GPU runs out of memory, training starts again with fewer examples at once and more passes a step,
        as many as divide the batch: the batches, and so the result but for rounding and dropout, stay the same.

        Raises:
            NonFiniteLossError: the loss became infinite or no number.
            torch.OutOfMemoryError: a single example does not fit, or a batch of ``batch_tokens``.
            UserError: the Trainer would not take the plan's batches, since it sees several GPUs.
        """
        if not self._settings.epochs:
            return self._without_training(validation)
        record, batch_size = pieces.record(), self._settings.batch_size
        starting_weights = None
        if _memory_may_run_out() and not self._settings.batch_tokens:
            starting_weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        while True:
            try:
                with fast(self.model):
                    return self._train(train, validation, record, pieces)
            except torch.OutOfMemoryError:
                if starting_weights is None or record.passes == batch_size:
                    raise
            # Not within the handler: its traceback keeps what the failed step had in memory.
            record = Record(more_passes(batch_size, record.passes))
            pieces.clear()
            _LOGGER.warning(
                "Out of memory: training starts again with %d examples at once instead of %d, %d passes a step.",
                batch_size // record.passes, batch_size, record.passes,
            )  # fmt: skip
            self.model.zero_grad(set_to_none=True)
            self.model.load_state_dict(starting_weights)
            start_peak_again()

    def _without_training(self, validation: Dataset) -> Training:
        """The network as it is, scored on the validation split."""
        scores = score(self.logits(validation), np.asarray(validation["labels"][:]))
        return Training(0.0, 0, [], None, None, None, 0.0, scores["accuracy"], scores["f1"], [])

    def _train(self, train: Dataset, validation: Dataset, record: Record, pieces: Pieces) -> Training:
        batches = self._token_batches(train, record)
        steps_per_epoch = len(batches) if batches else math.ceil(len(train) / self._settings.batch_size)
        validation = validation.select(by_length(validation))
        trainer = self._trainer(str(pieces.folder), train, validation, record, batches, steps_per_epoch)
        latest = pieces.latest()
        with STOP.deferred() as stop:
            trainer.add_callback(Recorder(record, pieces, self._on_log, steps_per_epoch, stop))
            try:
                trainer.train(resume_from_checkpoint=str(latest) if latest else None)
            except NonFiniteLossError as error:
                error.recovered = pieces.load_best(record, self.model)
                raise
        best = best_evaluation(trainer.state)
        if best["step"] < trainer.state.global_step:
            pieces.load_best(record, self.model)
        state, attention_kernels = trainer.largest_pass()
        return Training(
            seconds=record.seconds,
            steps=trainer.state.global_step,
            shapes=record.shapes(),
            state=state,
            attention_kernels=attention_kernels,
            micro_batch_size=None if batches else trainer.args.per_device_train_batch_size,
            best_epoch=best["epoch"],
            validation_accuracy=best["eval_accuracy"],
            validation_f1=best["eval_f1"],
            earlier_pieces=record.pieces,
        )

    def evaluate(self, tokenised: Dataset, ids: list[str]) -> Evaluation:
        """Score a tokenised split; predictions come in its order."""
        return evaluation(ids, self.logits(tokenised), np.asarray(tokenised["labels"][:]), tokenised["length"][:])

    def logits(self, tokenised: Dataset) -> np.ndarray:
        """Logits ``(examples, classes)`` of a tokenised split, in its order, as float32."""
        return logits_of(self.model, self.tokenizer, tokenised, self._settings.precision, self._progress)

    def _token_batches(self, train: Dataset, record: Record) -> TokenBatches | None:
        tokens = self._settings.batch_tokens
        return TokenBatches(train["length"][:], tokens, self._padding, self._seed, record) if tokens else None

    def _trainer(
        self,
        folder: str,
        train: Dataset,
        validation: Dataset,
        record: Record,
        batches: TokenBatches | None,
        steps_per_epoch: int,
    ) -> PlanTrainer:
        settings, on_gpu = self._settings, torch.cuda.is_available()
        precision = resolve_precision(settings.precision)
        steps = math.ceil(settings.epochs * steps_per_epoch)
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size // record.passes,
            gradient_accumulation_steps=record.passes,
            per_device_eval_batch_size=EVALUATION_BATCH,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup_ratio * steps),
            weight_decay=settings.weight_decay,
            optim="adamw_torch_fused",
            fp16=precision == "fp16",
            bf16=precision == "bf16",
            use_cpu=not on_gpu,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="no",  # but when the Recorder asks for it
            remove_unused_columns=False,  # teacher logits are no argument of the model
            logging_strategy="no",  # the Recorder logs, since a curve must not break where training was interrupted
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=not self._progress,
            dataloader_pin_memory=on_gpu,
            accelerator_config={"non_blocking": on_gpu},  # so that no step waits until its batch has arrived
            seed=self._seed,
        )
        check_batches(arguments, settings.batch_size)
        trainer = PlanTrainer(
            record,
            batches,
            self._teaching,
            self._teacher,
            model=self.model,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            # No processing_class: its padding would be written into the configuration, which RoBERTa counts from.
            data_collator=self._padding,
            compute_metrics=lambda output: score(output.predictions, output.label_ids),
        )
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        if self._progress:
            trainer.add_callback(ProgressBar)
        return trainer


def _memory_may_run_out() -> bool:
    """Whether torch says so: of main memory the system kills a process without a word."""
    return torch.cuda.is_available()
