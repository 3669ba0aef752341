"""A budget decides how much stays: the costs are those of the networks that come of it."""

import dataclasses

import pytest
from networks import random_batch, small
from oracles import flop_count

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import Sizes, sizes_of
from encoder_reduction.plan.sections import Budget, Reduction
from encoder_reduction.reductions import reduce_model
from encoder_reduction.reductions.budgets import STEPS, Space
from encoder_reduction.reductions.costs import embedding_share, flops, parameters

STRATEGIES = {"heads": "prune", "intermediate": "prune", "layers": "alternate", "hidden": "slice"}
DIMS = tuple(STRATEGIES)


def cuts(*dims, **values):
    return {
        dim: Reduction(
            strategy=STRATEGIES[dim], criterion=None if dim == "layers" else "first", calibration_examples=8, **values
        )
        for dim in dims
    }


def network(family="bert"):
    return small(family, layers=6, heads=6, head_size=8, intermediate=192)


def space(*dims, budget="flops:0.5", cost=flops, **values):
    model = network()
    full = sizes_of(model)
    of = cost(model)
    return Space(full, cuts(*dims), Budget(budget=budget, **values), lambda sizes: of(sizes) / of(full))


def cut_to(sizes):
    each = {dim: cuts(dim, size=size)[dim] for dim, size in sizes.items()}
    return reduce_model(network(), each, [random_batch()], seed=0)


