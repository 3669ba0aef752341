"""Criteria against answers worked out another way."""

import numpy as np
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
    scores = importance.part_scores(model, {"heads": "gradient"}, [batch], seed=0)["heads"]
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
    assert scores[layer][head].item() == pytest.approx(slope.abs().sum().item(), rel=0.02)


@pytest.mark.parametrize(("criterion", "power"), [("gradient", 1), ("fisher", 2)])
def test_unit_sensitivity_is_the_derivative_by_a_mask(model, texts, criterion, power):
    """By autograd through a mask on the units of one layer, text by text."""
    layer = 2
    module, expected = LAYERS["bert"](model)[layer].output.dense, torch.zeros(96)
    for batch in texts:
        for index in range(4):
            one = {name: tensor[index : index + 1] for name, tensor in batch.items()}
            mask = torch.ones(96, requires_grad=True)
            handle = module.register_forward_pre_hook(lambda module, args, mask=mask: (args[0] * mask,))
            loss = cross_entropy(model(**inputs_of(one)).logits, one["labels"])
            handle.remove()
            expected += torch.autograd.grad(loss, mask)[0].abs() ** power
    # Asked for beside heads, whose sensitivity comes of the same pass.
    criteria = {"heads": "gradient", "intermediate": criterion}
    scores = importance.part_scores(model, criteria, texts, seed=0)["intermediate"]
    torch.testing.assert_close(scores[layer], expected, rtol=1e-3, atol=1e-9)


def test_the_activation_of_a_unit_is_what_it_writes(model, texts):
    layer = LAYERS["bert"](model)[3]
    seen = []
    handle = layer.output.dense.register_forward_pre_hook(lambda module, args: seen.append(args[0][mask]))
    with torch.no_grad():
        for batch in texts:
            mask = batch["attention_mask"].bool()
            model(**inputs_of(batch))
    handle.remove()
    written = [torch.outer(units, layer.output.dense.weight[:, 7]) for units in torch.cat(seen)[:, 7:8]]
    expected = torch.stack(written).square().sum(dim=(1, 2)).mean().sqrt()
    scores = importance.part_scores(model, {"intermediate": "activation"}, texts, seed=0)["intermediate"]
    torch.testing.assert_close(scores[3][7], expected, rtol=1e-4, atol=0)


def test_the_best_of_all_layers_stay_and_one_of_each():
    scores = [torch.tensor([9.0, 8, 7, 6]), torch.tensor([1.0, 2, 0, 3]), torch.tensor([5.0, 4])]
    kept = [each.tolist() for each in importance.best(scores, 2, "global")]
    assert kept == [[0, 1, 2, 3], [3], [0]]
    assert [each.tolist() for each in importance.best(scores, 2, "uniform")] == [[0, 1], [1, 3], [0, 1]]
    assert [len(each) for each in importance.best(scores, 3, "uniform")] == [3, 3, 2]
    # Where a layer has room for so many only, the others get what it cannot keep.
    assert [each.tolist() for each in importance.best(scores, 2, "global", most=2)] == [[0, 1], [1, 3], [0, 1]]


def test_the_covariance_of_the_stream_is_that_of_every_layer_norm(model, texts):
    """From numpy's of what each of the thirteen LayerNorms hands on."""
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
    each = [np.cov(torch.cat(outputs[norm]).double().numpy(), rowvar=False, ddof=0) for norm in norms]
    expected = np.mean([covariance / np.trace(covariance) for covariance in each], axis=0)
    moments = importance.stream_moments(model, "activation", texts, seed=0)
    np.testing.assert_allclose(moments, expected, rtol=1e-4, atol=1e-7)


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
    draws = (importance.part_scores(model, {"heads": "random"}, None, seed)["heads"] for seed in (1, 1, 2))
    first, again, other = map(torch.stack, draws)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
