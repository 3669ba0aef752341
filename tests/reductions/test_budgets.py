"""A budget decides how much stays: the costs are those of the networks that come of it."""

import pytest
from networks import random_batch, small
from oracles import flop_count

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import sizes_of
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.reductions import reduce_model
from encoder_reduction.reductions.sizes import flops, parameters, target_sizes

STRATEGIES = {"heads": "prune", "intermediate": "prune", "layers": "alternate", "hidden": "slice"}


def cuts(*dims, **values):
    return {
        dim: Reduction(
            strategy=STRATEGIES[dim], criterion=None if dim == "layers" else "first", calibration_examples=8, **values
        )
        for dim in dims
    }


def network(family="bert"):
    return small(family, layers=6, heads=6, head_size=8, intermediate=192)


def flops_of(model):
    """By the tests' own formula, which is held against torch's counter for every size (test_sizes.py)."""
    sizes = sizes_of(model)
    by_layer = {"heads": list(sizes.heads_by_layer), "intermediate": list(sizes.intermediate_by_layer)}
    return flop_count(layers=sizes.layers, head_size=sizes.head_size, hidden=sizes.hidden, **by_layer, tokens=128)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("dims", [("heads",), ("hidden",), ("layers",), ("heads", "intermediate"), tuple(STRATEGIES)])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_costs_what_the_formulas_say(family, dims):
    model = network(family)
    reduced = reduce_model(model, cuts(*dims), [random_batch()], seed=0)
    assert parameters(model)(sizes_of(reduced)) == count(reduced)
    assert flops(model)(sizes_of(reduced)) == pytest.approx(flops_of(reduced), rel=1e-9)


@pytest.mark.parametrize("dims", [("hidden",), ("intermediate",), ("heads", "intermediate"), ("heads", "hidden")])
@pytest.mark.parametrize("share", [0.8, 0.6])
def test_what_is_left_is_within_the_budget(dims, share):
    reduced = reduce_model(network(), cuts(*dims, budget=f"flops:{share}"), [], seed=0)
    assert -0.1 < flops_of(reduced) / flops_of(network()) - share < 0.06 * share


@pytest.mark.parametrize(("dim", "step"), [("hidden", 6), ("intermediate", 1)])
def test_the_nearest_to_the_budget_is_taken(dim, step):
    model = network()
    target = target_sizes(model, cuts(dim, budget="flops:0.8"))[dim]
    cost = {
        size: flops_of(reduce_model(model, cuts(dim, size=size), [], seed=0))
        for size in (target, target - step, target + step)
    }
    wanted = 0.8 * flops_of(model)
    assert min(cost, key=lambda size: abs(cost[size] - wanted)) == target


def test_layers_may_overspend_by_the_tolerance():
    """Three of six layers are a little more than half, since the head stays whole."""
    model = network()
    three, cost = reduce_model(model, cuts("layers", size=3), [], seed=0), flops(model)
    assert 0.5 < cost(sizes_of(three)) / cost(sizes_of(model)) < 0.53
    assert target_sizes(model, cuts("layers", budget="flops:0.5")) == {"layers": 3}
    assert target_sizes(model, cuts("layers", budget="flops:0.5", budget_tolerance=0)) == {"layers": 2}


def test_a_budget_out_of_reach_says_how_far_it_goes():
    model = network()
    least = flops(model)(sizes_of(model).resized(heads=1)) / flops(model)(sizes_of(model))
    message = f"budget=flops:0.5 is out of reach of dim=heads: even heads=1 leaves {least:.0%} of the flops"
    with pytest.raises(UserError, match=message):
        target_sizes(model, cuts("heads", budget="flops:0.5"))
    with pytest.raises(UserError, match=r"of the parameters\. Give parameters:0\.\d\d or more, or more dimensions"):
        target_sizes(model, cuts("layers", budget="parameters:0.01"))
