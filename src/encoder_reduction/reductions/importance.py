"""How much each head, unit, layer or direction of the stream matters: the criteria of the literature, as tensors.

Every function returns scores, larger meaning more important; none changes the model. Criteria that
look at data draw on calibration batches: dictionaries of ``input_ids`` and ``attention_mask``
``(batch, tokens)`` and ``labels`` ``(batch,)`` on the model's device.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import Sizes, family_of, sizes_of
from .observed import Batch, full_precision, inference, inputs_of, recorded_inputs, recorded_outputs

# Of each layer its own tensor, since layers may differ in how many heads and units they have.
PerLayer = list[torch.Tensor]

# Criteria that follow the loss's gradient, and the moment of it that they take.
_ORDERS = {"gradient": 1, "fisher": 2}


def part_scores(
    model: PreTrainedModel, criteria: dict[str, str], batches: list[Batch] | None, seed: int
) -> dict[str, PerLayer]:
    """Importance of each attention head, or feed-forward unit, or both: those that follow the loss in one pass.

    Args:
        criteria: by dimension. Of ``heads``: ``gradient`` (expected absolute sensitivity of the loss to a mask on the
            head's output; Michel et al. 2019, equation 2), ``fisher`` (its expected square, the diagonal of the Fisher
            information; Kwon et al. 2022, equation 8), ``magnitude`` (Frobenius norm of the head's
            weights), ``first`` or ``random``. Of ``intermediate``: ``activation`` (root mean square of the unit's
            activation over calibration tokens, times the norm of the weights that read it: what it writes into the
            stream), ``gradient`` and ``fisher`` as of heads, ``magnitude`` (product of the norms of its two weights),
            ``first`` or ``random``.
        batches: calibration batches.
        seed: of a random choice.

    Returns:
        By dimension, ``(heads,)`` or ``(units,)`` of each layer.
    """
    family, sizes = family_of(model), sizes_of(model)
    masked = {"heads": (family.attention_output, sizes.head_size), "intermediate": (family.output, 1)}
    followed = {dim: (*masked[dim], _ORDERS[each]) for dim, each in criteria.items() if each in _ORDERS}
    scores = dict(zip(followed, _sensitivities(model, [*followed.values()], batches), strict=True)) if followed else {}
    by_weight = {"heads": _heads_by_weight, "intermediate": _units_by_weight}
    return {dim: scores.get(dim) or by_weight[dim](model, each, batches, seed) for dim, each in criteria.items()}


def _heads_by_weight(model: PreTrainedModel, criterion: str, batches: list[Batch] | None, seed: int) -> PerLayer:
    if criterion != "magnitude":
        return _by_rule(sizes_of(model).heads_by_layer, criterion, seed)
    query_key, value = attention_unit_scores(model, "magnitude", seed)
    return [a.sum(-1) + b.sum(-1) for a, b in zip(query_key, value, strict=True)]


@torch.no_grad()
def _units_by_weight(model: PreTrainedModel, criterion: str, batches: list[Batch] | None, seed: int) -> PerLayer:
    if criterion in ("first", "random"):
        return _by_rule(sizes_of(model).intermediate_by_layer, criterion, seed)
    family = family_of(model)
    layers = family.layer_list(model)
    writing = [layer.get_submodule(family.output).weight.norm(dim=0) for layer in layers]
    if criterion == "magnitude":
        reading = [layer.get_submodule(family.intermediate).weight.norm(dim=1) for layer in layers]
    else:
        reading = _root_mean_square(model, family.output, batches)
    return [(a * b).cpu() for a, b in zip(reading, writing, strict=True)]


def _sensitivities(model: PreTrainedModel, groups: list[tuple[str, int, int]], batches: list[Batch]) -> list[PerLayer]:
    """Moments over the texts of the loss's derivative by a mask on parts of what enters a module.

    Args:
        groups: each a module's name, how many inputs in a row make a part, and which moment.
    """
    layers = list(family_of(model).layer_list(model))
    modules = [layer.get_submodule(name) for name, _, _ in groups for layer in layers]
    parts = [(width, order) for _, width, order in groups for _ in layers]
    total = [torch.zeros(each.in_features // width) for each, (width, _) in zip(modules, parts, strict=True)]
    with inference(model), recorded_inputs(modules) as inputs:
        for batch in batches:
            logits = model(**inputs_of(batch)).logits
            # Summed, not averaged, so that each example's gradient is its own.
            loss = nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")
            units = [inputs[module] for module in modules]  # (batch, tokens, inputs) each
            each = zip(total, units, torch.autograd.grad(loss, units), parts, strict=True)
            for moment, values, gradients, (width, order) in each:
                slope = (values.float() * gradients.float()).sum(dim=1).unflatten(-1, (-1, width)).sum(dim=-1)
                moment += slope.detach().abs().pow(order).sum(dim=0).cpu()
    return [total[start : start + len(layers)] for start in range(0, len(total), len(layers))]


def _root_mean_square(model: PreTrainedModel, name: str, batches: list[Batch]) -> PerLayer:
    """Of what enters a module of each layer, over the calibration tokens."""
    modules = [layer.get_submodule(name) for layer in family_of(model).layer_list(model)]
    total, count = [torch.zeros(module.in_features, device=model.device) for module in modules], 0
    with inference(model), recorded_inputs(modules) as inputs:
        for batch in batches:
            model(**inputs_of(batch))
            mask = batch["attention_mask"].bool()
            count += int(mask.sum())
            for layer, module in enumerate(modules):
                total[layer] += inputs[module][mask].float().square().sum(dim=0)
    return [(each / count).sqrt() for each in total]


def best(scores: PerLayer, size: int, spread: str, most: int | None = None) -> list[torch.Tensor]:
    """What stays of each layer, ascending.

    Args:
        scores: importance of each part, layer by layer.
        size: how many parts of a layer stay; a layer that has fewer keeps them all.
        spread: ``uniform`` (as many in each layer) or ``global`` (the best of all layers together, ``size`` in the
            mean and one at least in each).
        most: how many of a layer may stay at the most; any number by default.
    """
    if spread == "uniform":
        return [each.topk(min(size, len(each))).indices.sort().values for each in scores]
    first = [each.argmax() for each in scores]
    if most is not None:
        scores = [each.scatter(0, each.argsort(descending=True)[most:], -torch.inf) for each in scores]
    safe = torch.cat([each.scatter(0, index.view(1), torch.inf) for each, index in zip(scores, first, strict=True)])
    stays = torch.zeros(len(safe), dtype=torch.bool)
    stays[safe.topk(min(size * len(scores), len(safe))).indices] = True
    return [each.nonzero().flatten() for each in stays.split([len(each) for each in scores])]


def stream_moments(model: PreTrainedModel, criterion: str, batches: list[Batch] | None, seed: int) -> torch.Tensor:
    """How much each direction of the residual stream matters, as a symmetric matrix ``(hidden, hidden)``.

    Its diagonal holds the scores of the channels, its eigenvectors are the directions of most and of least.

    Args:
        criterion: ``activation`` (covariance over calibration tokens, each LayerNorm's output weighing
            the same), ``magnitude`` (products of the weights that read or write the channels),
            ``first`` or ``random``, which know channels only.
    """
    if criterion == "activation":
        return _stream_covariance(model, batches)
    if criterion == "magnitude":
        return _stream_weights(model)
    return torch.diag(_by_rule([sizes_of(model).hidden], criterion, seed)[0]).double()


def _stream_covariance(model: PreTrainedModel, batches: list[Batch]) -> torch.Tensor:
    family, hidden = family_of(model), sizes_of(model).hidden
    norms = [model.get_submodule(f"{family.backbone}.{family.embedding_norm}")]
    for layer in family.layer_list(model):
        norms += [layer.get_submodule(family.attention_norm), layer.get_submodule(family.output_norm)]
    first = torch.zeros(len(norms), hidden, dtype=torch.float64, device=model.device)
    second, count = torch.zeros(len(norms), hidden, hidden, dtype=torch.float64, device=model.device), 0
    with torch.no_grad(), inference(model), recorded_outputs(norms) as outputs:
        for batch in batches:
            model(**inputs_of(batch))
            mask = batch["attention_mask"].bool()
            count += int(mask.sum())
            for index, norm in enumerate(norms):
                tokens = outputs[norm][mask].float()  # (tokens, hidden)
                first[index] += tokens.sum(0)
                second[index] += _products(tokens)
    mean = first / count
    covariance = second / count - mean[:, :, None] * mean[:, None, :]
    return (covariance / covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]).mean(dim=0).cpu()


@full_precision
def _products(rows: torch.Tensor) -> torch.Tensor:
    return rows.T @ rows


@torch.no_grad()
def _stream_weights(model: PreTrainedModel) -> torch.Tensor:
    family, hidden = family_of(model), sizes_of(model).hidden
    total = torch.zeros(hidden, hidden, dtype=torch.float64, device=model.device)
    for layer in family.layer_list(model):
        reading = [layer.get_submodule(name).weight for name in (family.query, family.key, family.value)]
        reading.append(layer.get_submodule(family.intermediate).weight)
        writing = [layer.get_submodule(name).weight.T for name in (family.attention_output, family.output)]
        for weight in reading + writing:  # (units, hidden)
            total += _products(weight)
    return total.cpu()


@torch.no_grad()
def head_unit_scores(model: PreTrainedModel) -> torch.Tensor:
    """Importance of each unit of the classification head's hidden layer: the norms of the weights that read it."""
    return model.get_submodule(family_of(model).head_output).weight.norm(dim=0).cpu()


