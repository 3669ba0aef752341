"""Cutting width: the same residual channels everywhere, fewer units in each head and feed-forward."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import Sizes, family_of, sizes_of, with_sizes
from .importance import Batch, PerLayer, attention_unit_scores, channel_scores, intermediate_scores


@dataclass(frozen=True)
class Width:
    """What stays of a network's width; every index is ascending within its group.

    Attributes:
        channels: ``(hidden kept,)`` residual channels, the same through the whole network.
        query_key: of each layer, ``(attention kept,)`` units of query and key, head after head.
        value: of each layer, ``(attention kept,)`` units of value, head after head.
        intermediate: of each layer, ``(intermediate kept,)`` feed-forward units.
    """

    channels: torch.Tensor
    query_key: PerLayer
    value: PerLayer
    intermediate: PerLayer


def narrowed(sizes: Sizes, hidden: int, feed_forward_ratio: int = 4) -> Sizes:
    """The dimensions at another hidden size: as many heads, each proportionally narrower.

    At the full hidden size everything stays as it is, so that keeping all is the identity. The feed-forward
    network gets no wider than it was.
    """
    most = max(sizes.intermediate_by_layer) if hidden == sizes.hidden else feed_forward_ratio * hidden
    return sizes.resized(
        head_size=sizes.head_size * hidden // sizes.hidden,
        hidden=hidden,
        intermediate_by_layer=[min(most, units) for units in sizes.intermediate_by_layer],
    )


def select_width(model: PreTrainedModel, hidden: int, criterion: str, batches: list[Batch] | None, seed: int) -> Width:
    """Choose what stays at a smaller hidden size.

    ``criterion`` ranks the residual channels; units inside heads and feed-forward networks are ranked
    by the norms of the weights that write and read them, except that ``first`` and ``random`` mean
    the first and random ones there as well.
    """
    target = narrowed(sizes_of(model), hidden)
    channels = _top(channel_scores(model, criterion, batches, seed), target.hidden)
    query_key, value = attention_unit_scores(model, criterion, seed)
    by_unit = "magnitude" if criterion == "activation" else criterion
    units = intermediate_scores(model, by_unit, batches, seed)
    return Width(
        channels=channels,
        query_key=[_top_in_heads(each, target.head_size) for each in query_key],
        value=[_top_in_heads(each, target.head_size) for each in value],
        intermediate=[_top(*each) for each in zip(units, target.intermediate_by_layer, strict=True)],
    )


def _top(scores: torch.Tensor, size: int) -> torch.Tensor:
    return scores.topk(size, dim=-1).indices.sort(dim=-1).values


def _top_in_heads(scores: torch.Tensor, size: int) -> torch.Tensor:
    """Of each head's units ``(heads, head_size)`` the best, as indices of the layer's units."""
    heads, head_size = scores.shape
    return (_top(scores, size) + torch.arange(heads)[:, None] * head_size).flatten()


def slice_width(model: PreTrainedModel, width: Width) -> PreTrainedModel:
    """A narrower copy of the classifier made of the chosen channels and units.

    Query and key are both scaled by the fourth root of (new head size / old head size), which cancels
    the change in the attention's own 1 / sqrt(head size): the logits of q.k keep their scale.
    """
    family, sizes = family_of(model), sizes_of(model)
    target = narrowed(sizes, len(width.channels))
    reduced = with_sizes(model, target)
    scale = (target.head_size / sizes.head_size) ** 0.25
    wide_body, body = model.get_submodule(family.backbone), reduced.get_submodule(family.backbone)
    channels = width.channels
    with torch.no_grad():
        for name in family.embeddings:
            source = wide_body.get_submodule(name).weight
            body.get_submodule(name).weight.copy_(source[:, channels])
        _copy(wide_body, body, family.embedding_norm, channels)
        layers = zip(family.layer_list(model), family.layer_list(reduced), strict=True)
        for index, (wide, narrow) in enumerate(layers):
            query_key, value = width.query_key[index], width.value[index]
            units = width.intermediate[index]
            for name in (family.query, family.key):
                _copy(wide, narrow, name, query_key, channels, scale)
            _copy(wide, narrow, family.value, value, channels)
            _copy(wide, narrow, family.attention_output, channels, value)
            _copy(wide, narrow, family.attention_norm, channels)
            _copy(wide, narrow, family.intermediate, units, channels)
            _copy(wide, narrow, family.output, channels, units)
            _copy(wide, narrow, family.output_norm, channels)
        for name in family.head_hidden:
            _copy(model, reduced, name, channels, channels)
        every_class = torch.arange(model.config.num_labels)
        _copy(model, reduced, family.head_output, every_class, channels)
    return reduced


def _copy(
    source: nn.Module,
    target: nn.Module,
    name: str,
    rows: torch.Tensor,
    columns: torch.Tensor | None = None,
    scale: float = 1.0,
) -> None:
    """Copy the chosen rows (and columns) of one linear or LayerNorm module."""
    old, new = source.get_submodule(name), target.get_submodule(name)
    weight = old.weight[rows] if columns is None else old.weight[rows][:, columns]
    new.weight.copy_(weight * scale)
    new.bias.copy_(old.bias[rows] * scale)
