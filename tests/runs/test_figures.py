"""Every figure of a run, and its name, worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import small

from encoder_reduction.profiling.compute import Flops, Shape
from encoder_reduction.profiling.inference import Workload
from encoder_reduction.profiling.latency import Latency
from encoder_reduction.profiling.memory import PeakMemory, TrainingState
from encoder_reduction.runs import figures
from encoder_reduction.runs.figures import InferenceFigures, Stopwatch
from encoder_reduction.training.evaluation import evaluation
from encoder_reduction.training.fine_tuning import Training


def latency(ms, examples=3):
    """Of single examples, with statistics that are all different."""
    return Latency(examples, 7, ms, (ms - 1, ms + 1), ms + 2, 0.5, call_p50=11.0, call_p90=12.0, call_p95=13.0)


@pytest.fixture
def training():
    """Three batches of two rows: 4 and 3 tokens, 5 and 2, 2 and 2."""
    return Training(
        seconds=2.0,
        steps=3,
        shapes=[Shape(2, 4, 7), Shape(2, 5, 7), Shape(2, 2, 4)],
        state=TrainingState(parameters=0.1, gradients=0.2, optimizer=0.3, activations=0.4),
        attention_kernels=None,
        micro_batch_size=2,
        best_epoch=2.0,
        validation_accuracy=0.7,
        validation_f1=0.6,
        earlier_pieces=[],
    )


@pytest.fixture
def inference():
    """A batch of a text of four tokens beside one of one, and a batch of a text of two."""
    batches = [
        {"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])},
        {"attention_mask": torch.tensor([[1, 1]])},
    ]
    fixed = [{"attention_mask": torch.ones(1, 16, dtype=torch.int64)}]
    return InferenceFigures(
        latencies=[
            (Workload("texts", 2, batches), latency(20.0)),
            (Workload("texts", 1, batches), latency(30.0)),
            (Workload("16", 2, fixed), latency(40.0)),
            (Workload("16", 1, fixed), latency(50.0)),
        ],
        tokenisation=latency(3.0),
        end_to_end=latency(25.0),
        flops=Flops((10.0, 100.0, 1.0)),
        product_rate=100_000.0,
        joules=0.25,
    )


def test_every_figure_of_inference_has_its_own_name(inference):
    # 10 + 100 n + n^2: 426 of each of two examples of four tokens, 214 of one of two.
    flops = (2 * 426 + 214) / 3
    assert figures.of_inference(inference) == pytest.approx(
        {
            "inference_ms": 20.0,
            "inference_ms_low": 19.0,
            "inference_ms_high": 21.0,
            "inference_ms_mean": 22.0,
            "inference_ms_std": 0.5,
            "inference_batch_ms_p50": 11.0,
            "inference_batch_ms_p90": 12.0,
            "inference_batch_ms_p95": 13.0,
            "inference_repetitions": 7.0,
            "inference_examples_per_second": 50.0,
            "inference_tokens_per_second": 50.0 * 7 / 3,  # seven tokens of three texts; the padding is no token
            "tokenisation_ms": 3.0,
            "end_to_end_ms": 25.0,
            "flops_per_example": flops,
            "flops_128": 10 + 12_800 + 16_384,
            "inference_flops_per_second": 50 * flops,
            "matrix_product_flops_per_second": 100_000.0,
            "inference_matrix_product_share": 50 * flops / 100_000,
            "inference_ms_batch_1": 30.0,
            "inference_ms_16": 40.0,
            "inference_ms_16_batch_1": 50.0,
            "inference_joules_per_example": 0.25,
        }
    )


def test_rates_of_training_are_over_its_seconds(training, inference):
    # 30 + 300 n + 3 n^2 for each row of its padded length.
    flops = 2 * ((30 + 1200 + 48) + (30 + 1500 + 75) + (30 + 600 + 12))
    assert figures.of_training(training, 12.0, inference) == pytest.approx(
        {
            "training_seconds": 2.0,
            "training_examples_per_second": 3.0,
            "training_tokens_per_second": 9.0,
            "training_padding": 4 / 22,
            "training_flops_per_second": flops / 2,
            "training_matrix_product_share": flops / 2 / 100_000,
            "training_joules_per_example": 2.0,
        }
    )
    assert "training_joules_per_example" not in figures.of_training(training, None, inference)


def test_memory_is_that_of_its_phase(training):
    trained = PeakMemory("gpu", start=1.0, peak=5.0, reserved=6.0, device=7.0, device_source="NVML")
    inferred = PeakMemory("gpu", start=0.5, peak=2.0, reserved=3.0, device=4.0, device_source="NVML")
    parts = {"parameters_gb": 0.1, "gradients_gb": 0.2, "optimizer_gb": 0.3, "activations_gb": 0.4}
    assert figures.of_memory(training, trained, inferred) == parts | {
        "training_memory_gb": 5.0,
        "training_memory_above_start_gb": 4.0,
        "training_memory_reserved_gb": 6.0,
        "training_memory_device_gb": 7.0,
        "training_memory_of_network_gb": 5.0,
        "inference_memory_gb": 2.0,
        "inference_memory_of_network_gb": 2.0,
        "inference_memory_above_start_gb": 1.5,
        "inference_memory_reserved_gb": 3.0,
        "inference_memory_device_gb": 4.0,
    }
    resident = figures.of_memory(training, PeakMemory("resident", 1.0, 5.0), PeakMemory("resident", 0.5, 2.0))
    assert set(resident) - set(parts) == {
        "training_memory_gb", "training_memory_above_start_gb", "training_memory_of_network_gb",
        "inference_memory_gb", "inference_memory_above_start_gb",
    }  # fmt: skip
    # On a CPU, of training what the parts come to, of inference what a process of its own needed from loading on.
    assert resident["training_memory_of_network_gb"] == pytest.approx(1.0)
    apart = figures.of_memory(training, PeakMemory("resident", 1.0, 5.0), PeakMemory("apart", 0.5, 2.0))
    assert apart["inference_memory_of_network_gb"] == 1.5


def scored(*predictions):
    """An evaluation of four examples of class 1."""
    logits = np.array([[0.0, 1.0] if prediction else [1.0, 0.0] for prediction in predictions])
    return evaluation(list("abcd"), logits, np.array([1, 1, 1, 1]), [3, 3, 3, 3])


def test_quality_is_of_the_model_as_served_on_test_and_selection_of_validation(training):
    test, half, quarter = scored(1, 1, 1, 0), scored(0, 1, 0, 1), scored(1, 0, 0, 0)
    selecting = replace(training, validation_accuracy=0.5)
    expected = {"accuracy": 0.75, "f1": 6 / 7, "validation_accuracy": 0.5, "validation_f1": 0.6, "best_epoch": 2.0}
    assert figures.of_quality(selecting, test, half) == pytest.approx(expected)
    different = figures.of_quality(selecting, test, quarter)
    assert different == pytest.approx(expected | {"validation_accuracy_as_served": 0.25})


def test_parameters_are_those_of_embeddings_and_layers_and_head():
    model = small("bert", layers=2, heads=2, head_size=4, intermediate=16)
    found = figures.of_size(model)
    assert found["embedding_parameters"] == (50 + 30 + 2) * 8 + 2 * 8
    assert found["encoder_parameters"] == 2 * (4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 2 * 8)
    head = 8 * 8 + 8 + 8 * 2 + 2
    assert found["parameters"] == found["embedding_parameters"] + found["encoder_parameters"] + head


def test_laps_add_up_over_the_pieces_of_a_run(monkeypatch):
    now = iter([0.0, 3.0, 10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr(figures, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    stopwatch = Stopwatch()
    stopwatch.lap("loading")
    assert stopwatch.running() == 7.0
    stopwatch.lap("fine_tuning", earlier=100.0)
    stopwatch.lap("evaluation")
    stopwatch.lap("evaluation")
    assert stopwatch.seconds() == {"loading_seconds": 3.0, "fine_tuning_seconds": 111.0, "evaluation_seconds": 7.0}
