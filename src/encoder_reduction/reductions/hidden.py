"""Cutting width: the residual stream gets fewer dimensions, each head and feed-forward network fewer units."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import Sizes, family_of, sizes_of, with_sizes
from .importance import PerLayer, attention_unit_scores, head_unit_scores, part_scores, stream_moments
from .observed import Batch, full_precision

# Feed-forward units of a layer whose width is cut, over its hidden size.
_FEED_FORWARD_RATIO = 4


@dataclass(frozen=True)
class Width:
    """What stays of a network's width; every index is ascending within its group.

    Attributes:
        basis: ``(hidden, hidden kept)`` orthonormal directions of the residual stream, the same through the whole
            network: the reduced one carries its products with them. Columns of the identity where channels are picked.
        query_key: of each layer, ``(attention kept,)`` units of query and key, head after head.
        value: of each layer, ``(attention kept,)`` units of value, head after head.
        intermediate: of each layer, ``(intermediate kept,)`` feed-forward units.
        pooled: ``(hidden kept,)`` units of the classification head's hidden layer.
    """

    basis: torch.Tensor
    query_key: PerLayer
    value: PerLayer
    intermediate: PerLayer
    pooled: torch.Tensor


def narrowed(sizes: Sizes, hidden: int) -> Sizes:
    """The dimensions at another hidden size: as many heads, each proportionally narrower.

    At the full hidden size everything stays as it is, so that keeping all is the identity. The feed-forward
    network gets no wider than it was.
    """
    most = max(sizes.intermediate_by_layer) if hidden == sizes.hidden else _FEED_FORWARD_RATIO * hidden
    return sizes.resized(
        head_size=sizes.head_size * hidden // sizes.hidden,
        hidden=hidden,
        intermediate_by_layer=[min(most, units) for units in sizes.intermediate_by_layer],
    )


def select_width(
    model: PreTrainedModel,
    hidden: int,
    criterion: str,
    batches: list[Batch] | None,
    seed: int,
    strategy: str = "slice",
) -> Width:
    """Choose what stays at a smaller hidden size.

    Args:
        model: the full classifier.
        hidden: the new hidden size.
        criterion: what the directions of the stream are ranked by (see :func:`.importance.stream_moments`). Units
            inside heads and feed-forward networks are ranked by the norms of the weights that write and read them,
            except that ``first`` and ``random`` mean the first and random ones there as well.
        batches: calibration batches.
        seed: of a random choice.
        strategy: ``slice`` (the best channels) or ``project`` (the principal components, which are mixtures of all).
    """
    target = narrowed(sizes_of(model), hidden)
    moments = stream_moments(model, criterion, batches, seed)
    query_key, value = attention_unit_scores(model, criterion, seed)
    by_unit = "magnitude" if criterion == "activation" else criterion
    units = part_scores(model, {"intermediate": by_unit}, batches, seed)["intermediate"]
    return Width(
        basis=(channel_basis if strategy == "slice" else principal_basis)(moments, target.hidden),
        query_key=[_top_in_heads(each, target.head_size) for each in query_key],
        value=[_top_in_heads(each, target.head_size) for each in value],
        intermediate=[_top(*each) for each in zip(units, target.intermediate_by_layer, strict=True)],
        pooled=_top(head_unit_scores(model), target.hidden),
    )


def channel_basis(moments: torch.Tensor, size: int) -> torch.Tensor:
    """The channels of most moment, as columns of the identity: ``(hidden, size)`` of moments ``(hidden, hidden)``."""
    return torch.eye(len(moments))[:, _top(moments.diagonal(), size)]


def principal_basis(moments: torch.Tensor, size: int) -> torch.Tensor:
    """The orthonormal directions of most moment: ``(hidden, size)`` of moments ``(hidden, hidden)``.

    Ashkboos et al. 2024, "SliceGPT", section 3.3, but one basis for all layers, since LayerNorm stands
    on the stream here and cannot be moved past a rotation: the correction refits it. At the full size nothing is
    rotated.
    """
    if size == len(moments):
        return torch.eye(size)
    return torch.linalg.eigh(moments).eigenvectors[:, -size:].float().contiguous()


def _top(scores: torch.Tensor, size: int) -> torch.Tensor:
    return scores.topk(size, dim=-1).indices.sort(dim=-1).values


def _top_in_heads(scores: torch.Tensor, size: int) -> torch.Tensor:
    """Of each head's units ``(heads, head_size)`` the best, as indices of the layer's units."""
    heads, head_size = scores.shape
    return (_top(scores, size) + torch.arange(heads)[:, None] * head_size).flatten()


@full_precision
def slice_width(model: PreTrainedModel, width: Width) -> PreTrainedModel:
    """A narrower copy of the classifier made of the chosen directions and units.

    Query and key are both scaled by the fourth root of (new head size / old head size), which cancels
    the change in the attention's own 1 / sqrt(head size): the logits of q.k keep their scale. A LayerNorm's gains
    stand on the diagonal, which a rotation does not respect: what is kept of them is the diagonal that is nearest.
    """
    family, sizes = family_of(model), sizes_of(model)
    basis = width.basis.to(model.device)
    target = narrowed(sizes, basis.shape[1])
    reduced = with_sizes(model, target)
    scale = (target.head_size / sizes.head_size) ** 0.25
    wide_body, body = model.get_submodule(family.backbone), reduced.get_submodule(family.backbone)
    with torch.no_grad():
        for name in family.embeddings:
            body.get_submodule(name).weight.copy_(wide_body.get_submodule(name).weight @ basis)
        _copy_norm(wide_body, body, family.embedding_norm, basis)
        layers = zip(family.layer_list(model), family.layer_list(reduced), strict=True)
        for index, (wide, narrow) in enumerate(layers):
            query_key, value, units = width.query_key[index], width.value[index], width.intermediate[index]
            for name in (family.query, family.key):
                _copy_reading(wide, narrow, name, query_key, basis, scale)
            _copy_reading(wide, narrow, family.value, value, basis)
            _copy_writing(wide, narrow, family.attention_output, value, basis)
            _copy_norm(wide, narrow, family.attention_norm, basis)
            _copy_reading(wide, narrow, family.intermediate, units, basis)
            _copy_writing(wide, narrow, family.output, units, basis)
            _copy_norm(wide, narrow, family.output_norm, basis)
        for name in family.head_hidden:
            _copy_reading(model, reduced, name, width.pooled, basis)
        old, new = (network.get_submodule(family.head_output) for network in (model, reduced))
        new.weight.copy_(old.weight[:, width.pooled])
        new.bias.copy_(old.bias)
    return reduced


def _copy_reading(
    source: nn.Module, target: nn.Module, name: str, rows: torch.Tensor, basis: torch.Tensor, scale: float = 1.0
) -> None:
    """Of a linear map that reads the stream, the chosen units."""
    old, new = source.get_submodule(name), target.get_submodule(name)
    new.weight.copy_(old.weight[rows] @ basis * scale)
    new.bias.copy_(old.bias[rows] * scale)


def _copy_writing(source: nn.Module, target: nn.Module, name: str, columns: torch.Tensor, basis: torch.Tensor) -> None:
    """Of a linear map that writes the stream, what it reads of the chosen units."""
    old, new = source.get_submodule(name), target.get_submodule(name)
    new.weight.copy_(basis.T @ old.weight[:, columns])
    new.bias.copy_(old.bias @ basis)


def _copy_norm(source: nn.Module, target: nn.Module, name: str, basis: torch.Tensor) -> None:
    old, new = source.get_submodule(name), target.get_submodule(name)
    new.weight.copy_(old.weight @ basis.square())
    new.bias.copy_(old.bias @ basis)
