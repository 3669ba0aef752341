"""Networks in which it is planted what does the work: the rest is cut, and nothing changes."""

import pytest
import torch
from networks import random_batch, small
from oracles import ATTENTION_OUTPUT, LAYERS, duplicate_channels, logits, select, silence_units

from conftest import FAMILIES
from encoder_reduction.models.architectures import family_of
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.reductions import importance, needs_calibration, reduce_model
from encoder_reduction.reductions.correction import correct_hidden, correct_pruned
from encoder_reduction.reductions.heads import prune_heads
from encoder_reduction.reductions.hidden import Width, select_width, slice_width
from encoder_reduction.reductions.layers import drop_layers, select_layers

TEXTS = [random_batch()]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def widen(model, names, factor):
    """Weights of an untrained network are so small that every softmax is flat; these are not."""
    for layer in family_of(model).layer_list(model):
        for name in names:
            layer.get_submodule(name).weight.data *= factor


def with_two_working_heads(family):
    """Of the four heads of each layer, the output projection reads two, other ones in each layer."""
    model, working = small(family, layers=2, heads=4, head_size=4, intermediate=32), [[1, 2], [0, 3]]
    for layer, heads in zip(LAYERS[family](model), working, strict=True):
        weight = ATTENTION_OUTPUT[family](layer).weight.data.view(16, 4, 4)
        weight[:, [head for head in range(4) if head not in heads]] = 0
    return model, torch.tensor(working)


@pytest.mark.parametrize("criterion", ["gradient", "magnitude"])
def test_the_heads_that_do_all_the_work_are_kept(family, criterion):
    model, working = with_two_working_heads(family)
    kept = select(model, "heads", 2, criterion, TEXTS, seed=0)
    assert torch.equal(torch.stack(kept), working)
    torch.testing.assert_close(logits(prune_heads(model, kept), TEXTS), logits(model, TEXTS), atol=1e-6, rtol=0)


def test_correcting_for_heads_that_did_nothing_changes_nothing(family):
    model, working = with_two_working_heads(family)
    corrected = correct_pruned(model, prune_heads(model, working), TEXTS, heads=True)
    torch.testing.assert_close(logits(corrected, TEXTS), logits(model, TEXTS), atol=1e-5, rtol=0)


def with_idle_layers(family):
    """Of four layers, the second and the last add nothing to what they are given."""
    model = small(family, layers=4, heads=2, head_size=4, intermediate=16)
    description = family_of(model)
    widen(model, [description.value, description.attention_output, description.intermediate, description.output], 10)
    for index in (1, 3):
        for name in (description.attention_output, description.output):
            linear = LAYERS[family](model)[index].get_submodule(name)
            linear.weight.data.zero_()
            linear.bias.data.zero_()
    return model


