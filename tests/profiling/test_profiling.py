import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from encoder_reduction.profiling import energy, latency, machine, nvidia
from encoder_reduction.profiling.compute import Shape, matrix_product_rate, total
from encoder_reduction.profiling.latency import measure, measure_interleaved
from encoder_reduction.profiling.memory import only_new_garbage, peak_memory, training_state

pytestmark = pytest.mark.alone

CPU, GPU = torch.device("cpu"), torch.device("cuda")


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
    assert 10 <= result.call_p50 <= result.call_p90 <= result.call_p95
    assert result.call_p95 == pytest.approx(30, rel=0.25)
    assert result.examples_per_second == pytest.approx(200, rel=0.05)
    assert result.repetitions >= 5


def test_repetitions_go_on_until_the_median_is_known(monkeypatch):
    monkeypatch.setattr(latency, "_LEAST_SHARE", 0.0)
    generator = np.random.default_rng(0)
    noisy = [lambda: busy(0.001 * (1 + generator.exponential()))]
    wide = measure(noisy, 1, device=CPU, relative_width=1.0, min_repetitions=3, time_budget=5)
    narrow = measure(noisy, 1, device=CPU, relative_width=0.15, min_repetitions=3, time_budget=5)
    assert narrow.repetitions > wide.repetitions
    assert narrow.relative_width <= 0.15


def test_interleaved_ratios_survive_a_machine_that_slows_down():
    """Every call takes longer than the one before it; measured apart, the second would look much slower."""
    started = time.perf_counter()

    def slowing(seconds):
        return lambda: busy(seconds * (1 + time.perf_counter() - started))

    contenders = [[slowing(0.010)], [slowing(0.005)], [slowing(0.010)]]
    first, half, same = measure_interleaved(
        contenders, device=CPU, relative_width=0.01, min_repetitions=20, time_budget=1
    )
    assert (first.median, first.interval) == (1, (1, 1))
    assert half.median == pytest.approx(2, rel=0.05)
    assert same.median == pytest.approx(1, rel=0.05)
    assert half.interval[0] <= half.median <= half.interval[1]
    assert half.rounds >= 20


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


def test_garbage_is_looked_for_in_what_is_new():
    def circle():
        layer = nn.Linear(1, 1)
        layer.itself = [layer]
        return weakref.ref(layer)

    old = circle()
    with only_new_garbage():
        new = circle()
        gc.collect()
        assert old()
        assert not new()
    gc.collect()
    assert not old()


def test_the_parts_of_a_training_step_are_told_apart():
    model = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    inputs = torch.randn(8, 100)
    optimizer = torch.optim.AdamW(model.parameters())
    model(inputs).sum().backward()
    optimizer.step()
    state = training_state(model, optimizer, lambda: model(inputs).sum())
    weights = 4 * (100 * 50 + 50 + 50 * 10 + 10)
    assert state.parameters == state.gradients == pytest.approx(weights / 1e9)
    # Two moments a weight, and one number of steps for each of the four tensors.
    assert state.optimizer == pytest.approx((2 * weights + 4 * 4) / 1e9)
    # The input of the first layer and the output of the ReLU, which is the input of the second.
    assert state.activations == pytest.approx(4 * (8 * 100 + 8 * 50) / 1e9)


def test_flops_of_batches_add_up_padding_included():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert Shape.of(mask) == Shape(examples=2, padded=4, tokens=4)
    assert total(lambda tokens: tokens**2, [Shape.of(mask), Shape(3, 5, 15)]) == 2 * 16 + 3 * 25


def test_the_rate_of_a_matrix_product_is_that_of_one_timed_by_hand():
    left = torch.randn(2048, 2048)
    started = time.perf_counter()
    for _ in range(3):
        left @ left
    by_hand = 3 * 2 * 2048**3 / (time.perf_counter() - started)
    assert matrix_product_rate(CPU, torch.float32, time_budget=0.5) == pytest.approx(by_hand, rel=0.5)


def rapl(folder, name, microjoules, limit=1000):
    package = folder / name
    package.mkdir(exist_ok=True)
    (package / "energy_uj").write_text(f"{microjoules}\n")
    (package / "max_energy_range_uj").write_text(f"{limit}\n")


