"""Cutting attention heads: regrouping them (the configuration's literal meaning) or removing them."""

import torch
from transformers import PreTrainedModel

from ..models.architectures import family_of, pruned_class, sizes_of
from .importance import Batch, head_scores


def regroup_heads(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """Read the same projections as ``size`` wider heads (``num_attention_heads = size``, nothing else).

    No weight is removed: parameters, memory and FLOPs stay as they were. What changes is that each
    softmax now weighs ``hidden / size`` units together.
    """
    reduced = type(model)(family_of(model).resized(model.config, heads=size))
    reduced.load_state_dict(model.state_dict())
    return reduced.to(model.device).train(model.training)


def select_heads(
    model: PreTrainedModel, size: int, criterion: str, batches: list[Batch] | None, seed: int
) -> torch.Tensor:
    """Choose the heads that stay in each layer.

    Returns:
        ``(layers, size)`` head indices, ascending in each layer.
    """
    scores = head_scores(model, criterion, batches, seed)
    return scores.topk(size, dim=1).indices.sort(dim=1).values


def prune_heads(model: PreTrainedModel, kept: torch.Tensor) -> PreTrainedModel:
    """Remove every head that is not named; q, k, v and the output projection really shrink.

    The result computes what the full model computes when the outputs of the removed heads are zeroed
    just before the output projection.

    Args:
        model: a classifier of any registered family, pruned before or not.
        kept: ``(layers, heads kept)`` head indices of each layer.
    """
    family, sizes = family_of(model), sizes_of(model)
    state = model.state_dict()
    for index, heads in enumerate(kept.tolist()):
        units = head_units(heads, sizes.head_size)
        prefix = f"{family.backbone}.{family.layers}.{index}."
        for name in (family.query, family.key, family.value):
            for kind in ("weight", "bias"):
                state[f"{prefix}{name}.{kind}"] = state[f"{prefix}{name}.{kind}"][units]
        name = f"{prefix}{family.attention_output}.weight"
        state[name] = state[name][:, units]
    return _pruned_model(model, kept.shape[1], state)


def head_units(heads: list[int], head_size: int) -> torch.Tensor:
    """Indices of the units of some heads within the query, key and value projections."""
    return torch.cat([torch.arange(head * head_size, (head + 1) * head_size) for head in heads])


def _pruned_model(model: PreTrainedModel, heads: int, state: dict[str, torch.Tensor]) -> PreTrainedModel:
    family, sizes = family_of(model), sizes_of(model)
    cls = pruned_class(family)
    values = model.config.to_dict()
    for derived in ("model_type", "architectures", "auto_map", "transformers_version"):
        values.pop(derived, None)
    config = cls.config_class(**values)
    config = family.resized(config, heads=heads, head_size=sizes.head_size)
    reduced = cls(config)
    reduced.load_state_dict(state)
    return reduced.to(model.device).train(model.training)
