"""Every figure of a run, and its name, worked out by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from networks import small

from encoder_reduction.plan import presets
from encoder_reduction.profiling.compute import Flops, Shape
from encoder_reduction.profiling.inference import Workload
from encoder_reduction.profiling.latency import Latency
from encoder_reduction.profiling.memory import PeakMemory, TrainingState
from encoder_reduction.runs import description, figures
from encoder_reduction.training.evaluation import Evaluation
from encoder_reduction.training.fine_tuning import Training

FLOPS = Flops((0.0, 10.0, 1.0), (0.0, 30.0, 3.0))
TRAINING = Training(
    seconds=4.0, steps=3, shapes=[Shape(4, 10, 30), Shape(2, 5, 10)], state=TrainingState(0.1, 0.2, 0.3, 0.4),
    micro_batch_size=4, best_epoch=2.0, validation_accuracy=0.7, validation_f1=0.6, earlier_pieces=[],
)  # fmt: skip


def taking(milliseconds):
    """A latency per example, with every other figure apart from it."""
    return Latency(6, 9, milliseconds, (1.5, 2.5), 2.1, 0.2, 7.0, 8.0, 9.0)


def workload(name, size, examples=2, padded=10, tokens=8):
    mask = torch.zeros(examples, padded, dtype=torch.long)
    mask.view(-1)[:tokens] = 1
    return Workload(name, size, [{"attention_mask": mask}])


INFERENCE = figures.InferenceFigures(
    latencies=[
        (workload("texts", 16), taking(2.0)),
        (workload("texts", 1), taking(3.0)),
        (workload("64", 16), taking(4.0)),
        (workload("64", 1), taking(5.0)),
    ],
    tokenisation=taking(0.5),
    end_to_end=taking(2.75),
    flops=FLOPS,
    product_rate=1e6,
    joules=0.25,
)  # fmt: skip


def test_quality_is_of_the_test_split_and_selection_of_validation():
    found = figures.of_quality(TRAINING, Evaluation(0.8, 0.75, pd.DataFrame()))
    assert found == {
        "accuracy": 0.8, "f1": 0.75, "validation_accuracy": 0.7, "validation_f1": 0.6, "best_epoch": 2.0,
    }  # fmt: skip


def test_rates_of_training_are_over_its_seconds():
    found = figures.of_training(TRAINING, 12.0, INFERENCE)
    flops = 4 * (30 * 10 + 3 * 100) + 2 * (30 * 5 + 3 * 25)
    assert found == pytest.approx({
        "training_seconds": 4.0, "training_examples_per_second": 1.5, "training_tokens_per_second": 10.0,
        "training_padding": 0.2, "training_flops_per_second": flops / 4, "training_matrix_product_share": flops / 4e6,
        "training_joules_per_example": 2.0,
    })  # fmt: skip


def test_every_figure_of_inference_has_its_own_name():
    found, flops = figures.of_inference(INFERENCE), 10 * 10 + 100
    expected = {
        "inference_ms": 2.0, "inference_ms_low": 1.5, "inference_ms_high": 2.5, "inference_ms_mean": 2.1,
        "inference_ms_std": 0.2, "inference_batch_ms_p50": 7.0, "inference_batch_ms_p90": 8.0,
        "inference_batch_ms_p95": 9.0, "inference_repetitions": 9.0, "inference_examples_per_second": 500.0,
        "inference_tokens_per_second": 500 * 8 / 2, "tokenisation_ms": 0.5, "end_to_end_ms": 2.75,
        "flops_per_example": flops, "flops_128": 10 * 128 + 128**2, "inference_flops_per_second": 500 * flops,
        "matrix_product_flops_per_second": 1e6, "inference_matrix_product_share": 500 * flops / 1e6,
        "inference_ms_batch_1": 3.0, "inference_ms_64": 4.0, "inference_ms_64_batch_1": 5.0,
        "inference_joules_per_example": 0.25,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_memory_is_that_of_its_phase():
    training = PeakMemory("gpu", start=1.0, peak=7.0, reserved=8.0, device=9.0)
    found = figures.of_memory(TRAINING, training, PeakMemory("gpu", start=2.0, peak=5.0))
    assert found == {
        "training_memory_gb": 7.0, "training_memory_above_start_gb": 6.0, "training_memory_reserved_gb": 8.0,
        "training_memory_device_gb": 9.0, "inference_memory_gb": 5.0, "inference_memory_above_start_gb": 3.0,
        "parameters_gb": 0.1, "gradients_gb": 0.2, "optimizer_gb": 0.3, "activations_gb": 0.4,
    }  # fmt: skip


def test_parameters_are_those_of_embeddings_and_layers_and_head():
    model = small("bert", layers=2, heads=2, head_size=4, intermediate=16)
    found = figures.of_size(model)
    assert found["embedding_parameters"] == (50 + 30 + 2) * 8 + 2 * 8
    assert found["encoder_parameters"] == 2 * (4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 2 * 8)
    head = 8 * 8 + 8 + 8 * 2 + 2
    assert found["parameters"] == found["embedding_parameters"] + found["encoder_parameters"] + head


def test_a_lap_is_the_time_since_the_last(monkeypatch):
    clock = iter([10.0, 13.0, 20.0])
    monkeypatch.setattr(figures, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = figures.Stopwatch()
    watch.lap("loading")
    watch.lap("saving")
    assert watch.seconds() == {"loading_seconds": 3.0, "saving_seconds": 7.0}


def test_a_run_is_called_by_what_is_left_of_it():
    model = small("bert", layers=2, heads=3, head_size=4, intermediate=16)
    plan = presets.load("packaged")[0].plan("reduce", "bert", "layers", {"seed": 5})
    assert description.run_name(plan, model) == "bert/layers-2/seed-5"
    both = plan.model_copy(update={"reductions": {"heads": plan.reductions["layers"], **plan.reductions}})
    assert description.config_name(both, model) == "heads-3+layers-2"


def test_parameters_are_those_of_the_plan_and_of_the_network():
    model = small("bert", layers=2, heads=3, head_size=4, intermediate=16)
    plan = presets.load("packaged")[0].plan("reduce", "bert", "layers", {"seed": 5, "epochs": 2, "keep": 0.4})
    params = description.flat_params(plan, model)
    expected = {
        "model": "bert", "dim": "layers", "seed": 5, "epochs": 2.0, "test_texts": 16, "keep": 0.4,
        "strategy": "alternate", "num_hidden_layers": 2, "num_attention_heads": 3, "head_size": 4, "hidden_size": 12,
        "intermediate_size": 16,
    }  # fmt: skip
    assert {name: params.get(name) for name in expected} == expected
    assert None not in params.values()
    both = plan.model_copy(update={"reductions": {"heads": plan.reductions["layers"], **plan.reductions}})
    assert {"heads.keep", "layers.keep"} <= set(description.flat_params(both, model))
    baseline = presets.load("packaged")[0].plan("baseline", "bert")
    assert "keep" not in description.flat_params(baseline, model)