@torch.no_grad()
def attention_unit_scores(model: PreTrainedModel, criterion: str, seed: int) -> tuple[PerLayer, PerLayer]:
    """Importance of each unit inside each head, for query and key together, and for value.

    A query unit meets only the key unit of the same index, so the pair is scored by the product of
    the norms of their weights; a value unit likewise with its column of the output projection.

    Returns:
        For each layer, twice, ``(heads, head_size)``.
    """
    family, sizes = family_of(model), sizes_of(model)
    if criterion in ("first", "random"):
        return tuple(_units_by_rule(sizes, criterion, each) for each in (seed, seed + 1))
    query_key, value = [], []
    for layer in family.layer_list(model):
        q, k, v, output = family.attention_linears(layer)
        query_key.append((q.weight.norm(dim=1) * k.weight.norm(dim=1)).view(-1, sizes.head_size).cpu())
        value.append((v.weight.norm(dim=1) * output.weight.norm(dim=0)).view(-1, sizes.head_size).cpu())
    return query_key, value


def layer_influence(model: PreTrainedModel, batches: list[Batch]) -> torch.Tensor:
    """Block influence of each layer: one minus the cosine similarity of its input and output.

    Men et al. 2024, "ShortGPT", equation 1, averaged over the calibration tokens: ``(layers,)``.
    """
    layers = list(family_of(model).layer_list(model))
    total, count = torch.zeros(len(layers)), 0
    with torch.no_grad(), inference(model), recorded_inputs(layers) as inputs, recorded_outputs(layers) as outputs:
        for batch in batches:
            model(**inputs_of(batch))
            mask = batch["attention_mask"].bool()
            count += int(mask.sum())
            for index, layer in enumerate(layers):
                similarity = nn.functional.cosine_similarity(inputs[layer][mask], outputs[layer][mask], dim=-1)
                total[index] += (1 - similarity).sum().cpu()
    return total / count


def _by_rule(counts: Sequence[int], criterion: str, seed: int) -> PerLayer:
    if criterion == "first":
        return [torch.arange(count, 0, -1, dtype=torch.float) for count in counts]
    if criterion == "random":
        return list(torch.rand(sum(counts), generator=torch.Generator().manual_seed(seed)).split(list(counts)))
    raise ValueError(f"unknown criterion {criterion!r}")


def _units_by_rule(sizes: Sizes, criterion: str, seed: int) -> PerLayer:
    """Each head's units, ``(heads, head_size)`` of each layer."""
    units = _by_rule([sizes.head_size] * sum(sizes.heads_by_layer), criterion, seed)
    return list(torch.stack(units).split(list(sizes.heads_by_layer)))
