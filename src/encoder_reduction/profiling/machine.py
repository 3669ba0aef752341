"""The state of the machine while something was measured, and whether it was fit for measuring."""

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from ..plan.precision import resolve_precision
from .nvidia import nvml

# Shares of the machine's processor time beyond which timings are doubtful.
_OTHERS, _STOLEN = 0.05, 0.02


@dataclass(frozen=True)
class MachineState:
    """One look at the machine; ``None`` is what it does not tell.

    Attributes:
        device: the GPU's name, or the processor's.
        driver: version of the NVIDIA driver.
        clock_mhz: clock of the GPU's processors, or of the CPU.
        temperature_celsius: of the GPU.
        throttling: why the GPU holds its clock down.
        gpu_processes: other processes that compute on the GPU.
        load_average: runnable processes of the last minute, this one's threads included.
        threads: threads that torch computes with.
    """

    device: str
    driver: str | None
    clock_mhz: float | None
    temperature_celsius: float | None
    throttling: tuple[str, ...]
    gpu_processes: int | None
    load_average: float | None
    threads: int


@dataclass
class Watch:
    """The machine at the start and end of a phase, and who else used its processors meanwhile.

    Attributes:
        others: share of all processor time that went to other processes.
        stolen: share that the host of this virtual machine gave to somebody else.
        seconds: how long the phase has taken.
        earlier: the same of each piece of the phase before this one, in other processes.
        update: looks again, within the phase.
    """

    start: MachineState
    end: MachineState | None = None
    others: float = 0.0
    stolen: float = 0.0
    seconds: float = 0.0
    earlier: list["Watch"] = field(default_factory=list)
    update: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @classmethod
    def of(cls, readings: dict[str, Any]) -> "Watch":
        """A piece of a phase from its readings."""
        return cls(**readings | {name: MachineState(**readings[name]) for name in ("start", "end")})

    def readings(self) -> dict[str, Any]:
        """The values of this piece up to now, within the phase."""
        self.update()
        values = {name: getattr(self, name) for name in ("others", "stolen", "seconds")}
        return {"start": asdict(self.start), "end": asdict(self.end or self.start), **values}

    def warnings(self) -> list[str]:
        """What makes the timings of this phase doubtful, in words."""
        pieces = [*self.earlier, self]
        states = [state for piece in pieces for state in (piece.start, piece.end) if state]
        seconds = sum(piece.seconds for piece in pieces) or 1.0
        others, stolen = (
            sum(getattr(piece, share) * piece.seconds for piece in pieces) / seconds for share in ("others", "stolen")
        )
        found = []
        if others > _OTHERS:
            found.append(f"other processes took {others:.0%} of the processors")
        if stolen > _STOLEN:
            found.append(f"the host took {stolen:.0%} of the processors away")
        if count := max(state.gpu_processes or 0 for state in states):
            found.append(f"{count} other processes were on the GPU")
        if reasons := sorted({reason for state in states for reason in state.throttling}):
            found.append(f"the GPU held its clock down ({', '.join(reasons)})")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        earlier = [piece.readings() for piece in self.earlier]
        return {**self.readings(), "earlier_pieces": earlier, "warnings": self.warnings()}


@functools.cache
def device_name() -> str:
    """The GPU's name, or the processor's with the threads that torch uses, and whether it computes in bfloat16.

    Processors of several generations call themselves the same, and ``precision=auto`` is another on each.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    bf16 = ", bfloat16" if resolve_precision("auto") == "bf16" else ""
    return f"{_processor()} ({torch.get_num_threads()} threads{bf16})"


def look(device: torch.device) -> MachineState:
    """The machine's state now."""
    return MachineState(
        device=device_name(),
        driver=nvml(device, lambda pynvml, gpu: pynvml.nvmlSystemGetDriverVersion()),
        clock_mhz=_clock(device),
        temperature_celsius=nvml(device, lambda pynvml, gpu: pynvml.nvmlDeviceGetTemperature(gpu, 0)),
        throttling=_throttling(device),
        gpu_processes=nvml(device, _other_gpu_processes),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        threads=torch.get_num_threads(),
    )


@contextmanager
def watched(device: torch.device) -> Iterator[Watch]:
    """Look at the machine before and after the block, and at the processors' time in between."""
    watch = Watch(look(device))
    before, own, started = psutil.cpu_times(), _own_seconds(), time.perf_counter()

    def update() -> None:
        after = psutil.cpu_times()
        watch.seconds = time.perf_counter() - started
        capacity = watch.seconds * (psutil.cpu_count() or 1)
        stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
        used = _busy_seconds(after) - _busy_seconds(before)
        watch.others = max(0.0, used - (_own_seconds() - own)) / capacity
        watch.stolen = stolen / capacity
        watch.end = look(device)

    watch.update = update
    try:
        yield watch
    finally:
        update()
        watch.update = lambda: None


def _busy_seconds(times: Any) -> float:
    # Time of guests is part of user time; what the host took away is counted apart.
    left_out = {"idle", "iowait", "steal", "guest", "guest_nice"}
    return sum(value for name, value in times._asdict().items() if name not in left_out)


def _own_seconds() -> float:
    """Of this process and of those that it has started, which are no strangers."""
    own = psutil.Process()
    seconds = sum(own.cpu_times()[:4])  # of children that have ended, too
    for child in own.children(recursive=True):
        with suppress(psutil.Error):
            seconds += sum(child.cpu_times()[:4])
    return float(seconds)


def _clock(device: torch.device) -> float | None:
    if device.type == "cuda":
        return nvml(device, lambda pynvml, gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM))
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # as psutil's documentation has it, by platform
        return None
    return frequency.current if frequency else None


def _other_gpu_processes(pynvml: Any, gpu: Any) -> int:
    return sum(process.pid != os.getpid() for process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))


def _throttling(device: torch.device) -> tuple[str, ...]:
    def query(pynvml: Any, gpu: Any) -> tuple[str, ...]:
        active = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
        reasons = {
            "power cap": pynvml.nvmlClocksThrottleReasonSwPowerCap,
            "heat, by software": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
            "heat, by hardware": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
            "hardware slowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
        }
        return tuple(name for name, bit in reasons.items() if active & bit)

    return nvml(device, query) or ()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
