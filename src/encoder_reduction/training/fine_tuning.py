"""Fine-tuning through ``transformers.Trainer``, assembled once for every run."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..errors import STOP
from ..plan.precision import resolve_precision
from ..plan.sections import Distillation, FineTuning
from ..profiling.compute import Shape
from ..profiling.memory import TrainingState, start_peak_again, training_state
from . import distillation
from .batches import ShuffledBatches, check_batches, more_passes
from .cpu import fast_on_a_cpu
from .distillation import Teacher
from .evaluation import Evaluation, evaluation, score
from .pieces import Pieces, Record
from .prediction import logits_of
from .recorder import NonFiniteLossError, OnLog, ProgressBar, Recorder, best_evaluation

_LOGGER = logging.getLogger(__name__)

_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Training:
    """What fine-tuning took and reached.

    Attributes:
        seconds: time in optimizer steps and data loading; evaluation, logging and checkpoints excluded.
        steps: optimizer steps.
        shapes: every batch that was trained on.
        state: what the largest batch kept in memory, told apart; ``None`` where nothing was trained.
        micro_batch_size: examples of a batch that are computed at once; below the plan's where memory ran out.
        best_epoch: the epoch whose weights were kept, by validation accuracy.
        validation_accuracy: accuracy of the kept weights on the validation split.
        validation_f1: weighted F1 of the kept weights on the validation split.
        earlier_pieces: what was measured of each piece before an interruption.
    """

    seconds: float
    steps: int
    shapes: list[Shape]
    state: TrainingState | None
    micro_batch_size: int
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
        pad = DataCollatorWithPadding(tokenizer)
        # Lengths are for the sampler alone.
        self._collator = lambda rows: pad([{k: v for k, v in row.items() if k != "length"} for row in rows])

    def train(self, train: Dataset, validation: Dataset, pieces: Pieces) -> Training:
        """Fine-tune on tokenised splits; the model keeps the weights of its best epoch, or all that it has without any.

        Training goes on from the last checkpoint of ``pieces``, if there is one. SIGTERM ends the process after
        the step that is under way, with a checkpoint.

        Where the GPU runs out of memory, training starts again with fewer examples at once and more passes a step,
        as many as divide the batch: the batches, and so the result but for rounding and dropout, stay the same.

        Raises:
            NonFiniteLossError: the loss became infinite or no number.
            torch.OutOfMemoryError: a single example does not fit.
            UserError: the Trainer would not take the plan's batches, since it sees several GPUs.
        """
        if not self._settings.epochs:
            return self._without_training(validation)
        record, batch_size = pieces.record(), self._settings.batch_size
        starting_weights = None
        if _memory_may_run_out():
            starting_weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        while True:
            try:
                with fast_on_a_cpu(self.model):
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
        scores = score(self.logits(validation), np.asarray(validation["labels"]))
        return Training(0.0, 0, [], None, self._settings.batch_size, 0.0, scores["accuracy"], scores["f1"], [])

    def _train(self, train: Dataset, validation: Dataset, record: Record, pieces: Pieces) -> Training:
        trainer = self._trainer(str(pieces.folder), train, validation, record)
        steps_per_epoch = math.ceil(len(train) / self._settings.batch_size)
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
        return Training(
            seconds=record.seconds,
            steps=trainer.state.global_step,
            shapes=record.shapes(),
            state=trainer.memory_parts(),
            micro_batch_size=trainer.args.per_device_train_batch_size,
            best_epoch=best["epoch"],
            validation_accuracy=best["eval_accuracy"],
            validation_f1=best["eval_f1"],
            earlier_pieces=record.pieces,
        )

    def evaluate(self, tokenised: Dataset, ids: list[str]) -> Evaluation:
        """Score a tokenised split; predictions come in its order."""
        return evaluation(ids, self.logits(tokenised), np.asarray(tokenised["labels"]), tokenised["length"])

    def logits(self, tokenised: Dataset) -> np.ndarray:
        """Logits ``(examples, classes)`` of a tokenised split, in its order, as float32."""
        return logits_of(self.model, self.tokenizer, tokenised, self._settings.precision, self._progress)

    def _trainer(self, folder: str, train: Dataset, validation: Dataset, record: Record) -> Trainer:
        settings = self._settings
        precision = resolve_precision(settings.precision)
        steps = math.ceil(settings.epochs * math.ceil(len(train) / settings.batch_size))
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size // record.passes,
            gradient_accumulation_steps=record.passes,
            per_device_eval_batch_size=_EVALUATION_BATCH,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup_ratio * steps),
            weight_decay=settings.weight_decay,
            optim="adamw_torch_fused",
            fp16=precision == "fp16",
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="no",  # but when the Recorder asks for it
            remove_unused_columns=False,  # teacher logits are no argument of the model
            logging_strategy="no",  # the Recorder logs, since a curve must not break where training was interrupted
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=not self._progress,
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=self._seed,
        )
        check_batches(arguments, settings.batch_size)
        trainer = _Trainer(
            self._teaching,
            self._teacher,
            record,
            model=self.model,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            # No processing_class: its padding would be written into the configuration, which RoBERTa counts from.
            data_collator=self._collator,
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


class _Trainer(Trainer):
    """The Trainer, with the teacher's share in the loss of batches that carry its logits, keeping a record."""

    def __init__(
        self, teaching: Distillation | None, teacher: Teacher | None, record: Record, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._teaching, self._teacher, self._record = teaching, teacher, record
        # Ours is the mean over a micro-batch, so several passes a step must be averaged.
        self.model_accepts_loss_kwargs = False

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        """One pass, noting what it is computed on and its loss."""
        self._record.note_batch(inputs)
        loss = super().training_step(model, inputs, *arguments, **more)
        self._record.note_loss(loss)
        return loss

    def memory_parts(self) -> TrainingState:
        """What a training step on the largest batch keeps in memory."""
        self.model.train()
        largest = self._prepare_inputs(dict(self._record.largest))

        def forward() -> torch.Tensor:
            with self.compute_loss_context_manager():
                return self.compute_loss(self.model, largest)

        return training_state(self.model, self.optimizer, forward)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        return ShuffledBatches(sampler, self._record) if isinstance(sampler, LengthGroupedSampler) else sampler

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **ignored: Any
    ) -> Any:
        """The loss against the labels, and in training against the teacher where there is one."""
        logits = inputs.pop(distillation.TEACHER_LOGITS, None)
        beside = self._teacher if model.training else None
        outputs = model(**inputs, output_hidden_states=beside is not None)
        loss = outputs.loss
        if beside:
            loss = distillation.loss_beside(beside, self._teaching, inputs, outputs)
        elif logits is not None:
            loss = distillation.loss(loss, outputs.logits, logits, self._teaching)
        return (loss, outputs) if return_outputs else loss
