"""Fine-tuning through ``transformers.Trainer``, assembled once for every run."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
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
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from . import distillation
from .errors import STOP, UserError
from .evaluation import Evaluation, evaluation, score
from .pieces import Pieces, Record
from .presets import Distillation, FineTuning
from .profiling.compute import Shape
from .profiling.memory import TrainingState, start_peak_again, training_state

_LOGGER = logging.getLogger(__name__)

OnLog = Callable[[dict[str, float], int], None]
StopRequested = Callable[[], bool]

# The curves of a run.
CURVES = (
    "train_loss",
    "learning_rate",
    "epoch_validation_loss",
    "epoch_validation_accuracy",
    "epoch_validation_f1",
)

# Points of a learning curve that are worth keeping; each costs the GPU one synchronisation.
_LOGGED_POINTS = 200
_EVALUATION_BATCH = 64


class NonFiniteLossError(UserError):
    """Training diverged; ``recovered`` says whether the model has the weights of an earlier epoch again."""

    recovered = False


@dataclass(frozen=True)
class Training:
    """What fine-tuning took and reached.

    Attributes:
        seconds: time in optimizer steps and data loading; evaluation, logging and checkpoints excluded.
        steps: optimizer steps.
        shapes: every batch that was trained on.
        state: what the largest batch kept in memory, told apart.
        micro_batch_size: examples of a batch that are computed at once; below the plan's where memory ran out.
        best_epoch: the epoch whose weights were kept, by validation accuracy.
        validation_accuracy: accuracy of the kept weights on the validation split.
        validation_f1: weighted F1 of the kept weights on the validation split.
        earlier_pieces: what was measured of each piece before an interruption.
    """

    seconds: float
    steps: int
    shapes: list[Shape]
    state: TrainingState
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


def resolve_precision(precision: str) -> str:
    """What ``auto`` means on this machine: ``fp16`` on CUDA, ``bf16`` on a CPU that has it, else ``fp32``.

    Raises:
        UserError: fp16 without a CUDA GPU.
    """
    cuda = torch.cuda.is_available()
    if precision == "fp16" and not cuda:
        raise UserError("precision=fp16 needs a CUDA GPU and none is present; choose auto, bf16 or fp32.")
    if precision != "auto":
        return precision
    if cuda:
        return "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def compute_dtype(precision: str) -> torch.dtype:
    """The number format that matrix products are computed in at this precision."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[resolve_precision(precision)]


class FineTuner:
    """A Trainer with the plan's settings; trains, then evaluates any split of the same tokenizer."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: FineTuning,
        seed: int,
        on_log: OnLog,
        progress: bool = True,
        teaching: Distillation | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._settings, self._seed, self._on_log, self._progress = settings, seed, on_log, progress
        self._teaching = teaching
        pad = DataCollatorWithPadding(tokenizer)
        # Lengths are for the sampler alone.
        self._collator = lambda rows: pad([{k: v for k, v in row.items() if k != "length"} for row in rows])

    def train(self, train: Dataset, validation: Dataset, pieces: Pieces) -> Training:
        """Fine-tune on tokenised splits; the model keeps the weights of its best validation epoch.

        Training goes on from the last checkpoint of ``pieces``, if there is one. SIGTERM ends the process after
        the step that is under way, with a checkpoint.

        Where the GPU runs out of memory, training starts again with half as many examples at once and twice as
        many passes a step: the batches, and so the result but for rounding and dropout, stay the same.

        Raises:
            NonFiniteLossError: the loss became infinite or no number.
            torch.OutOfMemoryError: a single example does not fit.
        """
        started_from = {name: tensor.to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        record = pieces.record()
        while True:
            try:
                return self._train(train, validation, record, pieces)
            except torch.OutOfMemoryError:
                if self._settings.batch_size < 2 * record.passes:
                    raise
            # Not within the handler: its traceback keeps what the failed step had in memory.
            record = Record(2 * record.passes)
            pieces.clear()
            _LOGGER.warning(
                "Out of memory: training starts again with %d examples at once instead of %d, %d passes a step.",
                math.ceil(self._settings.batch_size / record.passes), self._settings.batch_size, record.passes,
            )  # fmt: skip
            self.model.zero_grad(set_to_none=True)
            self.model.load_state_dict(started_from)
            start_peak_again()

    def _train(self, train: Dataset, validation: Dataset, record: Record, pieces: Pieces) -> Training:
        trainer = self._trainer(str(pieces.folder), train, validation, record)
        steps_per_epoch = math.ceil(len(train) / self._settings.batch_size)
        latest = pieces.latest()
        with STOP.deferred() as stop:
            trainer.add_callback(_Recorder(record, pieces, self._on_log, steps_per_epoch, stop))
            try:
                trainer.train(resume_from_checkpoint=str(latest) if latest else None)
            except NonFiniteLossError as error:
                error.recovered = trainer.load_best()
                raise
        evaluations = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
        best = max(evaluations, key=lambda entry: entry["eval_accuracy"])
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
        """Logits ``(examples, classes)`` of a tokenised split, in its order."""
        # Computed with texts of a length side by side, which halves the padding.
        order = np.argsort(tokenised["length"], kind="stable")
        with tempfile.TemporaryDirectory(prefix="encoder-reduction-") as folder:
            output = self._trainer(folder).predict(tokenised.select(order))
        return output.predictions[np.argsort(order)]

    def _trainer(
        self,
        folder: str,
        train: Dataset | None = None,
        validation: Dataset | None = None,
        record: Record | None = None,
    ) -> Trainer:
        settings, record = self._settings, record or Record()
        precision = resolve_precision(settings.precision)
        steps = math.ceil(settings.epochs * math.ceil(len(train) / settings.batch_size)) if train else 0
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=math.ceil(settings.batch_size / record.passes),
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
            # The Trainer shuffles evaluation by this setting too; predictions must stay in order.
            train_sampling_strategy="group_by_length" if train else "sequential",
            eval_strategy="epoch" if train else "no",
            save_strategy="epoch" if train else "no",
            metric_for_best_model="accuracy",
            remove_unused_columns=False,  # teacher logits are no argument of the model
            load_best_model_at_end=bool(train),
            save_total_limit=2,  # and the best one
            logging_strategy="no",  # _Recorder logs, since a curve must not break where training was interrupted
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=not self._progress,
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=self._seed,
        )
        trainer = _Trainer(
            self._teaching,
            record,
            model=self.model,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=self.tokenizer,
            data_collator=self._collator,
            compute_metrics=lambda output: score(output.predictions, output.label_ids),
        )
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        if self._progress:
            trainer.add_callback(_Progress)
        return trainer


class _Trainer(Trainer):
    """The Trainer, with the teacher's share in the loss of batches that carry its logits, keeping a record."""

    def __init__(self, teaching: Distillation | None, record: Record, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._teaching, self._record = teaching, record
        # Ours is the mean over a micro-batch, so several passes a step must be averaged.
        self.model_accepts_loss_kwargs = False

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        """One pass, noting what it is computed on and its loss."""
        self._record.note_batch(inputs)
        loss = super().training_step(model, inputs, *arguments, **more)
        self._record.note_loss(loss)
        return loss

    def load_best(self) -> bool:
        """Take the weights of the best epoch so far; whether there were any."""
        if self.state.best_model_checkpoint is None:
            return False
        self._load_best_model()
        return True

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
        return _ShuffledBatches(sampler, self._record) if isinstance(sampler, LengthGroupedSampler) else sampler

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **ignored: Any
    ) -> Any:
        """The loss against the labels, and against the teacher where there is one."""
        teacher = inputs.pop(distillation.TEACHER_LOGITS, None)
        outputs = model(**inputs)
        loss = outputs.loss
        if teacher is not None:
            settings = self._teaching
            loss = distillation.loss(loss, outputs.logits, teacher, settings.temperature, settings.distill_weight)
        return (loss, outputs) if return_outputs else loss


