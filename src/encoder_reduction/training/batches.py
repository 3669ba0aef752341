"""The order in which training and evaluation see their examples, and how many at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import BatchEncoding, DataCollatorWithPadding, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..errors import UserError
from .pieces import Record

_BATCHES_SORTED_TOGETHER = 50


@dataclass(frozen=True)
class Padding:
    """Makes a batch of tokenised texts: as long as the longest, or the next multiple of some tokens.

    Attributes:
        tokenizer: says what it is padded with.
        max_length: tokens that no padding exceeds, since a network may have positions for no more.
        multiple: of tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    multiple: int = 1

    def padded(self, longest: int) -> int:
        """Tokens that texts have in a batch whose longest has so many."""
        return max(longest, min(-(-longest // self.multiple) * self.multiple, self.max_length))

    def __call__(self, rows: list[dict[str, Any]]) -> BatchEncoding:
        """``(examples, tokens)`` of each input; ``length``, which is for the sampler alone, is left out."""
        kept = [{name: value for name, value in row.items() if name != "length"} for row in rows]
        longest = max(len(row["input_ids"]) for row in kept)
        tokens = self.padded(longest)
        return DataCollatorWithPadding(self.tokenizer, padding="max_length", max_length=tokens)(kept)


class _Orders:
    """Random orders of batches, a new one for each epoch; that of an epoch which was interrupted comes again."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._continues = record.order_state is not None

    def begin(self) -> None:
        """To be called before an order is drawn: the Trainer then restores the state that an interruption had left."""
        if self._continues:
            torch.set_rng_state(self._record.order_state)
            self._continues = False
        self._record.order_state = torch.get_rng_state()


class ShuffledBatches(Sampler):
    """Batches grouped by length, in random order.

    The Trainer's own sampler goes from long to short texts again and again, so that every epoch ends
    on the shortest ones; with few steps that costs accuracy.
    """

    def __init__(self, grouped: LengthGroupedSampler, record: Record) -> None:
        self._grouped, self._orders = grouped, _Orders(record)

    def __len__(self) -> int:
        return len(self._grouped)

    def __iter__(self) -> Iterator[int]:
        self._orders.begin()
        indices, size = list(self._grouped), self._grouped.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        # The incomplete batch stays last, or all batches after it would be shifted.
        whole = len(indices) // size
        order = [*torch.randperm(whole, generator=self._grouped.generator).tolist(), *range(whole, len(batches))]
        return chain.from_iterable(batches[index] for index in order)


class TokenBatches(Sampler[list[int]]):
    """Batches of so many padded tokens: many short texts, or few long ones.

    Which texts are together is drawn once, so that each epoch has as many steps, and their order for each.

    Args:
        lengths: tokens of each text.
        tokens: of a batch, padding included, at the most.
        padding: of batches.
        seed: of what is together.
        record: of the training.
    """

    def __init__(self, lengths: Sequence[int], tokens: int, padding: Padding, seed: int, record: Record) -> None:
        self._orders = _Orders(record)
        drawn = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
        # Of a length, but not the same texts whatever the seed: sorted within parts of some fifty batches.
        part = max(1, _BATCHES_SORTED_TOGETHER * tokens * len(lengths) // sum(lengths))
        self._batches: list[list[int]] = []
        for start in range(0, len(drawn), part):
            together: list[int] = []
            for index in sorted(drawn[start : start + part], key=lambda index: lengths[index]):
                # Ascending, so that the last one is the longest.
                if together and (len(together) + 1) * padding.padded(lengths[index]) > tokens:
                    self._batches.append(together)
                    together = []
                together.append(index)
            self._batches.append(together)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        self._orders.begin()
        return iter([self._batches[index] for index in torch.randperm(len(self._batches)).tolist()])


def by_length(tokenised: Dataset) -> np.ndarray:
    """The order to evaluate texts in: those of a length side by side, which halves the padding."""
    # Of a column that is not copied each value is read by itself.
    return np.argsort(tokenised["length"][:], kind="stable")


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
