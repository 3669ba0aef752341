"""The order in which training sees its examples, and how many at once."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..errors import UserError
from .pieces import Record


class ShuffledBatches(Sampler):
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


def more_passes(batch_size: int, passes: int) -> int:
    """The next larger number of passes that divides a batch evenly."""
    return next(count for count in range(passes + 1, batch_size + 1) if batch_size % count == 0)


def check_batches(arguments: TrainingArguments, batch_size: int) -> None:
    """Refuse to train on other batches than the plan's: the Trainer takes a share for each GPU that CUDA has found.

    Raises:
        UserError: CUDA has found several GPUs, or the batch is another one.
    """
    examples = arguments.train_batch_size * arguments.gradient_accumulation_steps
    if arguments.n_gpu > 1 or examples != batch_size:
        raise UserError(
            f"A step would take {examples} examples on {arguments.n_gpu} GPUs instead of batch_size={batch_size} on"
            " one: start the run in a process of its own, or with one GPU in CUDA_VISIBLE_DEVICES."
        )
