"""How much each head, channel, unit or layer matters: the criteria of the literature, as tensors.

Every function returns scores, larger meaning more important; none changes the model. Criteria that
look at data draw on calibration batches: dictionaries of ``input_ids`` and ``attention_mask``
``(batch, tokens)`` and ``labels`` ``(batch,)`` on the model's device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import family_of, sizes_of

Batch = dict[str, torch.Tensor]


def head_scores(model: PreTrainedModel, criterion: str, batches: list[Batch] | None, seed: int) -> torch.Tensor:
    """Importance of each attention head.

    Args:
        criterion: ``gradient`` (expected absolute sensitivity of the loss to a mask on the head's
            output; Michel et al. 2019, equation 2), ``magnitude`` (Frobenius norm of the head's
            weights), ``first`` or ``random``.

    Returns:
        ``(layers, heads)``.
    """
    sizes = sizes_of(model)
    if criterion == "gradient":
        return _head_sensitivity(model, batches)
    if criterion == "magnitude":
        query_key, value = attention_unit_scores(model, "magnitude", seed)
        return query_key.sum(-1) + value.sum(-1)
    return _by_rule((sizes.layers, sizes.heads), criterion, seed)


def _head_sensitivity(model: PreTrainedModel, batches: list[Batch]) -> torch.Tensor:
    family, sizes = family_of(model), sizes_of(model)
    outputs = [layer.get_submodule(family.attention_output) for layer in family.layer_list(model)]
    total = torch.zeros(sizes.layers, sizes.heads, device=model.device)
    with inference(model), recorded_inputs(outputs, keep_gradient=True) as contexts:
        for batch in batches:
            # Summed, not averaged, so that each example's gradient is its own.
            logits = model(**inputs_of(batch)).logits
            nn.functional.cross_entropy(logits, batch["labels"], reduction="sum").backward()
            for layer, module in enumerate(outputs):
                context = contexts[module]  # (batch, tokens, heads * head_size)
                sensitivity = (context * context.grad).unflatten(-1, (sizes.heads, sizes.head_size))
                total[layer] += sensitivity.sum(dim=(1, 3)).abs().sum(dim=0)
            model.zero_grad(set_to_none=True)
    return total.cpu()


def channel_scores(model: PreTrainedModel, criterion: str, batches: list[Batch] | None, seed: int) -> torch.Tensor:
    """Importance of each residual channel: ``(hidden,)``.

    Args:
        criterion: ``activation`` (variance over calibration tokens, each LayerNorm's output weighing
            the same), ``magnitude`` (norm of the weights that read or write the channel),
            ``first`` or ``random``.
    """
    if criterion == "activation":
        return _channel_variance(model, batches)
    if criterion == "magnitude":
        return _channel_magnitude(model)
    return _by_rule((sizes_of(model).hidden,), criterion, seed)


def _channel_variance(model: PreTrainedModel, batches: list[Batch]) -> torch.Tensor:
    family = family_of(model)
    norms = [model.get_submodule(f"{family.backbone}.{family.embedding_norm}")]
    for layer in family.layer_list(model):
        norms += [layer.get_submodule(family.attention_norm), layer.get_submodule(family.output_norm)]
    first = torch.zeros(len(norms), sizes_of(model).hidden, dtype=torch.float64)
    second, count = torch.zeros_like(first), 0
    with torch.no_grad(), inference(model), recorded_outputs(norms) as outputs:
        for batch in batches:
            model(**inputs_of(batch))
            mask = batch["attention_mask"].bool()
            count += int(mask.sum())
            for index, norm in enumerate(norms):
                tokens = outputs[norm][mask].double().cpu()  # (tokens, hidden)
                first[index] += tokens.sum(0)
                second[index] += tokens.square().sum(0)
    variance = second / count - (first / count).square()
    return (variance / variance.sum(dim=1, keepdim=True)).mean(dim=0).float()


@torch.no_grad()
def _channel_magnitude(model: PreTrainedModel) -> torch.Tensor:
    family = family_of(model)
    total = torch.zeros(sizes_of(model).hidden, device=model.device)
    for layer in family.layer_list(model):
        for name in (family.query, family.key, family.value, family.intermediate):
            total += layer.get_submodule(name).weight.square().sum(dim=0)
        for name in (family.attention_output, family.output):
            total += layer.get_submodule(name).weight.square().sum(dim=1)
    return total.sqrt().cpu()


@torch.no_grad()
def attention_unit_scores(model: PreTrainedModel, criterion: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Importance of each unit inside each head, for query and key together, and for value.

    A query unit meets only the key unit of the same index, so the pair is scored by the product of
    the norms of their weights; a value unit likewise with its column of the output projection.

    Returns:
        Two tensors ``(layers, heads, head_size)``.
    """
    family, sizes = family_of(model), sizes_of(model)
    shape = (sizes.layers, sizes.heads, sizes.head_size)
    if criterion in ("first", "random"):
        return _by_rule(shape, criterion, seed), _by_rule(shape, criterion, seed + 1)
    query_key, value = [], []
    for layer in family.layer_list(model):
        q, k, v, output = family.attention_linears(layer)
        query_key.append(q.weight.norm(dim=1) * k.weight.norm(dim=1))
        value.append(v.weight.norm(dim=1) * output.weight.norm(dim=0))
    return torch.stack(query_key).view(shape).cpu(), torch.stack(value).view(shape).cpu()


@torch.no_grad()
def intermediate_scores(model: PreTrainedModel, criterion: str, seed: int) -> torch.Tensor:
    """Importance of each feed-forward unit, by the norms of its two weights: ``(layers, intermediate)``."""
    family, sizes = family_of(model), sizes_of(model)
    if criterion in ("first", "random"):
        return _by_rule((sizes.layers, sizes.intermediate), criterion, seed)
    scores = []
    for layer in family.layer_list(model):
        up, down = layer.get_submodule(family.intermediate), layer.get_submodule(family.output)
        scores.append(up.weight.norm(dim=1) * down.weight.norm(dim=0))
    return torch.stack(scores).cpu()


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


def _by_rule(shape: tuple[int, ...], criterion: str, seed: int) -> torch.Tensor:
    if criterion == "first":
        return torch.arange(shape[-1], 0, -1, dtype=torch.float).expand(shape)
    if criterion == "random":
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    raise ValueError(f"unknown criterion {criterion!r}")


def inputs_of(batch: Batch) -> Batch:
    """What the model takes of a batch: everything but the labels."""
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) for the block, the former mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def recorded_inputs(modules: list[nn.Module], keep_gradient: bool = False) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """The first input of each module at its latest call, while the block runs."""

    def record(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if keep_gradient:
            args[0].retain_grad()
        store[module] = args[0]

    store: dict[nn.Module, torch.Tensor] = {}
    yield from _hooked(store, [module.register_forward_pre_hook(record) for module in modules])


@contextmanager
def recorded_outputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """The output of each module at its latest call, while the block runs."""

    def record(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        store[module] = output

    store: dict[nn.Module, torch.Tensor] = {}
    yield from _hooked(store, [module.register_forward_hook(record) for module in modules])


def _hooked(store: dict, handles: list) -> Iterator[dict]:
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()
