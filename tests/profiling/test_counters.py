"""Clocks, counters and products whose every reading is known, so that no machine needs to be quiet."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import random_batch, small
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from encoder_reduction.profiling import compute, energy, latency, machine, memory, nvidia
from encoder_reduction.profiling.inference import flops_of
from encoder_reduction.training.pieces import Record

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
    monkeypatch.setattr(latency, "_LEAST_SHARE", 0.0)
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


@pytest.fixture
def readings(monkeypatch):
    """Calls say themselves how many milliseconds they took."""
    monkeypatch.setattr(latency, "_timer", lambda device: lambda call: call())
    monkeypatch.setattr(latency, "_LEAST_SHARE", 0.0)


def taking(*milliseconds):
    """A call that takes these times in turn, and the last one for ever."""
    left = list(milliseconds)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def once(calls, examples=1, repetitions=4):
    return latency.measure(calls, examples, device=CPU, relative_width=1.0, min_repetitions=repetitions, time_budget=60)


def test_a_call_that_is_still_getting_faster_is_warmed_up_further(readings):
    """The median of the sweeps so far moves until more of them took 20 ms than longer."""
    result = once([taking(90, 60, 30, 25, 20)])
    assert result.mean == 20


def test_every_figure_of_a_latency_is_the_one_worked_out_by_hand(readings):
    first, second = [8.0, 8, 8, 8, 12, 10, 9], [2.0, 2, 2, 2, 4, 2, 3]
    result = once([taking(*first), taking(*second)], examples=2)
    sweeps = np.add(first, second)[3:] / 2
    calls = np.concatenate([first[3:], second[3:]])
    assert (result.repetitions, result.examples) == (4, 2)
    assert result.ms_per_example == np.median(sweeps)
    assert result.mean == pytest.approx(sweeps.mean())
    assert result.std == pytest.approx(stats.tstd(sweeps))
    assert (result.call_p50, result.call_p90, result.call_p95) == tuple(np.percentile(calls, [50, 90, 95]))
    assert result.interval == (sweeps.min(), sweeps.max())
    assert result.examples_per_second == 1000 / np.median(sweeps)
    assert result.relative_width == (sweeps.max() - sweeps.min()) / np.median(sweeps)


def test_sweeps_go_on_until_the_median_is_known_well_enough(readings):
    noisy = np.random.default_rng(0).normal(10, 2, 2000)
    result = latency.measure([taking(*noisy)], 1, device=CPU, relative_width=0.05, min_repetitions=4, time_budget=60)
    assert 4 < result.repetitions < 1000
    assert result.relative_width <= 0.05


def test_a_few_quick_sweeps_are_not_enough_however_alike(clock, monkeypatch):
    """The machine is slow for the first second of the ten that there are, and every sweep of that is the same."""
    monkeypatch.setattr(latency, "_LEAST_SHARE", 0.2)

    def call():
        clock.now += 0.020 if clock.now < 1 else 0.010

    found = latency.measure([call], 1, device=CPU, relative_width=0.05, min_repetitions=4, time_budget=10)
    assert clock.now >= 2
    assert found.ms_per_example == pytest.approx(10)


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


def turns(readings, rounds=30):
    """Who is called when, each taking ten times as long where another was called before."""
    order = []

    def named(name, milliseconds):
        def call():
            cold = not order or order[-1] != name
            order.append(name)
            return 10 * milliseconds if cold else milliseconds

        return [call]

    contenders = [named("A", 10.0), named("B", 5.0), named("C", 20.0)]
    ratios = latency.measure_interleaved(
        contenders, device=CPU, relative_width=0, min_repetitions=rounds, time_budget=0
    )
    return order, [ratio.median for ratio in ratios]


def test_what_another_has_driven_out_of_the_caches_is_not_timed(readings):
    assert turns(readings)[1] == [1, 2, 0.5]


def test_contenders_take_turns_and_none_always_follows_the_same(readings):
    order, _ = turns(readings)
    rounds = ["".join(order[start : start + 6]) for start in range(0, len(order), 6)]
    assert all(sorted(each) == sorted("AABBCC") for each in rounds)
    assert {each[0] for each in rounds} == {each[2] for each in rounds} == {"A", "B", "C"}
    assert len(set(rounds)) == 6
    assert turns(readings)[0] == order


def test_a_matrix_product_has_two_operations_for_each_multiplication(monkeypatch):
    monkeypatch.setattr(compute, "measure", lambda calls, examples, **more: SimpleNamespace(ms_per_example=500.0))
    monkeypatch.setitem(compute._PRODUCT_SIZE, "cpu", 100)
    assert compute.matrix_product_rate(CPU, torch.float32, time_budget=1) == 2 * 100**3 / 0.5


def test_training_computes_three_times_what_inference_does():
    """Every product of the forward pass has two in the backward pass, by each of its factors."""
    model = small("bert", layers=2, heads=2, head_size=4, intermediate=16)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 10, dtype=torch.long)).logits.sum().backward()
    assert flops_of(model).training(10) == pytest.approx(counter.get_total_flops())


def test_padding_is_no_token():
    record, batch = Record(), random_batch()
    for mask in (batch["attention_mask"], batch["attention_mask"][:1, :9]):
        record.note_batch({"attention_mask": mask})
    assert record.shapes() == [compute.Shape(4, 12, 42), compute.Shape(1, 9, 9)]
    assert record.largest["attention_mask"].shape == (4, 12)


def test_energy_of_an_example_is_the_counters_over_all_that_was_computed(monkeypatch):
    joules = []
    counter = energy.EnergyCounter("RAPL", lambda: len(joules), lambda before: float(len(joules) - before))
    monkeypatch.setattr(energy, "energy_counter", lambda device: counter)
    clock = iter([0.0, 0.0, 0.6, 1.2])
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    calls = [lambda: joules.append(1)] * 3
    assert energy.joules_per_example(calls, 6, CPU, seconds=1.0) == 0.5
    assert len(joules) == 2 * 3


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


def test_nvml_counts_a_gpus_memory_in_bytes(monkeypatch):
    pynvml = SimpleNamespace(nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=3e9))
    monkeypatch.setattr(nvidia, "nvml_handle", lambda device: (pynvml, "GPU-1"))
    assert nvidia._nvml_memory(GPU)() == 3.0


def test_the_peak_over_pieces_is_the_highest_and_what_the_phase_added_the_most():
    first = memory.PeakMemory("resident", start=1.0, peak=5.0)
    second = memory.PeakMemory("resident", start=3.0, peak=6.0)
    whole = memory.of_pieces([first, second])
    assert (whole.peak, whole.above_start, whole.start) == (6.0, 4.0, 2.0)


def state(**changed):
    values = {
        "device": "a GPU", "driver": None, "clock_mhz": None, "temperature_celsius": None, "throttling": (),
        "gpu_processes": 0, "load_average": None, "threads": 2,
    }  # fmt: skip
    return machine.MachineState(**values | changed)


def test_a_machine_is_doubted_for_what_others_took_and_for_nothing_less():
    assert machine.Watch(state()).warnings() == []
    assert machine.Watch(state(), others=0.4, seconds=60.0).warnings() == ["other processes took 40% of the processors"]
    assert machine.Watch(state(), stolen=0.3, seconds=60.0).warnings() == ["the host took 30% of the processors away"]


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
