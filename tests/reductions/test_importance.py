"""Criteria against answers worked out another way."""

import pytest
import torch
from networks import random_batch, small
from oracles import ATTENTION_OUTPUT, LAYERS, inputs_of
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from encoder_reduction.reductions import importance
from encoder_reduction.reductions.layers import select_layers


@pytest.fixture
def model():
    return small("bert", layers=6, heads=12, head_size=4, intermediate=96, spread=0.2)


@pytest.fixture
def texts():
    return [random_batch(), random_batch(seed=1)]


def test_head_sensitivity_is_the_derivative_by_a_mask(model, texts):
    """By finite differences of each example's loss, with one head of one layer scaled by 1 + epsilon."""
    batch, head, layer, epsilon = texts[0], 7, 2, 1e-2
    scores = importance.head_scores(model, "gradient", [batch], seed=0)
    module = ATTENTION_OUTPUT["bert"](LAYERS["bert"](model)[layer])

    def losses(factor):
        def scale(module, args):
            context = args[0].clone()
            context[..., head * 4 : (head + 1) * 4] *= factor
            return (context,)

        handle = module.register_forward_pre_hook(scale)
        try:
            with torch.no_grad():
                return cross_entropy(model(**inputs_of(batch)).logits, batch["labels"], reduction="none")
        finally:
            handle.remove()

    slope = (losses(1 + epsilon) - losses(1 - epsilon)) / (2 * epsilon)
    assert scores[layer, head].item() == pytest.approx(slope.abs().sum().item(), rel=0.02)


def test_channel_variance_is_that_of_every_layer_norm(model, texts):
    """From torch's own variance of what each of the thirteen LayerNorms hands on."""
    outputs = {}
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 13

    def record(module, args, output):
        outputs.setdefault(module, []).append(output[mask])

    handles = [norm.register_forward_hook(record) for norm in norms]
    with torch.no_grad():
        for batch in texts:
            mask = batch["attention_mask"].bool()
            model(**inputs_of(batch))
    for handle in handles:
        handle.remove()
    variance = torch.stack([torch.cat(outputs[norm]).double().var(dim=0, unbiased=False) for norm in norms])
    expected = (variance / variance.sum(dim=1, keepdim=True)).mean(dim=0).float()
    scores = importance.channel_scores(model, "activation", texts, seed=0)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=0)


def test_layer_influence_is_one_minus_the_cosine(model, texts):
    expected = torch.zeros(6)
    count = 0
    with torch.no_grad():
        for batch in texts:
            states = model(**inputs_of(batch), output_hidden_states=True).hidden_states
            mask = batch["attention_mask"].bool()
            count += int(mask.sum())
            for index in range(6):
                expected[index] += (1 - cosine_similarity(states[index][mask], states[index + 1][mask], dim=-1)).sum()
    torch.testing.assert_close(importance.layer_influence(model, texts), expected / count, atol=1e-5, rtol=1e-4)
    lowest = set(expected.topk(3, largest=False).indices.tolist())
    assert set(select_layers(model, 3, "influence", texts)) == set(range(6)) - lowest


def test_strategies_choose_the_layers_they_name(model):
    assert select_layers(model, 3, "alternate") == [0, 2, 4]
    assert select_layers(model, 3, "first") == [0, 1, 2]
    assert select_layers(model, 3, "last") == [3, 4, 5]
    assert select_layers(model, 3, "ends") == [0, 2, 5]
    assert select_layers(model, 1, "ends") == [0]
    assert select_layers(model, 4, "alternate") == [0, 1, 3, 4]


def test_random_choices_follow_the_seed(model):
    first, again, other = (importance.head_scores(model, "random", None, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
