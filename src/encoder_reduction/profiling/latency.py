"""How long calls take: warmed up, synchronised, repeated until the median is known well enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_RESAMPLES = 1000
_SETTLED = 0.05
_MAX_WARMUP = 20


@dataclass(frozen=True)
class Latency:
    """The latency of a set of calls that together handle some examples.

    One repetition is one sweep over the calls. Times are milliseconds.

    Attributes:
        examples: examples handled by one sweep.
        repetitions: sweeps that were counted, after warm-up.
        ms_per_example: median over the sweeps of sweep time / examples.
        interval: 95% bootstrap interval of ``ms_per_example``.
        mean: mean over the sweeps, per example.
        std: standard deviation over the sweeps, per example.
        call_p50, call_p90, call_p95: percentiles of single calls, whole call and not per example.
    """

    examples: int
    repetitions: int
    ms_per_example: float
    interval: tuple[float, float]
    mean: float
    std: float
    call_p50: float
    call_p90: float
    call_p95: float

    @property
    def examples_per_second(self) -> float:
        """Throughput at the median."""
        return 1000 / self.ms_per_example

    @property
    def relative_width(self) -> float:
        """Width of the median's interval over the median."""
        return (self.interval[1] - self.interval[0]) / self.ms_per_example


def measure(
    calls: Sequence[Callable[[], object]],
    examples: int,
    *,
    device: torch.device,
    relative_width: float,
    min_repetitions: int,
    time_budget: float,
) -> Latency:
    """Time a set of calls on a device.

    Warm-up sweeps run until two in succession agree within 5%. Sweeps are then counted until the 95%
    bootstrap interval of the median is narrow enough, or the time budget is spent.

    Args:
        calls: what to time; each is timed on its own, with CUDA events on a GPU.
        examples: examples that one sweep over the calls handles.
        device: where the calls do their work.
        relative_width: wanted width of the median's interval over the median.
        min_repetitions: sweeps at the least, whatever the budget.
        time_budget: seconds for the counted sweeps.
    """
    timed = _cuda_ms if device.type == "cuda" else _cpu_ms
    _warm_up(calls, timed)
    sweeps: list[list[float]] = []
    started = time.perf_counter()
    while True:
        sweeps.append([timed(call) for call in calls])
        if len(sweeps) < min_repetitions:
            continue
        result = _summary(sweeps, examples)
        if result.relative_width <= relative_width or time.perf_counter() - started > time_budget:
            return result


def _warm_up(calls: Sequence[Callable[[], object]], timed: Callable[[Callable[[], object]], float]) -> None:
    previous = None
    for _ in range(_MAX_WARMUP):
        current = sum(timed(call) for call in calls)
        if previous is not None and abs(current - previous) <= _SETTLED * previous:
            return
        previous = current


def _cpu_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _cuda_ms(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _summary(sweeps: list[list[float]], examples: int) -> Latency:
    times = np.asarray(sweeps)  # (sweeps, calls)
    per_example = times.sum(axis=1) / examples
    resampled = np.random.default_rng(0).choice(per_example, size=(_RESAMPLES, len(per_example)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    p50, p90, p95 = np.percentile(times, [50, 90, 95])
    return Latency(
        examples=examples,
        repetitions=len(sweeps),
        ms_per_example=float(np.median(per_example)),
        interval=(float(low), float(high)),
        mean=float(per_example.mean()),
        std=float(per_example.std(ddof=1)),
        call_p50=float(p50),
        call_p90=float(p90),
        call_p95=float(p95),
    )
