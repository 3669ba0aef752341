"""Energy from the counters of the hardware: NVML's of a GPU, RAPL's of a CPU. Never estimated."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .nvidia import nvml

# The kernel's RAPL counters, one folder a processor package (Documentation/power/powercap).
_POWERCAP = Path("/sys/class/powercap")
_MICROJOULES = 1e-6
_MILLIJOULES = 1e-3


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of the energy a device has used, by all that runs on it.

    Attributes:
        source: ``NVML`` (the GPU) or ``RAPL`` (the processor packages, without memory).
        joules_since: energy since a reading.
        read: a reading.
    """

    source: str
    read: Callable[[], Any]
    joules_since: Callable[[Any], float]


@dataclass
class EnergyUsed:
    """Energy of a phase; ``joules`` is filled in when it ends (or by ``update``), ``None`` without a counter."""

    source: str | None
    joules: float | None = None
    update: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def readings(self) -> dict[str, Any]:
        """Source and energy up to now, within the phase."""
        self.update()
        return {"source": self.source, "joules": self.joules}


def energy_counter(device: torch.device) -> EnergyCounter | None:
    """The device's counter, ``None`` where it has none or this user may not read it."""
    if device.type == "cuda":
        return _nvml_counter(device)
    return _rapl_counter()


@contextmanager
def energy_used(device: torch.device) -> Iterator[EnergyUsed]:
    """Read the device's counter before and after the block."""
    counter = energy_counter(device)
    used = EnergyUsed(counter.source if counter else None)
    before = counter.read() if counter else None

    def update() -> None:
        if counter:
            used.joules = counter.joules_since(before)

    used.update = update
    yield used
    update()


def of_pieces(pieces: Sequence[EnergyUsed]) -> EnergyUsed:
    """The energy of a phase that was interrupted and went on in other processes; known if all pieces' is."""
    joules = [piece.joules for piece in pieces]
    return EnergyUsed(pieces[-1].source, None if None in joules else sum(joules))


def joules_per_example(
    calls: Sequence[Callable[[], object]], examples: int, device: torch.device, seconds: float
) -> float | None:
    """Energy of a sweep over the calls per example, averaged over at least this many seconds.

    Counters move every few milliseconds to a tenth of a second, so single calls are too short for them.
    ``None`` where there is no counter.
    """
    counter = energy_counter(device)
    if counter is None:
        return None
    sweeps, started, before = 0, time.perf_counter(), counter.read()
    while time.perf_counter() - started < seconds:
        for call in calls:
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        sweeps += 1
    return counter.joules_since(before) / (sweeps * examples)


def _nvml_counter(device: torch.device) -> EnergyCounter | None:
    def read() -> float | None:
        return nvml(device, lambda pynvml, gpu: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu))

    if read() is None:
        return None
    return EnergyCounter("NVML", read, lambda before: (read() - before) * _MILLIJOULES)


def _rapl_counter() -> EnergyCounter | None:
    # One colon: a package. Two: a part of it, whose energy the package has counted already.
    packages = sorted(path for path in _POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1)

    def read() -> list[int]:
        return [int((package / "energy_uj").read_text()) for package in packages]

    try:
        ranges = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        read()
    except (OSError, ValueError):
        return None  # Since kernel 5.10 only root may read them.
    if not packages:
        return None

    def joules_since(before: list[int]) -> float:
        # A counter that has passed its range starts again from zero.
        used = [(now - then) % (top + 1) for now, then, top in zip(read(), before, ranges, strict=True)]
        return sum(used) * _MICROJOULES

    return EnergyCounter("RAPL", read, joules_since)
