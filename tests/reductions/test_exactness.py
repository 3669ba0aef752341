"""Every reduction without correction is exact: equal to the full network with the parts switched off."""

import copy

import pytest
import torch
from networks import random_batch, small
from oracles import (
    duplicate_channels,
    logits,
    logits_without_heads,
    logits_without_layers,
    logits_without_units,
    select,
    silence_units,
)

from conftest import FAMILIES
from encoder_reduction.models.architectures import family_of, sizes_of
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.reductions import reduce_model
from encoder_reduction.reductions.heads import prune_heads, regroup_heads
from encoder_reduction.reductions.hidden import Width, select_width, slice_width
from encoder_reduction.reductions.intermediate import prune_units
from encoder_reduction.reductions.layers import drop_layers, select_layers

EVERYTHING = {
    "heads": [("prune", "gradient"), ("prune", "magnitude"), ("regroup", "first")],
    "hidden": [("project", "activation"), ("slice", "activation"), ("slice", "magnitude"), ("slice", "random")],
    "layers": [(strategy, None) for strategy in ("alternate", "first", "last", "ends", "influence")],
    "intermediate": [("prune", "activation"), ("prune", "gradient"), ("prune", "magnitude")],
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return small(family, layers=6, heads=12, head_size=4, intermediate=96, spread=0.2)


@pytest.fixture
def texts():
    return [random_batch()]


@pytest.mark.parametrize(("dim", "ways"), EVERYTHING.items())
def test_keeping_everything_is_the_identity(model, texts, dim, ways):
    expected = logits(model, texts)
    for strategy, criterion in ways:
        whole = Reduction(keep=1.0, strategy=strategy, criterion=criterion, calibration_examples=64)
        reduced = reduce_model(model, {dim: whole}, texts, seed=0)
        torch.testing.assert_close(logits(reduced, texts), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("criterion", ["gradient", "magnitude", "random"])
def test_pruned_heads_are_zeroed_heads(model, texts, family, criterion):
    kept = select(model, "heads", 5, criterion, texts, seed=3)
    removed = [sorted(set(range(12)) - set(row.tolist())) for row in kept]
    expected = logits_without_heads(model, family, removed, texts, head_size=4)
    assert (expected - logits(model, texts)).abs().max() > 1e-3
    torch.testing.assert_close(logits(prune_heads(model, kept), texts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spread", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["activation", "fisher", "random"])
def test_pruned_units_are_zeroed_units(model, texts, criterion, spread):
    kept = select(model, "intermediate", 40, criterion, texts, seed=3, spread=spread)
    assert sum(map(len, kept)) == 6 * 40
    removed = [sorted(set(range(96)) - set(units.tolist())) for units in kept]
    expected = logits_without_units(model, family_of(model), removed, texts)
    assert (expected - logits(model, texts)).abs().max() > 1e-3
    torch.testing.assert_close(logits(prune_units(model, kept), texts), expected, atol=1e-5, rtol=0)


def test_layers_of_their_own_sizes_are_cut_further(model, texts, family):
    """Uneven heads and units, then fewer layers, then fewer heads, then units: each as if the parts were off."""
    heads = [torch.arange(count) for count in (12, 1, 5, 7, 2, 3)]
    units = [torch.arange(count) for count in (96, 1, 50, 7, 20, 30)]
    uneven = prune_units(prune_heads(model, heads), units)
    off = [sorted(set(range(12)) - set(kept.tolist())) for kept in heads]
    pruned = logits(prune_heads(model, heads), texts)
    torch.testing.assert_close(pruned, logits_without_heads(model, family, off, texts, head_size=4), atol=1e-5, rtol=0)
    sizes = sizes_of(uneven)
    assert (sizes.heads_by_layer, sizes.intermediate_by_layer) == ((12, 1, 5, 7, 2, 3), (96, 1, 50, 7, 20, 30))
    assert (sizes.heads, sizes.intermediate) == (5, 34)
    shallow = drop_layers(uneven, [0, 2, 3])
    assert sizes_of(shallow).heads_by_layer == (12, 5, 7)
    expected = logits_without_layers(uneven, family, {1, 4, 5}, texts)
    torch.testing.assert_close(logits(shallow, texts), expected, atol=1e-6, rtol=0)
    fewer = prune_heads(shallow, select(shallow, "heads", 6, "magnitude", texts, seed=0))
    assert sizes_of(fewer).heads_by_layer == (6, 5, 6)
    narrow = slice_width(fewer, select_width(fewer, 24, "activation", texts, seed=0))
    assert sizes_of(narrow).intermediate_by_layer == (96, 50, 7)
    assert logits(narrow, texts).isfinite().all()


def test_heads_can_be_pruned_again(model, texts, family):
    once = prune_heads(model, torch.tensor([[0, 1, 4, 9]] * 6))
    twice = prune_heads(once, torch.tensor([[1, 3]] * 6))
    removed = [sorted(set(range(12)) - {1, 9})] * 6
    expected = logits_without_heads(model, family, removed, texts, head_size=4)
    torch.testing.assert_close(logits(twice, texts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", ["alternate", "first", "last", "ends", "influence"])
def test_dropped_layers_are_skipped_layers(model, texts, family, strategy):
    kept = select_layers(model, 3, strategy, texts)
    dropped = set(range(6)) - set(kept)
    assert len(dropped) == 3
    expected = logits_without_layers(model, family, dropped, texts)
    assert (expected - logits(model, texts)).abs().max() > 1e-3
    torch.testing.assert_close(logits(drop_layers(model, kept), texts), expected, atol=1e-6, rtol=0)


def test_slicing_dead_channels_and_units_changes_nothing(model, texts):
    model = copy.deepcopy(model)
    description, sizes = family_of(model), sizes_of(model)
    chosen = select_width(model, sizes.hidden // 2, "random", texts, seed=5)
    width = Width(
        basis=torch.eye(sizes.hidden)[:, : duplicate_channels(model, description)],
        query_key=chosen.query_key,
        value=chosen.value,
        intermediate=chosen.intermediate,
        pooled=torch.arange(sizes.hidden // 2),
    )
    silence_units(model, description, chosen.query_key, chosen.value, chosen.intermediate)
    expected = logits(model, texts)
    assert expected.std() > 0
    torch.testing.assert_close(logits(slice_width(model, width), texts), expected, atol=1e-4, rtol=0)


def test_regrouping_changes_the_function_but_not_one_weight(model, texts):
    reduced = regroup_heads(model, 6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), reduced.parameters(), strict=True))
    assert (logits(reduced, texts) - logits(model, texts)).abs().max() > 1e-3


def test_a_reduction_leaves_its_original_alone(model, texts):
    before = copy.deepcopy(model.state_dict())
    for dim, ways in EVERYTHING.items():
        strategy, criterion = ways[0]
        cut = Reduction(
            keep=0.5, strategy=strategy, criterion=criterion, correct="least_squares", calibration_examples=64
        )
        reduce_model(model, {dim: cut}, texts, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_random_weights_share_the_architecture_only(model, texts):
    cut = Reduction(keep=0.5, strategy="slice", criterion="activation", calibration_examples=64)
    kept = reduce_model(model, {"hidden": cut}, texts, seed=0)
    control = reduce_model(model, {"hidden": cut.model_copy(update={"init": "random"})}, [], seed=0)
    again = reduce_model(model, {"hidden": cut.model_copy(update={"init": "random"})}, [], seed=0)
    assert sizes_of(kept) == sizes_of(control)
    name = "classifier.weight" if hasattr(model.classifier, "weight") else "classifier.dense.weight"
    weights = [m.state_dict()[name] for m in (control, again)]
    assert torch.equal(*weights)
    assert (control.base_model.embeddings.word_embeddings.weight.std() - 0.2).abs() < 0.02
