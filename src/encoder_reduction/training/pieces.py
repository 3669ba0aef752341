"""Training in pieces: interrupted anywhere, it goes on from its last checkpoint exactly as if it had not been.

The Trainer's checkpoint holds weights, optimizer, schedule and random state. Here is the rest: what has been
measured so far, the unfinished point of the curve, the random state that the epoch's order was drawn from, and
the weights of the best epoch.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..profiling.compute import Shape

VARIABLE = "ENCODER_REDUCTION_CHECKPOINT_SECONDS"
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_RECORD = "record.pt"


@dataclass
class Record:
    """What training has taken and seen.

    Attributes:
        passes: micro-batches of an optimizer step.
        seconds: time in optimizer steps and data loading.
        sizes: batches' examples and padded length, in order.
        tokens: batches' tokens without padding.
        largest: the batch with the most padded tokens.
        loss: sum of the losses since the last point of the curve, a scalar.
        loss_steps: optimizer steps in that sum.
        order_state: state of torch's random generator when the epoch's order was drawn.
        best_step: the step after which the weights were the best that are kept; 0 where none are.
        pieces: what the caller measured of each piece before this one.
    """

    passes: int = 1
    seconds: float = 0.0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    largest: dict[str, torch.Tensor] = field(default_factory=dict)
    loss: torch.Tensor | None = None
    loss_steps: int = 0
    order_state: torch.Tensor | None = None
    best_step: int = 0
    pieces: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Counted on the device, so that no step waits for the count.
        self._counting: list[torch.Tensor] = []

    def note_batch(self, inputs: dict[str, torch.Tensor]) -> None:
        """Note what a pass is computed on."""
        mask = inputs["attention_mask"]
        if not self.largest or mask.numel() > self.largest["attention_mask"].numel():
            self.largest = dict(inputs)
        self.sizes.append(tuple(mask.shape))
        self._counting.append(mask.sum())

    def note_loss(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's share of its step's loss."""
        loss = loss.detach()
        self.loss = loss.clone() if self.loss is None else self.loss.to(loss.device) + loss

    def take_loss(self) -> float:
        """The mean loss of the steps since the last point, which starts anew."""
        mean = self.loss.item() / self.loss_steps
        self.loss, self.loss_steps = None, 0
        return mean

    def shapes(self) -> list[Shape]:
        """The shape of every batch, in order."""
        self._finish_counting()
        return [Shape(*size, tokens=count) for size, count in zip(self.sizes, self.tokens, strict=True)]

    def content(self) -> dict[str, Any]:
        """All of it, in main memory."""
        self._finish_counting()
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "largest": {name: tensor.cpu() for name, tensor in self.largest.items()},
            "loss": self.loss.cpu() if self.loss is not None else None,
        }

    def _finish_counting(self) -> None:
        if self._counting:
            self.tokens += torch.stack(self._counting).tolist()
            self._counting = []


class Pieces:
    """What one training goes on from and ends with, in a folder that outlives the process.

    These are its checkpoints, and the weights of its best epoch while training goes on with others.

    Args:
        folder: where they are kept.
        before_saving: called when a checkpoint is written; what it returns becomes the piece's
            entry in :attr:`Record.pieces` if training goes on from there.
    """

    def __init__(self, folder: Path, before_saving: Callable[[], Any] = lambda: None) -> None:
        self.folder = folder
        self._before_saving = before_saving
        self._interval = float(os.environ.get(VARIABLE) or _SECONDS_BETWEEN_CHECKPOINTS)
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return time.monotonic() - self._saved >= self._interval

    def latest(self) -> Path | None:
        """The last checkpoint that is whole; what a killed process left half-written is removed."""
        found = []
        for path in self.folder.glob("checkpoint-*"):
            if (path / _RECORD).is_file():
                found.append(path)
            else:
                shutil.rmtree(path)
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def record(self) -> Record:
        """The record of the last checkpoint; an empty one where there is none."""
        latest = self.latest()
        if latest is None:
            return Record()
        return Record(**torch.load(latest / _RECORD, weights_only=True))

    def save(self, record: Record, step: int) -> None:
        """Complete the Trainer's checkpoint of this step with the record; from now on it counts, and none before it."""
        content = record.content() | {"pieces": [*record.pieces, self._before_saving()]}
        checkpoint = self.folder / f"checkpoint-{step}"
        _write(content, checkpoint / _RECORD)
        self._saved = time.monotonic()
        self._remove_all_but(checkpoint, self._best(record))

    def save_best(self, record: Record, step: int, model: nn.Module) -> None:
        """Keep the weights that the model has after this step, the best so far."""
        record.best_step = step
        _write(model.state_dict(), self._best(record))
        self._remove_all_but(self.latest(), self._best(record), self._best(self.record()))

    def load_best(self, record: Record, model: nn.Module) -> bool:
        """Give the model the best weights that are kept; whether there are any."""
        if record.best_step:
            model.load_state_dict(torch.load(self._best(record), map_location="cpu", weights_only=True))
        return bool(record.best_step)

    def clear(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _best(self, record: Record) -> Path:
        # Named by step: training that goes on from a checkpoint must not find weights that came after it.
        return self.folder / f"best-{record.best_step}.pt"

    def _remove_all_but(self, *kept: Path | None) -> None:
        for path in self.folder.iterdir():
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(content: Any, path: Path) -> None:
    """Write all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    torch.save(content, partial)
    partial.rename(path)
