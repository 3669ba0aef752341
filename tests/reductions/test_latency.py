"""A latency table finds planted prices again, and never lets more of anything take less."""

import numpy as np
import pytest
from networks import small

from conftest import FAMILIES
from encoder_reduction.models.architectures import Sizes, sizes_of, with_sizes
from encoder_reduction.reductions.hidden import narrowed
from encoder_reduction.reductions.latency import in_words, table_of, to_measure

FULL = Sizes(layers=6, heads=12, head_size=32, hidden=384, intermediate=1536)


def planted(sizes):
    """What such a network takes here: a start, and of each layer an overhead, its heads, and matrix products."""
    products = sum(4 * sizes.hidden * heads * sizes.head_size for heads in sizes.heads_by_layer)
    products += sum(2 * sizes.hidden * units for units in sizes.intermediate_by_layer)
    return 0.05 + 0.02 * sizes.layers + 0.001 * sum(sizes.heads_by_layer) + 7e-8 * products


def drawn(count, seed):
    draw, found = np.random.default_rng(seed), []
    for _ in range(count):
        own = narrowed(FULL, 12 * int(draw.integers(8, 33)))
        layers = int(draw.integers(1, 7))
        heads, units = draw.integers(1, 13, layers), draw.integers(1, own.intermediate + 1, layers)
        found.append(own.resized(layers=layers, heads_by_layer=heads.tolist(), intermediate_by_layer=units.tolist()))
    return found


def table(times=planted, noise=0.0):
    architectures, draw = to_measure(FULL), np.random.default_rng(3)
    measured = [times(sizes) * (1 + noise * draw.standard_normal()) for sizes in architectures]
    return table_of(FULL, architectures, measured)


def test_planted_prices_are_found_again():
    told = table()
    for sizes in drawn(50, seed=1):
        assert told.time(sizes) == pytest.approx(planted(sizes), rel=1e-3)
    assert told.errors.max() < 1e-3


def test_noise_of_two_percent_is_averaged_out():
    told = table(noise=0.02)
    errors = [abs(told.time(sizes) / planted(sizes) - 1) for sizes in drawn(50, seed=1)]
    assert np.median(errors) < 0.015
    assert 0.01 < told.errors.median() < 0.04


def test_more_of_anything_never_takes_less():
    told = table(noise=0.2)
    for sizes in drawn(30, seed=2):
        more = [
            sizes.resized(heads_by_layer=[heads + 1 for heads in sizes.heads_by_layer]),
            sizes.resized(intermediate_by_layer=[units + 10 for units in sizes.intermediate_by_layer]),
            sizes.resized(
                layers=sizes.layers + 1,
                heads_by_layer=[*sizes.heads_by_layer, 1],
                intermediate_by_layer=[*sizes.intermediate_by_layer, 1],
            ),
        ]
        assert all(told.time(other) >= told.time(sizes) - 1e-12 for other in more)


def test_an_error_is_of_what_the_others_tell():
    """Of a network that takes twice as long as its like, nothing else knows."""
    odd = to_measure(FULL)[20]
    told = table(lambda sizes: planted(sizes) * (2 if sizes == odd else 1))
    assert told.errors[20] == pytest.approx(0.5, abs=0.1)
    assert told.measured["architecture"][20] == in_words(odd)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_can_be_built_and_is_always_the_same(family):
    model = small(family, layers=3, heads=4, head_size=8, intermediate=64)
    architectures = to_measure(sizes_of(model))
    assert architectures == to_measure(sizes_of(model))
    assert sizes_of(model) in architectures
    for sizes in architectures:
        assert sizes_of(with_sizes(model, sizes)) == sizes
