"""Inference in a process of its own, so that its peak of resident memory is that of inference and of nothing else.

A process that has trained holds what training has left, and another's calibration leaves more than one's without;
of networks that differ by a few megabytes that is most of the difference. The process is forked before the run does
anything, so that all runs have the same one, and computes in one thread, as forked processes must.
"""

import ctypes
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ..models import checkpoints
from ..profiling.inference import Workload, for_inference
from ..profiling.memory import PeakMemory, peak_memory, resident_gb

_LOGGER = logging.getLogger(__name__)

_M_MMAP_THRESHOLD, _BYTES = -3, 1 << 16
# Seconds that it may take to measure, and to end.
_PATIENCE, _LEAVING = 1800, 10


@dataclass(frozen=True)
class Apart:
    """The process that waits for a model; one where there is none (on a GPU, or without ``fork``)."""

    connection: Connection | None

    def ask(self, folder: Path, precision: str, workload: Workload, beside: Path) -> None:
        """Have the model in a folder that a run logs measured, as it is served.

        Args:
            folder: may go before the answer.
            precision: of the weights.
            workload: what is swept.
            beside: is made, on the same file system, and has the same files until the answer.
        """
        if self.connection is not None:
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            shutil.copytree(folder, beside, copy_function=_linked)
            batches = [{name: each.numpy() for name, each in batch.items()} for batch in workload.batches]
            with suppress(OSError):  # It was killed, which the answer says.
                self.connection.send((beside, precision, batches))

    def answer(self) -> PeakMemory | None:
        """Peak of one sweep of the model that was asked for; libraries are used already.

        Returns:
            It starts from what the process held before the model was loaded. ``None`` where there is no such process,
            it was killed, or it does not answer.
        """
        if self.connection is None:
            return None
        try:
            if not self.connection.poll(_PATIENCE):
                raise EOFError
            start, peak = self.connection.recv()
        except (EOFError, OSError):
            _LOGGER.warning(
                "The process that measures inference's memory was killed or hangs; it is measured in this one."
            )
            return None
        return PeakMemory("apart", start=start, peak=peak)


@contextmanager
def process_apart(device: torch.device) -> Iterator[Apart]:
    """Within the block a process waits for a model; it ends with the block, or with this process."""
    if device.type != "cpu" or sys.platform != "linux":
        yield Apart(None)
        return
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=_wait, args=(ours, its), daemon=True)
    process.start()
    its.close()
    try:
        yield Apart(ours)
    finally:
        ours.close()
        process.join(_LEAVING)
        if process.is_alive():
            process.kill()
            process.join()


def _wait(ours: Connection, its: Connection) -> None:
    ours.close()  # so that the other end is the only one, and this process ends with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, OSError):
        folder, precision, batches = its.recv()
        measured = _measured(folder, precision, batches)
        shutil.rmtree(folder, ignore_errors=True)
        its.send(measured)


def _measured(folder: Path, precision: str, batches: Sequence[dict[str, np.ndarray]]) -> tuple[float, float]:
    """GB (1e9 bytes) that the process held before it loaded the model, and at the peak of one sweep."""
    torch.set_num_threads(1)  # The threads of what was forked are not here.
    # What is freed goes back at once, so that a peak is of what is in use.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BYTES)
    _sweep(_loaded(folder, precision), batches[:1])  # Libraries load parts of themselves when they are first used.
    gc.collect()
    start = resident_gb()
    model = _loaded(folder, precision)
    with peak_memory(model.device) as memory:
        _sweep(model, batches)
    return start, memory.peak


def _linked(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system knows no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _loaded(folder: Path, precision: str) -> PreTrainedModel:
    return for_inference(checkpoints.load_folder(folder)[0], precision)


def _sweep(model: PreTrainedModel, batches: Sequence[dict[str, np.ndarray]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(**{name: torch.from_numpy(each) for name, each in batch.items()})