class _ShuffledBatches(Sampler):
    """Batches grouped by length, in random order.

    The Trainer's own sampler goes from long to short texts again and again, so that every epoch ends
    on the shortest ones; with few steps that costs accuracy.
    """

    def __init__(self, grouped: LengthGroupedSampler, record: Record) -> None:
        self._grouped, self._record = grouped, record
        self._continues = record.order_state is not None

    def __len__(self) -> int:
        return len(self._grouped)

    def __iter__(self) -> Iterator[int]:
        # The epoch that was interrupted has its order again; the Trainer then restores the state it had after that.
        if self._continues:
            torch.set_rng_state(self._record.order_state)
            self._continues = False
        self._record.order_state = torch.get_rng_state()
        indices, size = list(self._grouped), self._grouped.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        # The incomplete batch stays last, or all batches after it would be shifted.
        whole = len(indices) // size
        order = [*torch.randperm(whole, generator=self._grouped.generator).tolist(), *range(whole, len(batches))]
        return chain.from_iterable(batches[index] for index in order)


class _Progress(ProgressCallback):
    """The Trainer's progress bar without its lines of figures, which are in MLflow."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Recorder(TrainerCallback):
    """Keeps the record: adds up training time, logs the curves, and says when to save a checkpoint."""

    def __init__(
        self, record: Record, pieces: Pieces, on_log: OnLog, steps_per_epoch: int, stop: StopRequested
    ) -> None:
        self._record, self._pieces, self._on_log, self._stop = record, pieces, on_log, stop
        self._steps_per_epoch = steps_per_epoch
        self._since: float | None = None
        self._learning_rate = 0.0

    def _resume(self) -> None:
        self._since = _now()

    def _pause(self) -> None:
        """Evaluation, checkpoints and logging are no training."""
        if self._since is not None:
            self._record.seconds += _now() - self._since
        self._since = None

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self._resume()

    def on_optimizer_step(self, *args: Any, optimizer: Any, **kwargs: Any) -> None:
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._record.loss_steps += 1
        if state.global_step % max(1, state.max_steps // _LOGGED_POINTS) == 0:
            self._pause()
            self._log_loss(args, state)
            self._resume()
        # An epoch's end is saved anyway, after its evaluation.
        ends = state.global_step % self._steps_per_epoch == 0 or state.global_step == state.max_steps
        if (self._stop() or self._pieces.due) and not ends:
            self._pause()
            control.should_save = True

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self._pause()
        self._record.order_state = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        within_epoch = self._since is None and state.global_step % self._steps_per_epoch
        self._pieces.save(self._record, state.global_step)
        if self._stop():
            STOP.leave()
        if within_epoch:
            self._resume()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "eval_loss" in logs:
            # Named apart from the kept weights' validation_accuracy, which MLflow would take for a point of the curve.
            curve = {f"epoch_validation_{key}": logs[f"eval_{key}"] for key in ("loss", "accuracy", "f1")}
            self._on_log(curve, state.global_step)

    def _log_loss(self, args: Any, state: Any) -> None:
        loss = self._record.take_loss()
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The training loss became {loss} at step {state.global_step};"
                f" lower learning_rate (now {args.learning_rate}) or set precision=fp32."
            )
        self._on_log({"train_loss": loss, "learning_rate": self._learning_rate}, state.global_step)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
