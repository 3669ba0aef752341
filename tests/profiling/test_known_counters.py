"""Clocks, counters and products whose every reading is known, so that no machine needs to be quiet."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import random_batch, small
from scipy import stats

from encoder_reduction.profiling import compute, energy, latency, memory, nvidia
from encoder_reduction.profiling.inference import flops_of
from encoder_reduction.profiling.machine import MachineState, Watch
from encoder_reduction.training.pieces import Record

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def readings(monkeypatch):
    """Calls say themselves how many milliseconds they took."""
    monkeypatch.setattr(latency, "_timer", lambda device: lambda call: call())


def taking(*milliseconds):
    """A call that takes these times in turn, and the last one for ever."""
    left = list(milliseconds)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def once(calls, examples=1, repetitions=4):
    return latency.measure(calls, examples, device=CPU, relative_width=1.0, min_repetitions=repetitions, time_budget=60)


def test_what_a_call_takes_while_it_warms_up_does_not_count(readings):
    result = once([taking(90, 90, 90, 1)])
    assert (result.mean, result.call_p95) == (1, 1)


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


def test_contenders_take_turns_and_each_begins_a_round_once(readings):
    order = []

    def named(name, milliseconds):
        def call():
            order.append(name)
            return milliseconds

        return [call]

    contenders = [named("A", 10.0), named("B", 5.0), named("C", 20.0)]
    ratios = latency.measure_interleaved(contenders, device=CPU, relative_width=1.0, min_repetitions=3, time_budget=60)
    assert "".join(order).startswith("ABCBCACAB")
    assert [ratio.median for ratio in ratios] == [1, 2, 0.5]


def test_a_matrix_product_has_two_operations_for_each_multiplication(monkeypatch):
    monkeypatch.setattr(compute, "measure", lambda calls, examples, **more: SimpleNamespace(ms_per_example=500.0))
    monkeypatch.setitem(compute._PRODUCT_SIZE, "cpu", 100)
    assert compute.matrix_product_rate(CPU, torch.float32, time_budget=1) == 2 * 100**3 / 0.5


def test_training_computes_three_times_what_inference_does():
    """Every product of the forward pass has two in the backward pass, by each of its factors."""
    flops = flops_of(small("bert", layers=2, heads=2, head_size=4, intermediate=16))
    assert flops.training(10) == pytest.approx(3 * flops.forward(10))


def test_energy_of_an_example_is_the_counters_over_all_that_was_computed(monkeypatch):
    joules = []
    counter = energy.EnergyCounter("RAPL", lambda: len(joules), lambda before: float(len(joules) - before))
    monkeypatch.setattr(energy, "energy_counter", lambda device: counter)
    clock = iter([0.0, 0.0, 0.6, 1.2])
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    calls = [lambda: joules.append(1)] * 3
    assert energy.joules_per_example(calls, 6, CPU, seconds=1.0) == 0.5
    assert len(joules) == 2 * 3


def test_nvmls_counter_is_in_thousandths_of_a_joule(monkeypatch):
    counted = iter([1_000, 1_000, 6_000, 6_000])
    pynvml = SimpleNamespace(nvmlDeviceGetTotalEnergyConsumption=lambda gpu: next(counted))
    monkeypatch.setattr(energy, "nvml", lambda device, query: query(pynvml, "GPU-1"))
    with energy.energy_used(GPU) as used:
        pass
    assert (used.source, used.joules) == ("NVML", 5.0)


def test_a_gpus_memory_is_in_bytes_for_nvml_and_in_mebibytes_for_gputil(monkeypatch):
    pynvml = SimpleNamespace(nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=3e9))
    monkeypatch.setattr(nvidia, "nvml_handle", lambda device: (pynvml, "GPU-1"))
    assert nvidia._nvml_memory(GPU)() == 3.0


def test_the_peak_over_pieces_is_the_highest_and_what_the_phase_added_the_most():
    first = memory.PeakMemory("resident", start=1.0, peak=5.0)
    second = memory.PeakMemory("resident", start=3.0, peak=6.0)
    whole = memory.of_pieces([first, second])
    assert (whole.peak, whole.above_start, whole.start) == (6.0, 4.0, 2.0)


def test_a_machine_is_doubted_for_what_others_took_and_for_nothing_less():
    state = MachineState(
        device="a GPU", driver=None, clock_mhz=None, temperature_celsius=None, throttling=(), gpu_processes=None,
        load_average=None, threads=1,
    )  # fmt: skip
    assert Watch(state).warnings() == []
    assert Watch(state, others=0.4).warnings() == ["other processes took 40% of the processors"]
    assert Watch(state, stolen=0.3).warnings() == ["the host took 30% of the processors away"]


def test_padding_is_no_token():
    record, batch = Record(), random_batch()
    for mask in (batch["attention_mask"], batch["attention_mask"][:1, :9]):
        record.note_batch({"attention_mask": mask})
    assert record.shapes() == [compute.Shape(4, 12, 42), compute.Shape(1, 9, 9)]
    assert record.largest["attention_mask"].shape == (4, 12)