def test_layers_that_add_nothing_are_dropped(family):
    model = with_idle_layers(family)
    kept = select_layers(model, 2, "influence", TEXTS)
    assert kept == [0, 2]
    torch.testing.assert_close(logits(drop_layers(model, kept), TEXTS), logits(model, TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("criterion", ["activation", "magnitude"])
def test_channels_and_units_that_do_nothing_are_cut(family, criterion):
    """Half of the channels stand still and nobody reads them; of the other units, those beyond the kept are zero."""
    model = small(family, layers=2, heads=2, head_size=4, intermediate=64)
    chosen = select_width(model, 4, "random", None, seed=3)
    silence_units(model, family_of(model), chosen.query_key, chosen.value, chosen.intermediate)
    dead = chosen.basis.sum(dim=1).eq(0).nonzero().flatten()
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or "layer_norm" in name:
            parameter.data[dead] = 0
    names = family_of(model)
    for layer in LAYERS[family](model):
        for name in (names.query, names.key, names.value, names.intermediate):
            layer.get_submodule(name).weight.data[:, dead] = 0
        for name in (names.attention_output, names.output):
            layer.get_submodule(name).weight.data[dead] = 0
    kept = select_width(model, 4, criterion, TEXTS, seed=0)
    assert torch.equal(kept.basis, chosen.basis)
    for group in ("query_key", "value", "intermediate"):
        assert list(map(torch.equal, getattr(kept, group), getattr(chosen, group))) == [True, True], group


def of_half_rank(linear, heads):
    """Leave each head's units a space of half as many dimensions, which no choice of units spans."""
    rows = linear.weight.data.view(heads, -1, linear.in_features)
    half = rows.shape[1] // 2
    mix = torch.randn(heads, half, half, generator=torch.Generator().manual_seed(1))
    rows[:, half:] = mix @ rows[:, :half]
    bias = linear.bias.data.view(heads, -1)
    bias[:, half:] = (mix @ bias[:, :half, None])[..., 0]


def test_correction_finds_the_narrow_network_that_computes_the_same(family):
    """All is there in half the width, but not in single units of query, key and value: these must be combined."""
    model = small(family, layers=2, heads=2, head_size=8, intermediate=64)
    description = family_of(model)
    widen(model, [description.query, description.key], 60)
    widen(model, [description.value, description.attention_output], 10)
    units = select_width(model, 8, "first", None, seed=0)
    silence_units(model, description, [range(16)] * 2, [range(16)] * 2, units.intermediate)
    width = Width(
        basis=torch.eye(16)[:, : duplicate_channels(model, description)],
        query_key=units.query_key,
        value=units.value,
        intermediate=units.intermediate,
        pooled=torch.arange(8),
    )
    for layer in LAYERS[family](model):
        for name in (description.query, description.key, description.value):
            of_half_rank(layer.get_submodule(name), heads=2)
    expected, sliced = logits(model, TEXTS), slice_width(model, width)
    wrong = (logits(sliced, TEXTS) - expected).abs().max()
    corrected = correct_hidden(model, sliced, width, TEXTS)
    found = (logits(corrected, TEXTS) - expected).abs().max()
    assert found < 1e-4 * wrong


def cut(strategy, criterion=None, **values):
    return Reduction(strategy=strategy, criterion=criterion, calibration_examples=8, **values)


def test_depth_is_cut_first_and_width_last():
    model = small("bert", layers=4, heads=4, head_size=4, intermediate=32)
    cuts = {
        "hidden": cut("slice", "activation", correct="least_squares"),
        "heads": cut("prune", "gradient", correct="least_squares"),
        "layers": cut("last"),
    }
    at_once = reduce_model(model, cuts, TEXTS, seed=0)
    in_turn = model
    for dim in ("layers", "heads", "hidden"):
        in_turn = reduce_model(in_turn, {dim: cuts[dim]}, TEXTS, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(at_once.parameters(), in_turn.parameters(), strict=True))


def test_fresh_weights_follow_the_seed():
    model = small("bert", layers=2, heads=2, head_size=4, intermediate=16)
    fresh = cut("first", init="random")
    first, again, other = (reduce_model(model, {"layers": fresh}, [], seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_units_of_value_are_not_those_of_query_and_key():
    model = small("bert", layers=2, heads=2, head_size=4, intermediate=16)
    query_key, value = importance.attention_unit_scores(model, "random", seed=0)
    assert not torch.equal(query_key[0], value[0])


@pytest.mark.parametrize(
    ("reduction", "asks"),
    [
        (cut("prune", "gradient"), True),
        (cut("slice", "activation"), True),
        (cut("influence"), True),
        (cut("prune", "first", correct="least_squares"), True),
        (cut("regroup", "gradient"), False),
        (cut("prune", "magnitude"), False),
        (cut("alternate"), False),
        (cut("slice", "activation", init="random"), False),
    ],
)
def test_what_looks_at_text_asks_for_it_and_nothing_else_does(reduction, asks):
    assert needs_calibration(reduction) == asks
