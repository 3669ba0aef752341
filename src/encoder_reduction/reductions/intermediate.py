"""Cutting the feed-forward networks: units are removed, in each layer its own."""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from ..models.architectures import family_of, sizes_of, with_sizes
from .heads import keep_units


def prune_units(model: PreTrainedModel, kept: Iterable[torch.Tensor]) -> PreTrainedModel:
    """Remove every feed-forward unit that is not named: what the full model computes when they are zeroed.

    Args:
        model: a classifier of any registered family, pruned before or not.
        kept: ``(units kept,)`` unit indices of each layer.
    """
    family = family_of(model)
    state, counts = model.state_dict(), []
    for index, units in enumerate(kept):
        prefix = f"{family.backbone}.{family.layers}.{index}."
        keep_units(state, prefix, (family.intermediate,), family.output, units)
        counts.append(len(units))
    reduced = with_sizes(model, sizes_of(model).resized(intermediate_by_layer=counts))
    reduced.load_state_dict(state)
    return reduced
