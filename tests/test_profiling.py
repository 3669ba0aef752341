import time

import numpy as np
import pytest
import torch

from encoder_reduction.profiling.latency import measure
from encoder_reduction.profiling.memory import peak_memory

CPU = torch.device("cpu")


def busy(seconds):
    """A call that takes this long, whatever the scheduler does with a sleeping process."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_known_delay_is_measured():
    calls = [lambda: busy(0.010), lambda: busy(0.030)]
    result = measure(calls, examples=8, device=CPU, relative_width=0.05, min_repetitions=5, time_budget=2)
    assert result.ms_per_example == pytest.approx(5, rel=0.05)
    assert result.interval[0] <= result.ms_per_example <= result.interval[1]
    assert result.call_p95 == pytest.approx(30, rel=0.1)
    assert result.examples_per_second == pytest.approx(200, rel=0.05)
    assert result.repetitions >= 5


def test_repetitions_go_on_until_the_median_is_known():
    generator = np.random.default_rng(0)
    noisy = [lambda: busy(0.001 * (1 + generator.exponential()))]
    wide = measure(noisy, 1, device=CPU, relative_width=1.0, min_repetitions=3, time_budget=5)
    narrow = measure(noisy, 1, device=CPU, relative_width=0.15, min_repetitions=3, time_budget=5)
    assert narrow.repetitions > wide.repetitions
    assert narrow.relative_width <= 0.15


def test_a_known_tensor_shows_in_the_peak():
    size = 200_000_000
    with peak_memory(CPU) as memory:
        tensor = torch.ones(size // 4)
        del tensor
    assert memory.kind == "resident"
    assert memory.above_start == pytest.approx(size / 1e9, rel=0.02)


def test_a_phase_is_not_credited_with_memory_that_an_earlier_one_freed():
    with peak_memory(CPU) as first:
        parts = [torch.ones(25_000) for _ in range(2000)]
        del parts
    with peak_memory(CPU) as second:
        parts = [torch.ones(25_000) for _ in range(2000)]
        del parts
    assert second.above_start == pytest.approx(first.above_start, rel=0.05)
