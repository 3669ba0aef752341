"""Cutting width: the same residual channels everywhere, fewer units in each head and feed-forward."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import Sizes, family_of, sizes_of
from .importance import Batch, attention_unit_scores, channel_scores, intermediate_scores


@dataclass(frozen=True)
class Width:
    """What stays of a network's width; every index is ascending within its group.

    Attributes:
        channels: ``(hidden kept,)`` residual channels, the same through the whole network.
        query_key: ``(layers, attention kept)`` units of query and key, head after head.
        value: ``(layers, attention kept)`` units of value, head after head.
        intermediate: ``(layers, intermediate kept)`` feed-forward units.
    """

    channels: torch.Tensor
    query_key: torch.Tensor
    value: torch.Tensor
    intermediate: torch.Tensor


def narrowed(sizes: Sizes, hidden: int, feed_forward_ratio: int = 4) -> Sizes:
    """The dimensions at another hidden size: as many heads, each proportionally narrower.

    At the full hidden size everything stays as it is, so that keeping all is the identity. The feed-forward
    network gets no wider than it was.
    """
    kept_all = hidden == sizes.hidden
    intermediate = sizes.intermediate if kept_all else min(feed_forward_ratio * hidden, sizes.intermediate)
    return Sizes(
        layers=sizes.layers,
        heads=sizes.heads,
        head_size=sizes.head_size * hidden // sizes.hidden,
        hidden=hidden,
        intermediate=intermediate,
    )


def select_width(model: PreTrainedModel, hidden: int, criterion: str, batches: list[Batch] | None, seed: int) -> Width:
    """Choose what stays at a smaller hidden size.

    ``criterion`` ranks the residual channels; units inside heads and feed-forward networks are ranked
    by the norms of the weights that write and read them, except that ``first`` and ``random`` mean
    the first and random ones there as well.
    """
    target = narrowed(sizes_of(model), hidden)
    channels = _top(channel_scores(model, criterion, batches, seed), target.hidden)
    query_key, value = attention_unit_scores(model, criterion, seed)  # (layers, heads, head_size)
    return Width(
        channels=channels,
        query_key=_top_in_heads(query_key, target.head_size),
        value=_top_in_heads(value, target.head_size),
        intermediate=_top(intermediate_scores(model, criterion, seed), target.intermediate),
    )


def _top(scores: torch.Tensor, size: int) -> torch.Tensor:
    return scores.topk(size, dim=-1).indices.sort(dim=-1).values


def _top_in_heads(scores: torch.Tensor, size: int) -> torch.Tensor:
    layers, heads, head_size = scores.shape
    offsets = torch.arange(heads).mul(head_size).view(1, heads, 1)
    return (_top(scores, size) + offsets).reshape(layers, heads * size)


def slice_width(model: PreTrainedModel, width: Width) -> PreTrainedModel:
    """A narrower copy of the classifier made of the chosen channels and units.

    Query and key are both scaled by the fourth root of (new head size / old head size), which cancels
    the change in the attention's own 1 / sqrt(head size): the logits of q.k keep their scale.
    """
    family, sizes = family_of(model), sizes_of(model)
    target = narrowed(sizes, len(width.channels))
    config = family.resized(model.config, hidden=target.hidden, intermediate=target.intermediate)
    if getattr(config, "head_size", None):
        config.head_size = target.head_size
    reduced = type(model)(config).to(model.device).train(model.training)
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
