"""The figures of a run under the names that MLflow, the tables and the documents use (docs/measurements.md)."""

import re
import time
from dataclasses import dataclass

from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel

from ..models.architectures import family_of
from ..plan.precision import compute_dtype
from ..profiling.compute import Flops, matrix_product_rate, total
from ..profiling.energy import joules_per_example
from ..profiling.inference import TEXTS, Profiler, Workload, flops_of
from ..profiling.latency import Latency
from ..profiling.memory import PeakMemory
from ..reductions.costs import FLOPS_TOKENS
from ..training.evaluation import Evaluation
from ..training.fine_tuning import Training


@dataclass(frozen=True)
class InferenceFigures:
    """What inference took.

    Attributes:
        latencies: each workload and its latency, the table's (texts in the plan's batches) first.
        tokenisation: texts to padded batches on the device.
        end_to_end: texts to predicted classes.
        flops: of one example by its length.
        product_rate: FLOP/s of a large matrix product in the same precision.
        joules: energy of an example of the table's workload, ``None`` without a counter.
    """

    latencies: list[tuple[Workload, Latency]]
    tokenisation: Latency
    end_to_end: Latency
    flops: Flops
    product_rate: float
    joules: float | None


class Stopwatch:
    """Seconds from one lap to the next."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def running(self) -> float:
        """Seconds of the phase that is under way."""
        return time.perf_counter() - self._since

    def lap(self, phase: str, earlier: float = 0.0) -> None:
        """End a phase, which had taken some seconds in earlier processes; the next one starts now."""
        now = time.perf_counter()
        self.laps[phase] = self.laps.get(phase, 0.0) + earlier + now - self._since
        self._since = now

    def seconds(self) -> dict[str, float]:
        """The laps as figures: ``loading_seconds`` and so on."""
        return {f"{phase}_seconds": seconds for phase, seconds in self.laps.items()}


def inference(profiler: Profiler, table: Workload, tokenised: Dataset, texts: list[str]) -> InferenceFigures:
    """Measure all that inference takes but memory; ``table`` is what the customer's tables show."""
    others = [w for w in profiler.workloads(tokenised) if (w.name, w.batch_size) != (TEXTS, table.batch_size)]
    device, settings = profiler.model.device, profiler.settings
    return InferenceFigures(
        latencies=[(workload, profiler.latency(workload)) for workload in (table, *others)],
        tokenisation=profiler.tokenisation(texts),
        end_to_end=profiler.end_to_end(texts),
        flops=flops_of(profiler.model),
        product_rate=matrix_product_rate(
            device, compute_dtype(profiler.fine_tuning.precision), time_budget=settings.time_budget
        ),
        joules=joules_per_example(profiler.calls(table), table.examples, device, seconds=settings.time_budget),
    )


def split_of(name: str) -> str | None:
    """The split on whose texts a figure was taken; ``None`` if it is of the network or of made-up texts."""
    if name.startswith(("validation_", "best_epoch")):
        return "validation"
    if name.startswith("training_") or name == "train_examples":
        return "train"
    on_test = (
        "accuracy", "whole_accuracy", "f1", "test_", "inference_ms", "inference_batch", "inference_examples",
        "inference_tokens", "inference_joules", "tokenisation_ms", "end_to_end_ms", "flops_per_example",
    )  # fmt: skip
    return "test" if name.startswith(on_test) and not re.match(r"inference_ms_\d", name) else None


def of_data(data: DatasetDict) -> dict[str, float]:
    """How many examples the model was trained, selected and reported on."""
    return {f"{split}_examples": float(len(data[split])) for split in data}


def of_size(model: PreTrainedModel) -> dict[str, float]:
    """Parameters of the whole classifier, of its embeddings and of its transformer layers."""
    family = family_of(model)
    backbone = model.get_submodule(family.backbone)
    embeddings = [backbone.get_submodule(name) for name in (*family.embeddings, family.embedding_norm)]
    return {
        "parameters": _parameters(model),
        "embedding_parameters": sum(_parameters(module) for module in embeddings),
        "encoder_parameters": _parameters(family.layer_list(model)),
    }


