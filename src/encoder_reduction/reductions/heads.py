"""Cutting attention heads: regrouping them (the configuration's literal meaning) or removing them."""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.architectures import family_of, sizes_of, with_sizes


def regroup_heads(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """Read the same projections as ``size`` wider heads (``num_attention_heads = size``, nothing else).

    No weight is removed: parameters, memory and FLOPs stay as they were. What changes is that each
    softmax now weighs ``hidden / size`` units together.

    Raises:
        UserError: heads have been removed, so that those left cannot be regrouped by a stock configuration.
    """
    sizes = sizes_of(model)
    if not sizes.stock:
        raise UserError(
            "strategy=regroup needs a model with all its heads; this one has been pruned: prune it further."
        )
    reduced = with_sizes(model, sizes.resized(heads=size, head_size=sizes.hidden // size))
    reduced.load_state_dict(model.state_dict())
    return reduced


def prune_heads(model: PreTrainedModel, kept: Iterable[torch.Tensor]) -> PreTrainedModel:
    """Remove every head that is not named; q, k, v and the output projection really shrink.

    The result computes what the full model computes when the outputs of the removed heads are zeroed
    just before the output projection.

    Args:
        model: a classifier of any registered family, pruned before or not.
        kept: ``(heads kept,)`` head indices of each layer.
    """
    family, sizes = family_of(model), sizes_of(model)
    state, counts = model.state_dict(), []
    for index, heads in enumerate(kept):
        units = head_units(heads.tolist(), sizes.head_size)
        prefix = f"{family.backbone}.{family.layers}.{index}."
        keep_units(state, prefix, (family.query, family.key, family.value), family.attention_output, units)
        counts.append(len(heads))
    reduced = with_sizes(model, sizes.resized(heads_by_layer=counts))
    reduced.load_state_dict(state)
    return reduced


def keep_units(
    state: dict[str, torch.Tensor], prefix: str, written_by: Iterable[str], read_by: str, units: torch.Tensor
) -> None:
    """Leave some units only, in a state: rows of the linear maps that give them, columns of the one that reads them."""
    for name in written_by:
        for kind in ("weight", "bias"):
            state[f"{prefix}{name}.{kind}"] = state[f"{prefix}{name}.{kind}"][units]
    state[f"{prefix}{read_by}.weight"] = state[f"{prefix}{read_by}.weight"][:, units]


def head_units(heads: list[int], head_size: int) -> torch.Tensor:
    """Indices of the units of some heads within the query, key and value projections."""
    return torch.cat([torch.arange(head * head_size, (head + 1) * head_size) for head in heads])
