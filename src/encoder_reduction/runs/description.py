"""What a run is called, and what it says of itself: its name, tags and parameters."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from transformers import PreTrainedModel

from ..models.architectures import sizes_of
from ..models.dropout import dropout_of
from ..plan.sections import Dimension, Reduction, RunPlan
from ..profiling.energy import EnergyUsed
from ..profiling.machine import Watch
from ..profiling.memory import PeakMemory
from ..profiling.nvidia import visible_device
from ..tracking import fingerprints, matching


def config_name(plan: RunPlan, model: PreTrainedModel) -> str:
    """What a row's configuration is called: ``baseline``, ``hidden-384``, ``layers-6+heads-6``, ``mixed-latency-0.5``.

    Where a budget decides the sizes, these may be others for another seed; the configuration is the same.
    """
    if plan.budget:
        return f"{plan.dim}-{plan.budget.name}"
    sizes = sizes_of(model)
    return "+".join(f"{dim}-{getattr(sizes, dim)}" for dim in plan.reductions) or "baseline"


def run_name(plan: RunPlan, model: PreTrainedModel) -> str:
    """The run's name in the MLflow UI: ``roberta/hidden-384/seed-42``."""
    return "/".join([*_called(plan, model), f"seed-{plan.seed}"])


def model_name(plan: RunPlan, model: PreTrainedModel) -> str:
    """Its model's: ``roberta-hidden-384``, ``bert-mixed-latency-0_5-recovered``; MLflow takes no dot in it."""
    return "-".join(_called(plan, model)).replace(".", "_")


def _called(plan: RunPlan, model: PreTrainedModel) -> list[str]:
    stage = ["transfer"] if plan.stage == "transfer" else ["recovered"] if plan.start != "pretrained" else []
    return [plan.model, config_name(plan, model), *stage]


def describe(plan: RunPlan, model: PreTrainedModel, device: torch.device) -> dict[str, str]:
    """What else the MLflow UI filters on, once the model is there."""
    return {
        "config": config_name(plan, model),
        "libraries": ", ".join(f"{name} {version}" for name, version in fingerprints.libraries().items()),
        "memory_kind": "gpu" if device.type == "cuda" else "resident",
        **visible_device(device),
    }


def machine_tags(machine: Watch, memory: PeakMemory, energy: EnergyUsed) -> dict[str, str]:
    """Whether the machine was fit for measuring, and where its figures come from."""
    return {
        "machine": "; ".join(machine.warnings()) or "quiet",
        **({"device_memory_source": memory.device_source} if memory.device_source else {}),
        "energy_source": energy.source or "none",
    }


def flat_params(
    plan: RunPlan, model: PreTrainedModel, decided: Mapping[Dimension, Reduction] = MappingProxyType({})
) -> dict[str, object]:
    """The plan's values under the names that ``-P`` takes, or what the network has instead, and its dimensions.

    Where several dimensions are reduced, each one's values carry its name in front.

    Args:
        plan: of the run.
        model: the reduced network.
        decided: what a budget has made of the plan's reductions.
    """
    sizes = sizes_of(model)
    params: dict[str, object] = {"model": plan.model, "dim": plan.dim, "seed": plan.seed}
    params |= plan.fine_tuning.model_dump() | plan.profiling.model_dump()
    params |= dropout_of(model)
    left = [field for field in dropout_of(model) if getattr(plan.fine_tuning, field) is None]
    params[matching.LEFT_TO_CHECKPOINT] = ",".join(left) or None
    params |= plan.distillation.model_dump() if plan.distillation else {}
    params |= plan.budget.model_dump() if plan.budget else {}
    left_out = {"keep", "size"} if plan.budget else set()
    if plan.stage == "reduce":
        for dim, reduction in {**plan.reductions, **decided}.items():
            prefix = f"{dim}." if len(plan.reductions) > 1 else ""
            params |= {f"{prefix}{key}": value for key, value in reduction.model_dump(exclude=left_out).items()}
    if not sizes.even:
        params |= {
            "attention_heads_by_layer": ",".join(map(str, sizes.heads_by_layer)),
            "intermediate_size_by_layer": ",".join(map(str, sizes.intermediate_by_layer)),
        }
    params |= {
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "head_size": sizes.head_size,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
    }
    return {key: value for key, value in params.items() if value is not None}
