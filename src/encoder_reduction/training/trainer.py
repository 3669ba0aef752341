"""What the Trainer does at each step: the plan's batches, the teacher's share in the loss, passes replayed on a GPU."""

from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..plan.sections import Distillation
from ..profiling.memory import TrainingState, training_state
from . import distillation
from .attention import Kernels
from .batches import ShuffledBatches, TokenBatches
from .distillation import Teacher
from .gpu import replayed
from .pieces import Record


class PlanTrainer(Trainer):
    """The Trainer as the plan trains, keeping a record.

    Args:
        record: of what is trained on.
        batches: the training batches, where they are counted in tokens.
        teaching: the teacher's share, where there is one.
        teacher: runs beside the student, where its logits beside the examples are not enough.
        arguments: the Trainer's own.
    """

    def __init__(
        self,
        record: Record,
        batches: TokenBatches | None,
        teaching: Distillation | None,
        teacher: Teacher | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._record, self._batches, self._teaching, self._teacher = record, batches, teaching, teacher
        # What is computed beside a teacher depends on where each text ends, which no graph knows.
        self._replayed = replayed(self.model) if teacher is None else None
        # Ours is the mean over a micro-batch, so several passes a step must be averaged.
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, or batches that are counted in tokens."""
        if self._batches is None:
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        """One pass, noting what it is computed on and its loss."""
        self._record.note_batch(inputs)
        passes = super().training_step
        if self._replayed is None:
            loss = passes(model, inputs, *arguments, **more)
        else:
            loss = self._replayed(
                dict(inputs),
                lambda batch: passes(model, dict(batch), *arguments, **more),
                self.current_gradient_accumulation_steps,
            )
        self._record.note_loss(loss)
        return loss

    def largest_pass(self) -> tuple[TrainingState, str]:
        """What a training step on the largest batch keeps in memory, and the kernels that its attention takes."""
        self.model.train()
        largest = self._prepare_inputs(dict(self._record.largest))

        def forward() -> torch.Tensor:
            with self.compute_loss_context_manager():
                return self.compute_loss(self.model, largest)

        with Kernels() as kernels:
            state = training_state(self.model, self.optimizer, forward)
        return state, kernels.of_attention

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        sampler.lengths = sampler.lengths[:]
        return ShuffledBatches(sampler, self._record)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        """As they come; the Trainer's own would shuffle what is evaluated, too."""
        return SequentialSampler(eval_dataset)

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
