"""The most memory a phase used: of the GPU's allocator on CUDA, resident memory of the process on a CPU."""

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

GB = 1e9

_SAMPLING_SECONDS = 0.01
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class PeakMemory:
    """Peak memory of a phase in GB (1e9 bytes); filled in when the phase ends.

    Attributes:
        kind: ``gpu`` (allocated by torch on the device) or ``resident`` (of this process).
        start: in use when the phase began.
        peak: the most in use during the phase.
    """

    kind: str
    start: float = 0.0
    peak: float = 0.0

    @property
    def above_start(self) -> float:
        """What the phase itself added at its peak."""
        return self.peak - self.start


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the block's peak memory.

    Memory that earlier phases have freed is given back first, so that a phase is not credited with
    reusing it. On Linux the kernel's own high-water mark is read; elsewhere resident memory is sampled.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        result = PeakMemory("gpu", start=torch.cuda.memory_allocated(device) / GB)
        yield result
        result.peak = torch.cuda.max_memory_allocated(device) / GB
        return
    _give_back_freed_memory()
    result = PeakMemory("resident", start=psutil.Process().memory_info().rss / GB)
    with _high_water_mark() if _reset_high_water_mark() else _sampled() as read:
        yield result
        result.peak = max(read() / GB, result.start)


def _give_back_freed_memory() -> None:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # Not glibc: the peak above start is then a lower bound.


def _reset_high_water_mark() -> bool:
    """Writing 5 resets the kernel's peak of resident memory (proc(5), clear_refs)."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


@contextmanager
def _high_water_mark() -> Iterator:
    yield lambda: int(_STATUS.read_text().partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def _sampled() -> Iterator:
    process, done, peak = psutil.Process(), threading.Event(), 0

    def sample() -> None:
        nonlocal peak
        while not done.wait(_SAMPLING_SECONDS):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: max(peak, process.memory_info().rss)
    finally:
        done.set()
        thread.join()
