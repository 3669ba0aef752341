"""Independent answers: the full network with parts switched off by hooks, and closed formulas."""

import torch
from torch import nn

from encoder_reduction.reductions.importance import best, part_scores

# Where each family keeps its layers, and each layer its attention output projection.
LAYERS = {
    "bert": lambda model: model.bert.encoder.layer,
    "roberta": lambda model: model.roberta.encoder.layer,
    "distilbert": lambda model: model.distilbert.transformer.layer,
}
ATTENTION_OUTPUT = {
    "bert": lambda layer: layer.attention.output.dense,
    "roberta": lambda layer: layer.attention.output.dense,
    "distilbert": lambda layer: layer.attention.out_lin,
}


def inputs_of(batch):
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


@torch.no_grad()
def logits(model, batches):
    model.eval()
    return torch.cat([model(**inputs_of(batch)).logits for batch in batches])


def logits_without_heads(model, family, removed, batches, head_size):
    """Logits when the outputs of some heads (``removed[layer]``) are zeroed before the output projection."""

    def zero(heads):
        def hook(module, args):
            context = args[0].clone()
            for head in heads:
                context[..., head * head_size : (head + 1) * head_size] = 0
            return (context,)

        return hook

    handles = [
        ATTENTION_OUTPUT[family](layer).register_forward_pre_hook(zero(heads))
        for layer, heads in zip(LAYERS[family](model), removed, strict=True)
    ]
    try:
        return logits(model, batches)
    finally:
        for handle in handles:
            handle.remove()


def logits_without_layers(model, family, dropped, batches):
    """Logits when some layers hand on their input."""
    layers = LAYERS[family](model)
    handles = [layers[index].register_forward_hook(lambda module, args, output: args[0]) for index in dropped]
    try:
        return logits(model, batches)
    finally:
        for handle in handles:
            handle.remove()


def logits_without_units(model, family_description, removed, batches):
    """Logits when the activations of some feed-forward units (``removed[layer]``) are zeroed before they are read."""

    def zero(units):
        def hook(module, args):
            activations = args[0].clone()
            activations[..., units] = 0
            return (activations,)

        return hook

    d = family_description
    layers = model.get_submodule(f"{d.backbone}.{d.layers}")
    handles = [
        layer.get_submodule(d.output).register_forward_pre_hook(zero(units))
        for layer, units in zip(layers, removed, strict=True)
    ]
    try:
        return logits(model, batches)
    finally:
        for handle in handles:
            handle.remove()


def parameter_count(
    family, *, layers, heads, head_size, hidden, intermediate, vocabulary, positions, classes=2, token_types=None
):
    """The closed formula: embeddings, layers and head, biases and LayerNorms included."""
    token_types = {"bert": 2, "roberta": 1, "distilbert": 0}[family] if token_types is None else token_types
    embeddings = (vocabulary + positions + token_types) * hidden + 2 * hidden
    total = 0
    for heads_here, units in zip(each(heads, layers), each(intermediate, layers), strict=True):
        attention = heads_here * head_size
        total += 3 * (hidden * attention + attention) + attention * hidden + hidden
        total += hidden * units + units + units * hidden + hidden
        total += 2 * 2 * hidden
    head = hidden * hidden + hidden + hidden * classes + classes
    return embeddings + total + head


def each(value, layers):
    """A number for every layer, or a list of one for each."""
    return [value] * layers if isinstance(value, int) else value


def flop_count(*, layers, heads, head_size, hidden, intermediate, tokens, classes=2):
    """The closed formula of one forward pass's matrix products: two operations for each multiply-add."""
    total = 0
    for heads_here, units in zip(each(heads, layers), each(intermediate, layers), strict=True):
        attention = heads_here * head_size
        total += 2 * tokens * (4 * hidden * attention + 2 * hidden * units)
        total += 2 * 2 * tokens**2 * attention
    head = 2 * (hidden * hidden + hidden * classes)
    return total + head


def duplicate_channels(model, family_description):
    """Make the upper half of the channels copies of the lower half that nobody reads.

    LayerNorm's mean and variance over all channels are then those over the lower half, so that the
    network cut to the lower half must give the same logits.
    """
    d = family_description
    body = model.get_submodule(d.backbone)
    hidden = model.get_submodule(d.head_output).weight.shape[1]
    half = hidden // 2

    def copy_rows(module):
        module.weight.data[half:] = module.weight.data[:half]
        module.bias.data[half:] = module.bias.data[:half]

    def ignore_columns(module):
        module.weight.data[:, half:] = 0

    for name in d.embeddings:
        table = body.get_submodule(name).weight.data
        table[:, half:] = table[:, :half]
    copy_rows(body.get_submodule(d.embedding_norm))
    for layer in body.get_submodule(d.layers):
        for name in (d.attention_norm, d.output_norm, d.attention_output, d.output):
            copy_rows(layer.get_submodule(name))
        for name in (d.query, d.key, d.value, d.intermediate):
            ignore_columns(layer.get_submodule(name))
    for name in d.head_hidden:
        ignore_columns(model.get_submodule(name))
    ignore_columns(model.get_submodule(d.head_output))
    return half


def silence_units(model, family_description, query_key, value, intermediate):
    """Zero the units that are not kept, so that dropping them changes nothing but the logit scale of q.k."""
    d = family_description

    def zero_rows(linear: nn.Linear, kept):
        gone = torch.ones(linear.out_features, dtype=torch.bool)
        gone[kept] = False
        linear.weight.data[gone] = 0
        linear.bias.data[gone] = 0

    layers = model.get_submodule(f"{d.backbone}.{d.layers}")
    for index, layer in enumerate(layers):
        zero_rows(layer.get_submodule(d.query), query_key[index])
        zero_rows(layer.get_submodule(d.key), query_key[index])
        zero_rows(layer.get_submodule(d.value), value[index])
        up = layer.get_submodule(d.intermediate)
        zero_rows(up, intermediate[index])  # gelu(0) = 0


def select(model, dim, size, criterion, batches, seed, spread="uniform"):
    """Which heads or units of each layer a reduction along one dimension would keep."""
    return best(part_scores(model, {dim: criterion}, batches, seed)[dim], size, spread)
