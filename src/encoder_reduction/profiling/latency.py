"""How long calls take: warmed up, synchronised, repeated until the median is known well enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Call = Callable[[], Any]

_RESAMPLES = 1000
_SETTLED = 0.02
_MIN_WARMUP, _MAX_WARMUP = 3, 20
# The interval is looked at again after this many times the sweeps, so that looking costs little.
_GROWTH = 1.2
# Share of the time that is taken at least, however sure a few repetitions seem.
_LEAST_SHARE = 0.2


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


@dataclass(frozen=True)
class Ratio:
    """How many times as long a first set of calls takes as another, measured in turn.

    Attributes:
        median: median over the rounds of the first's sweep time / the other's.
        interval: 95% bootstrap interval of the median.
        rounds: how many times both were measured.
    """

    median: float
    interval: tuple[float, float]
    rounds: int


def measure(
    calls: Sequence[Call],
    examples: int,
    *,
    device: torch.device,
    relative_width: float,
    min_repetitions: int,
    time_budget: float,
) -> Latency:
    """Time a set of calls on a device.

    Warm-up sweeps run until one more moves their median by less than 2%, or the time budget is spent. Sweeps
    are then counted until the 95% bootstrap interval of the median is narrow enough, or the budget is spent again.

    Args:
        calls: what to time; each is timed on its own, with CUDA events on a GPU.
        examples: examples that one sweep over the calls handles.
        device: where the calls do their work.
        relative_width: wanted width of the median's interval over the median.
        min_repetitions: sweeps at the least, whatever the budget.
        time_budget: seconds for warming up, and again for the counted sweeps.
    """
    timed = _timer(device)
    _warm_up(lambda: _sweep(calls, timed), time_budget)

    def narrow(sweeps: list[list[float]]) -> bool:
        return _latency(np.asarray(sweeps), examples).relative_width <= relative_width

    sweeps = _repeat(lambda: _sweep(calls, timed), narrow, min_repetitions, time_budget)
    return _latency(np.asarray(sweeps), examples)


def measure_interleaved(
    contenders: Sequence[Sequence[Call]],
    *,
    device: torch.device,
    relative_width: float,
    min_repetitions: int,
    time_budget: float,
) -> list[Ratio]:
    """How many times as fast as the first each set of calls is, measured in turn, every round in another order.

    What slows the machine for a while slows all of them, so the ratio within a round holds where the
    times themselves do not. Each turn begins with a sweep that is not counted: it brings back into the caches what the
    others have driven out, as where one of them runs alone.

    Args:
        contenders: sets of calls that do the same work in different ways; the first is the reference.
        device: where the calls do their work.
        relative_width: wanted width of each ratio's interval over the ratio.
        min_repetitions: rounds at the least, whatever the budget.
        time_budget: seconds for warming up, and again for the counted rounds.

    Returns:
        One ratio a contender, the first's own (1 exactly) included.
    """
    timed, draw = _timer(device), np.random.default_rng(0)

    def one_round() -> list[float]:
        times = [0.0] * len(contenders)
        for index in draw.permutation(len(contenders)):  # None always follows the same.
            _sweep(contenders[index], timed)
            times[index] = sum(_sweep(contenders[index], timed))
        return times

    def narrow(rounds: list[list[float]]) -> bool:
        return all((r.interval[1] - r.interval[0]) <= relative_width * r.median for r in _ratios(np.asarray(rounds)))

    _warm_up(one_round, time_budget)
    return _ratios(np.asarray(_repeat(one_round, narrow, min_repetitions, time_budget)))


def _timer(device: torch.device) -> Callable[[Call], float]:
    return _cuda_ms if device.type == "cuda" else _cpu_ms


def _sweep(calls: Sequence[Call], timed: Callable[[Call], float]) -> list[float]:
    return [timed(call) for call in calls]


def _warm_up(sweep: Callable[[], list[float]], time_budget: float) -> None:
    totals: list[float] = []
    started = time.perf_counter()
    while len(totals) < _MIN_WARMUP or (len(totals) < _MAX_WARMUP and time.perf_counter() - started < time_budget):
        before = np.median(totals) if totals else 0.0
        totals.append(sum(sweep()))
        if len(totals) >= _MIN_WARMUP and abs(np.median(totals) - before) <= _SETTLED * before:
            return


def _repeat(
    sweep: Callable[[], list[float]],
    narrow: Callable[[list[list[float]]], bool],
    min_repetitions: int,
    time_budget: float,
) -> list[list[float]]:
    sweeps: list[list[float]] = []
    look_at = float(min_repetitions)
    started = time.perf_counter()
    while True:
        sweeps.append(sweep())
        if len(sweeps) < min_repetitions:
            continue
        seconds = time.perf_counter() - started
        # What slows the machine for a while is in no interval of sweeps that end before it does.
        enough = seconds >= _LEAST_SHARE * time_budget and len(sweeps) >= look_at
        if seconds > time_budget or (enough and narrow(sweeps)):
            return sweeps
        if len(sweeps) >= look_at:
            look_at = len(sweeps) * _GROWTH


def _cpu_ms(call: Call) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _cuda_ms(call: Call) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _latency(times: np.ndarray, examples: int) -> Latency:
    """The summary of call times ``(sweeps, calls)`` in milliseconds."""
    per_example = times.sum(axis=1) / examples
    p50, p90, p95 = np.percentile(times, [50, 90, 95])
    return Latency(
        examples=examples,
        repetitions=len(times),
        ms_per_example=float(np.median(per_example)),
        interval=_median_interval(per_example),
        mean=float(per_example.mean()),
        std=float(per_example.std(ddof=1)),
        call_p50=float(p50),
        call_p90=float(p90),
        call_p95=float(p95),
    )


def _ratios(times: np.ndarray) -> list[Ratio]:
    """Ratios of the first column to each, from times ``(rounds, contenders)``."""
    return [Ratio(float(np.median(ratio)), _median_interval(ratio), len(ratio)) for ratio in (times[:, :1] / times).T]


def _median_interval(values: np.ndarray) -> tuple[float, float]:
    resampled = np.random.default_rng(0).choice(values, size=(_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(low), float(high)