def flops_of(model):
    """By the tests' own formula, which is held against torch's counter for every size (test_sizes.py)."""
    sizes = sizes_of(model)
    by_layer = {"heads": list(sizes.heads_by_layer), "intermediate": list(sizes.intermediate_by_layer)}
    return flop_count(layers=sizes.layers, head_size=sizes.head_size, hidden=sizes.hidden, **by_layer, tokens=128)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("dims", [("heads",), ("hidden",), ("layers",), ("heads", "intermediate"), DIMS])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_costs_what_the_formulas_say(family, dims):
    model = network(family)
    reduced = reduce_model(model, cuts(*dims), [random_batch()], seed=0)
    assert parameters(model)(sizes_of(reduced)) == count(reduced)
    assert flops(model)(sizes_of(reduced)) == pytest.approx(flops_of(reduced), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embeddings_are_what_no_cut_of_layers_makes_smaller(family):
    model = network(family)
    tables = sum(p.numel() for name, p in model.named_parameters() if "embeddings" in name and "Norm" not in name)
    assert embedding_share(model, sizes_of(model)) == pytest.approx(tables / count(model))


@pytest.mark.parametrize("dims", [("hidden",), ("intermediate",), ("heads", "intermediate"), ("heads", "hidden")])
@pytest.mark.parametrize("share", [0.8, 0.6])
def test_what_is_left_is_within_the_budget(dims, share):
    reduced = cut_to(space(*dims, budget=f"flops:{share}").alone())
    assert -0.1 < flops_of(reduced) / flops_of(network()) - share < 0.06 * share


@pytest.mark.parametrize(("dim", "step"), [("hidden", 6), ("intermediate", 1)])
def test_the_nearest_to_the_budget_is_taken(dim, step):
    target = space(dim, budget="flops:0.8").alone()[dim]
    cost = {size: flops_of(cut_to({dim: size})) for size in (target, target - step, target + step)}
    wanted = 0.8 * flops_of(network())
    assert min(cost, key=lambda size: abs(cost[size] - wanted)) == target


def test_layers_may_overspend_by_the_tolerance():
    """Three of six layers are a little more than half, since the head stays whole."""
    three, cost = cut_to({"layers": 3}), flops(network())
    assert 0.5 < cost(sizes_of(three)) / cost(sizes_of(network())) < 0.53
    assert space("layers").alone() == {"layers": 3}
    assert space("layers", budget_tolerance=0).alone() == {"layers": 2}


def test_a_budget_out_of_reach_says_how_far_it_goes():
    one = flops(network())(sizes_of(network()).resized(heads=1)) / flops(network())(sizes_of(network()))
    message = f"budget=flops:0.5 is out of reach of dim=heads: even heads=1 leaves {one:.0%} of the flops"
    for ask in (space("heads").alone, space("heads").starts):
        with pytest.raises(UserError, match=message):
            ask()
    with pytest.raises(UserError, match=r"of the parameters\. Give parameters:0\.\d\d or more, or more dimensions"):
        space("layers", budget="parameters:0.01", cost=parameters).alone()


def test_a_search_starts_from_every_set_of_dimensions_that_reaches_the_budget():
    starts = space(*DIMS).starts()
    found = {frozenset(sizes) for sizes in starts}
    assert {frozenset({"layers"}), frozenset({"hidden"}), frozenset({"heads", "intermediate"})} <= found
    assert max(map(len, found)) >= 3
    assert frozenset({"heads"}) not in found  # cannot
    assert len(starts) == len({tuple(sorted(sizes.items())) for sizes in starts})


@pytest.mark.parametrize("share", [0.5, 0.33])
def test_every_way_is_within_the_budget_and_leaves_little_of_it(share):
    ways = space(*DIMS, budget=f"flops:{share}")
    starts = ways.starts()
    around = [other for step in STEPS for sizes in starts[:4] for other in ways.neighbours(sizes, step)]
    assert len(around) > 10
    for sizes in (*starts, *around):
        cost = flops_of(cut_to(sizes)) / flops_of(network())
        assert cost == pytest.approx(ways.cost(sizes))
        assert cost <= share * 1.06
    assert min(ways.cost(sizes) for sizes in around if "intermediate" in sizes) > 0.9 * share
    whole = {"heads": 6, "layers": 6, "hidden": 48, "intermediate": 192}
    for sizes in starts[:4]:
        for other in ways.neighbours(sizes, STEPS[0]):
            assert any(other.get(dim, most) > sizes.get(dim, most) for dim, most in whole.items())


def test_a_step_takes_from_one_dimension_and_gives_to_another():
    ways = space("heads", "intermediate")
    here = {"heads": 3, "intermediate": 84}
    fewer = [sizes for sizes in ways.neighbours(here, 1 / 6) if sizes["heads"] < 3]
    assert fewer
    assert all(sizes["intermediate"] > 84 for sizes in fewer)
    fewer = [sizes for sizes in ways.neighbours(here, 1 / 6) if sizes["intermediate"] < 84]
    assert fewer
    assert all(sizes.get("heads", 6) > 3 for sizes in fewer)


def test_what_stays_whole_is_not_cut():
    """Refitting a width that was not cut, say, would only lose."""
    for sizes in space(*DIMS, budget="flops:0.9").starts():
        assert all(
            size < {"heads": 6, "layers": 6, "hidden": 48, "intermediate": 192}[dim] for dim, size in sizes.items()
        )


def test_a_corrected_space_is_one_where_all_costs_more():
    ways = space("intermediate", budget="flops:0.8")
    dearer = ways.corrected(1.1)
    assert dearer.cost({"intermediate": 100}) == pytest.approx(1.1 * ways.cost({"intermediate": 100}))
    assert dearer.alone()["intermediate"] < ways.alone()["intermediate"]
    assert dataclasses.replace(dearer, share=ways.share).alone() == ways.alone()


def test_a_large_budget_still_cuts_something():
    assert space("layers", budget="flops:0.95").alone() == {"layers": 5}
    with pytest.raises(UserError, match=r"budget=flops:0\.3 is out of reach"):
        space("heads", budget="flops:0.3").alone()


def wide(share):
    """Of a network with many sizes, by what it computes in one layer after another."""
    full = Sizes(layers=6, heads=12, head_size=32, hidden=384, intermediate=1536)

    def products(sizes):
        units = zip(sizes.heads_by_layer, sizes.intermediate_by_layer, strict=True)
        return sum(sizes.hidden * (4 * heads * sizes.head_size + 2 * width) for heads, width in units)

    return Space(full, cuts(*DIMS), Budget(budget=f"flops:{share}"), lambda sizes: products(sizes) / products(full))


def test_a_budget_that_only_the_smallest_sizes_meet_has_a_start():
    """The grid of the search ends at an eighth of the hidden size."""
    ways = wide(0.0001)
    (start,) = ways.starts()
    assert start["hidden"] < 384 / 8
    assert ways.cost(start) <= 0.0001 * 1.06


def test_units_are_given_away_where_the_hidden_size_is_cut():
    ways = wide(0.5)
    (narrow,) = [sizes for sizes in ways.starts() if set(sizes) == {"hidden"}]
    others = ways.neighbours(narrow, STEPS[0])
    assert any("intermediate" in sizes and sizes.get("hidden", 384) > narrow["hidden"] for sizes in others)