def of_quality(training: Training, test: Evaluation, validation: Evaluation) -> dict[str, float]:
    """What the model reached: on test, and on the validation split that selects.

    Args:
        training: which scores the validation split as it computes.
        test: of the model as it is measured and served.
        validation: of the same; said where its accuracy is another than in training.
    """
    differs = validation.accuracy != training.validation_accuracy
    return {
        "accuracy": test.accuracy,
        "f1": test.f1,
        "validation_accuracy": training.validation_accuracy,
        "validation_f1": training.validation_f1,
        **({"validation_accuracy_as_served": validation.accuracy} if differs else {}),
        "best_epoch": training.best_epoch,
    }


def before_training(scored: dict[str, Evaluation]) -> dict[str, float]:
    """What a network that was trained, then cut, scores before it is trained again, by split."""
    names = {"validation": "validation_accuracy_before_training", "test": "accuracy_before_training"}
    return {names[split]: evaluation.accuracy for split, evaluation in scored.items()}


def of_training(training: Training, joules: float | None, inference: InferenceFigures) -> dict[str, float]:
    """Time, throughput, computation and energy of training."""
    if not training.steps:
        return {"training_seconds": 0.0}
    rate = total(inference.flops.training, training.shapes) / training.seconds
    figures = {
        "training_seconds": training.seconds,
        "training_examples_per_second": training.examples / training.seconds,
        "training_tokens_per_second": training.tokens / training.seconds,
        "training_padding": training.padding,
        "training_flops_per_second": rate,
        "training_matrix_product_share": rate / inference.product_rate,
    }
    return figures | ({"training_joules_per_example": joules / training.examples} if joules is not None else {})


def of_inference(inference: InferenceFigures) -> dict[str, float]:
    """Time, throughput, computation and energy of inference."""
    workload, latency = inference.latencies[0]
    flops = total(inference.flops.forward, workload.shapes) / workload.examples
    rate = flops * latency.examples_per_second
    tokens = sum(shape.tokens for shape in workload.shapes)
    figures = {
        "inference_ms": latency.ms_per_example,
        "inference_ms_low": latency.interval[0],
        "inference_ms_high": latency.interval[1],
        "inference_ms_mean": latency.mean,
        "inference_ms_std": latency.std,
        "inference_batch_ms_p50": latency.call_p50,
        "inference_batch_ms_p90": latency.call_p90,
        "inference_batch_ms_p95": latency.call_p95,
        "inference_repetitions": float(latency.repetitions),
        "inference_examples_per_second": latency.examples_per_second,
        "inference_tokens_per_second": latency.examples_per_second * tokens / workload.examples,
        "tokenisation_ms": inference.tokenisation.ms_per_example,
        "end_to_end_ms": inference.end_to_end.ms_per_example,
        "flops_per_example": flops,
        f"flops_{FLOPS_TOKENS}": inference.flops.forward(FLOPS_TOKENS),
        "inference_flops_per_second": rate,
        "matrix_product_flops_per_second": inference.product_rate,
        "inference_matrix_product_share": rate / inference.product_rate,
    }
    for other, measured in inference.latencies[1:]:
        length = "" if other.name == TEXTS else f"_{other.name}"
        batch = "" if other.batch_size == workload.batch_size else f"_batch_{other.batch_size}"
        figures[f"inference_ms{length}{batch}"] = measured.ms_per_example
    if inference.joules is not None:
        figures["inference_joules_per_example"] = inference.joules
    return figures


def of_memory(training: Training, training_memory: PeakMemory, inference_memory: PeakMemory) -> dict[str, float]:
    """Peak memory of both phases, what the network itself needs of it, and the parts of a training step's.

    On a CPU the network's part of training is the sum of its parts: resident memory holds libraries and leftovers too.
    """
    figures: dict[str, float | None] = {}
    trained = [("training", training_memory)] if training.state else []
    for phase, peak in (*trained, ("inference", inference_memory)):
        figures |= {
            f"{phase}_memory_gb": peak.peak,
            f"{phase}_memory_above_start_gb": peak.above_start,
            f"{phase}_memory_of_network_gb": peak.of_network,
            f"{phase}_memory_reserved_gb": peak.reserved,
            f"{phase}_memory_device_gb": peak.device,
        }
    if training.state:
        if training_memory.kind != "gpu":
            figures["training_memory_of_network_gb"] = training.state.total
        figures |= {
            "parameters_gb": training.state.parameters,
            "gradients_gb": training.state.gradients,
            "optimizer_gb": training.state.optimizer,
            "activations_gb": training.state.activations,
        }
    return {name: value for name, value in figures.items() if value is not None}


def _parameters(module: object) -> float:
    return float(sum(parameter.numel() for parameter in module.parameters()))
