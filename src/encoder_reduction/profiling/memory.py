"""The most memory a phase used: of the GPU on CUDA, resident memory of the process on a CPU."""

import ctypes
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from .nvidia import GB, memory_reader

_RESIDENT_SECONDS = 0.01
_DEVICE_SECONDS = 1.0  # GPUtil starts nvidia-smi for each reading; what torch has taken it keeps
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class PeakMemory:
    """Peak memory of a phase in GB (1e9 bytes); filled in when the phase ends.

    Attributes:
        kind: ``gpu`` (allocated by torch on the device), ``resident`` (of this process), or ``apart`` (resident memory
            of a process that did nothing else, from before it loaded the network).
        start: in use when the phase began.
        peak: the most in use during the phase.
        reserved: the most that torch's allocator had taken from the device; ``None`` on a CPU.
        device: the most in use on the device by all processes, sampled; ``None`` on a CPU or where
            neither GPUtil nor NVML answers.
        device_source: which of the two answered.
        update: takes the readings up to now, within the phase.
    """

    kind: str
    start: float = 0.0
    peak: float = 0.0
    reserved: float | None = None
    device: float | None = None
    device_source: str | None = None
    update: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def above_start(self) -> float:
        """What the phase itself added at its peak."""
        return self.peak - self.start

    @property
    def of_network(self) -> float | None:
        """What the network itself needed; ``None`` where that is not told from what the process held besides."""
        return {"gpu": self.peak, "apart": self.above_start}.get(self.kind)

    def readings(self) -> dict[str, Any]:
        """The values up to now, within the phase."""
        self.update()
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "update"}


@dataclass(frozen=True)
class TrainingState:
    """What training keeps in memory, in GB (1e9 bytes), told apart.

    Attributes:
        parameters: the weights.
        gradients: one for each trained weight, of the same size.
        optimizer: the optimizer's own tensors (AdamW: two moments for each weight).
        activations: what the forward pass of one batch keeps for the backward pass.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the block's peak memory.

    Memory that earlier phases have freed is given back first, so that a phase is not credited with
    reusing it. On Linux the kernel's own high-water mark is read; elsewhere resident memory is sampled.
    """
    start_peak_again()
    yield from _gpu_peak(device) if device.type == "cuda" else _resident_peak()


def start_peak_again() -> None:
    """Give back what nobody refers to any more, and let the running phase's peak on a GPU start from what is left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Within the block garbage is looked for in what is made there alone.

    The libraries have 700,000 objects, none of them garbage; looking at them takes 0.4 s each time, and some
    libraries ask for that at every call.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def of_pieces(pieces: Sequence[PeakMemory]) -> PeakMemory:
    """The peak of a phase that was interrupted and went on in other processes, the last of these given last."""

    def most(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    peak = max(piece.peak for piece in pieces)
    return PeakMemory(
        pieces[-1].kind,
        start=peak - max(piece.above_start for piece in pieces),
        peak=peak,
        reserved=most(piece.reserved for piece in pieces),
        device=most(piece.device for piece in pieces),
        device_source=pieces[-1].device_source,
    )


def training_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], torch.Tensor]
) -> TrainingState:
    """The parts of a training step's memory.

    Args:
        model: the network; its trained weights have gradients of their own size.
        optimizer: its optimizer, after at least one step.
        forward: computes the loss of one batch with the model in training mode.
    """
    states = [value for state in optimizer.state.values() for value in state.values()]
    return TrainingState(
        parameters=_bytes(model.parameters()) / GB,
        gradients=_bytes(p for p in model.parameters() if p.requires_grad) / GB,
        optimizer=_bytes(value for value in states if isinstance(value, torch.Tensor)) / GB,
        activations=_kept_for_backward(forward, model) / GB,
    )


def _kept_for_backward(forward: Callable[[], torch.Tensor], model: nn.Module) -> int:
    """Bytes of the tensors that autograd saves, each storage counted once, the weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself would tie the graph into a circle

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = forward()
    total = sum(kept.values())
    del loss  # Until here the graph holds the storages, so that no address is used twice.
    return total


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gpu_peak(device: torch.device) -> Iterator[PeakMemory]:
    result = PeakMemory("gpu", start=torch.cuda.memory_allocated(device) / GB)
    reader = memory_reader(device)
    with ExitStack() as stack:
        peak = stack.enter_context(_sampled(reader.read, _DEVICE_SECONDS)) if reader else None

        def update() -> None:
            result.peak = torch.cuda.max_memory_allocated(device) / GB
            result.reserved = torch.cuda.max_memory_reserved(device) / GB
            if reader and peak:
                result.device, result.device_source = peak(), reader.source

        result.update = update
        yield result
        update()


def _resident_peak() -> Iterator[PeakMemory]:
    result = PeakMemory("resident", start=resident_gb())
    with _high_water_mark() if _reset_high_water_mark() else _sampled(_resident, _RESIDENT_SECONDS) as read:

        def update() -> None:
            result.peak = max(read() / GB, result.start)

        result.update = update
        yield result
        update()


def resident_gb() -> float:
    """Resident memory of this process, GB (1e9 bytes), once what it has freed is given back."""
    _give_back_freed_memory()
    return _resident() / GB


def _resident() -> float:
    return float(psutil.Process().memory_info().rss)


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
def _high_water_mark() -> Iterator[Callable[[], float]]:
    yield lambda: int(_STATUS.read_text().partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def _sampled(read: Callable[[], float], seconds: float) -> Iterator[Callable[[], float]]:
    """The highest value of ``read`` while the block runs, read at this interval and at the end."""
    done, peak = threading.Event(), read()

    def sample() -> None:
        nonlocal peak
        while not done.wait(seconds):
            peak = max(peak, read())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: max(peak, read())
    finally:
        done.set()
        thread.join()
