"""Clocks and counters whose every reading is known, so that nothing depends on the machine."""

import sys

import pytest
import torch

from encoder_reduction.profiling import energy, latency, machine, nvidia

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Clock:
    """Stands still unless something takes time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_the_first_slow_sweeps_are_not_counted(clock):
    """A device that wakes up takes 4 s for the first sweep of two calls, then 2 s and 1 s; then each call 10 ms."""
    taken = []

    def call():
        taken.append([2.0, 2.0, 1.0, 1.0, 0.5, 0.5][len(taken)] if len(taken) < 6 else 0.010)
        clock.now += taken[-1]

    found = latency.measure([call, call], 4, device=CPU, relative_width=0.05, min_repetitions=10, time_budget=60)
    assert (found.ms_per_example, found.mean, found.std) == pytest.approx((5.0, 5.0, 0.0))
    assert (found.call_p50, found.call_p95, found.repetitions) == (pytest.approx(10), pytest.approx(10), 10)


def test_contenders_warm_up_before_their_rounds_count(clock):
    calls = {"first": 0, "other": 0}

    def contender(name, cold, warm):
        def call():
            calls[name] += 1
            clock.now += cold if calls[name] <= 3 else warm

        return [call]

    contenders = [contender("first", 9.0, 0.020), contender("other", 0.010, 0.010)]
    _, other = latency.measure_interleaved(
        contenders, device=CPU, relative_width=0.05, min_repetitions=2, time_budget=60
    )
    assert (other.median, other.interval) == (pytest.approx(2), pytest.approx((2, 2)))


class Counter:
    """NVML's counter of millijoules since the driver was loaded; this GPU draws 250 W for 10 ms between readings."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self):
        self.millijoules = 7_000_000

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):  # noqa: N802
        self.millijoules += 2_500
        return self.millijoules


def test_nvmls_millijoules_become_joules(monkeypatch):
    monkeypatch.setattr(nvidia, "uuid", lambda device: "GPU-1")
    monkeypatch.setitem(sys.modules, "pynvml", Counter())
    with energy.energy_used(GPU) as used:
        pass
    assert (used.source, used.joules) == ("NVML", pytest.approx(2.5))


def state(**changed):
    values = {
        "device": "a GPU", "driver": None, "clock_mhz": None, "temperature_celsius": None, "throttling": (),
        "gpu_processes": 0, "load_average": None, "threads": 2,
    }  # fmt: skip
    return machine.MachineState(**values | changed)


def test_the_machine_of_an_interrupted_phase_is_that_of_all_its_pieces():
    """Others took 9% of a first hour and nothing of two more, in which the GPU was hot at the beginning."""
    first = machine.Watch(state(), state(gpu_processes=3), others=0.09, stolen=0.0, seconds=3600.0)
    last = machine.Watch(state(throttling=("power cap",)), state(), others=0.0, stolen=0.09, seconds=7200.0)
    last.earlier = [machine.Watch.of(first.readings())]
    assert last.earlier == [first]
    assert last.warnings() == [
        "the host took 6% of the processors away",
        "3 other processes were on the GPU",
        "the GPU held its clock down (power cap)",
    ]
    whole = last.as_dict()
    assert [piece["seconds"] for piece in whole["earlier_pieces"]] == [3600.0]
    assert whole["earlier_pieces"][0]["end"]["gpu_processes"] == 3
    assert (whole["seconds"], whole["warnings"]) == (7200.0, last.warnings())


def test_readings_within_a_phase_are_up_to_date():
    with machine.watched(CPU) as watch:
        first, second = watch.readings(), watch.readings()
    assert 0 < first["seconds"] < second["seconds"] <= watch.seconds
    assert second["end"]["threads"] == torch.get_num_threads()