def test_energy_is_read_from_rapl_packages_and_survives_the_counters_wrap(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    rapl(tmp_path, "intel-rapl:0", 900)
    rapl(tmp_path, "intel-rapl:1", 100)
    rapl(tmp_path, "intel-rapl:0:0", 500)  # a part of package 0
    with energy.energy_used(CPU) as used:
        rapl(tmp_path, "intel-rapl:0", 99)  # from 900 over 1000 to 99: 200
        rapl(tmp_path, "intel-rapl:1", 150)
        rapl(tmp_path, "intel-rapl:0:0", 999)
    assert used.source == "RAPL"
    assert used.joules == pytest.approx(250e-6)


def test_energy_is_absent_without_a_counter(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "nothing")
    with energy.energy_used(CPU) as used:
        pass
    assert (used.source, used.joules) == (None, None)
    assert energy.joules_per_example([lambda: None], 1, CPU, seconds=0.1) is None


def test_a_busy_machine_is_noticed():
    """Another process that computes all the while takes its share of the processors; a child of ours is none."""
    forever = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(forever) as child:
        with machine.watched(CPU) as with_child:
            busy(1.0)
        child.kill()
    assert with_child.others < 0.2
    # Its parent, a shell, ends at once, so that it is nobody's child any more.
    started = subprocess.run(["sh", "-c", '"$@" > /dev/null & echo $!', "sh", *forever], stdout=subprocess.PIPE)
    with machine.watched(CPU) as watch:
        busy(1.0)
    os.kill(int(started.stdout), signal.SIGKILL)
    assert watch.others > 0.2
    assert any("other processes took" in warning for warning in watch.warnings())
    assert watch.start.threads == torch.get_num_threads()
    assert watch.as_dict()["warnings"] == watch.warnings()


class FakeNvml:
    """NVML of a GPU that uses 2 GB, for what happens where the real one is hidden or present."""

    NVMLError = type("NVMLError", (Exception,), {})
    nvmlClocksThrottleReasonSwPowerCap = 4  # noqa: N815
    nvmlClocksThrottleReasonSwThermalSlowdown = 32  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 64  # noqa: N815
    nvmlClocksThrottleReasonHwSlowdown = 8  # noqa: N815

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetMemoryInfo(self, gpu):  # noqa: N802
        return SimpleNamespace(used=2e9)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):  # noqa: N802
        return 4 | 64

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):  # noqa: N802
        raise self.NVMLError


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(nvidia, "uuid", lambda device: "GPU-1")


@pytest.mark.parametrize("missing", ["GPUtil", "distutils"])
def test_nvml_answers_where_gputil_cannot(monkeypatch, a_gpu, missing):
    """GPUtil imports distutils, which Python has lost; there it comes with setuptools, which torch needs."""
    for name in ("GPUtil", "GPUtil.GPUtil"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError):
        __import__("GPUtil")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    reader = nvidia.memory_reader(GPU)
    assert (reader.source, reader.read()) == ("NVML", 2.0)
    assert machine._throttling(GPU) == ("power cap", "heat, by hardware")
    assert energy.energy_counter(GPU) is None  # an older GPU has no counter


def test_gputil_is_asked_first(monkeypatch, a_gpu):
    gpus = [SimpleNamespace(uuid="GPU-0", memoryUsed=1.0), SimpleNamespace(uuid="GPU-1", memoryUsed=1000.0)]
    monkeypatch.setitem(sys.modules, "GPUtil", SimpleNamespace(getGPUs=lambda: gpus))
    reader = nvidia.memory_reader(GPU)
    assert (reader.source, reader.read()) == ("GPUtil", pytest.approx(1.048576))


def test_without_driver_and_tools_there_is_no_answer_and_no_failure(monkeypatch, a_gpu):
    monkeypatch.setitem(sys.modules, "GPUtil", None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvidia.memory_reader(GPU) is None
    assert nvidia.nvml(GPU, lambda pynvml, gpu: 1) is None
    assert energy.energy_counter(GPU) is None
    state = machine.look(CPU)
    assert (state.driver, state.temperature_celsius, state.throttling, state.gpu_processes) == (None, None, (), None)
