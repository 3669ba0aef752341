"""Times of other architectures: measured in turn with the whole network, each once, and kept."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from networks import random_batch, small

from encoder_reduction.models.architectures import sizes_of
from encoder_reduction.plan import presets
from encoder_reduction.profiling.inference import Workload
from encoder_reduction.runs import timing
from encoder_reduction.runs.timing import Timings


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Which networks were measured, and how long was allowed for it; each takes a time by its layers."""
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path))
    seen = []

    def in_turn(calls, device, relative_width, min_repetitions, time_budget):
        networks = [contender[0].args[0] for contender in calls]
        for network in networks:
            assert torch.isfinite(network(**inputs()).logits).all()
        seen.append(([sizes_of(network) for network in networks], time_budget, relative_width))
        return [SimpleNamespace(median=sizes_of(networks[0]).layers / sizes_of(each).layers) for each in networks]

    monkeypatch.setattr(timing, "measure_interleaved", lambda calls, *, device, **more: in_turn(calls, device, **more))
    monkeypatch.setattr(timing, "watched", lambda device: nullcontext(SimpleNamespace(warnings=lambda: [])))
    return seen


def test_what_was_measured_while_others_computed_is_not_kept(measured, monkeypatch, caplog):
    busy = SimpleNamespace(warnings=lambda: ["other processes took 20% of the processors"])
    monkeypatch.setattr(timing, "watched", lambda device: nullcontext(busy))
    asked = timings()
    sizes = asked.full.resized(layers=2, heads=2, intermediate=32)
    assert asked.of([sizes]) == asked.of([sizes]) == [0.5]
    assert "other processes took 20% of the processors: they are not kept" in caplog.text
    assert len(measured) == 1
    assert timings().surely(sizes) == 0.5
    assert timings().of([sizes]) == [0.5]
    assert len(measured) == 3


def inputs():
    return {name: tensor for name, tensor in random_batch().items() if name != "labels"}


def timings(tokens=12, precision="fp32"):
    whole = small("bert", layers=4, heads=2, head_size=8, intermediate=32)
    batch = {name: tensor[:, :tokens] for name, tensor in inputs().items()}
    return Timings(whole, Workload("texts", 4, [batch]), precision, presets.load("packaged")[0].profiling)


def test_each_is_measured_once_whoever_asks(measured):
    full = timings().full
    two, one = full.resized(layers=2, heads=2, intermediate=32), full.resized(layers=1, heads=2, intermediate=32)
    assert timings().of([two, one, two]) == [0.5, 0.25, 0.5]
    assert measured[0][0] == [full, two, one]
    assert timings().of([one, two]) == [0.25, 0.5]
    assert len(measured) == 1


def test_another_workload_or_precision_is_measured_on_its_own(measured):
    sizes = [timings().full.resized(layers=2, heads=2, intermediate=32)]
    for other in (timings(), timings(tokens=9), timings(precision="bf16")):
        other.of(sizes)
    assert len(measured) == 3


def test_what_decides_alone_is_measured_for_longer(measured):
    sizes = timings().full.resized(layers=2, heads=2, intermediate=32)
    timings().of([sizes])
    assert timings().surely(sizes) == 0.5
    assert timings().surely(sizes) == 0.5
    (_, short, _), (_, long, narrow) = measured
    assert long > 3 * short
    assert narrow <= 0.02


def test_many_are_measured_a_few_at_once(measured):
    full = timings().full
    timings().of([full.resized(intermediate=units) for units in range(1, 16)])
    assert max(len(sizes) for sizes, *_ in measured) <= 7
    assert all(sizes[0] == full for sizes, *_ in measured)


def test_drawing_their_weights_is_no_matter_of_the_runs_seed(measured):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    asked = timings()
    torch.manual_seed(5)
    asked.of([asked.full.resized(layers=1, heads=2, intermediate=32)])
    assert torch.equal(torch.rand(3), expected)


def test_of_two_that_measured_at_once_the_first_counts_and_nothing_is_lost(measured):
    """As tasks of an array do that share a cache: both had found nothing there."""
    one, other = timings(), timings()
    sizes = [one.full.resized(layers=layers, heads=2, intermediate=32) for layers in (1, 2, 3)]
    one.of(sizes[:2])
    other.of(sizes[1:])
    assert timings().of(sizes) == [0.25, 0.5, 0.75]
    assert len(measured) == 2
