"""Parameter counts by formula, legal and illegal sizes, and every legal size in use."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import random_batch, small
from oracles import flop_count, parameter_count
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import Sizes, sizes_of
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.profiling.inference import flops_of
from encoder_reduction.reductions import reduce_model
from encoder_reduction.reductions.sizes import allowed_sizes, target_size

# The real configurations; their tokenizers' vocabularies and position tables.
BASE = {
    "bert": (BertForSequenceClassification, BertConfig(), 30522, 512, 12),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
        50265,
        514,
        12,
    ),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig(), 30522, 512, 6),
}
CUTS = {
    "none": {},
    "heads": {"heads": 6},
    "hidden": {"hidden": 384, "head_size": 32, "intermediate": 1536},
    "layers": {"layers": None},
    "intermediate": {"intermediate": 1536},
}


def cut(strategy, criterion=None, **values):
    return Reduction(strategy=strategy, criterion=criterion, calibration_examples=8, **values)


HALVES = {"heads": cut("prune", "first"), "hidden": cut("slice", "first"), "layers": cut("alternate")}
HALVES["intermediate"] = cut("prune", "first")


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_full_size_parameter_and_flop_counts_follow_the_formulas(family):
    cls, config, vocabulary, positions, layers = BASE[family]
    full = {"layers": layers, "heads": 12, "head_size": 64, "hidden": 768, "intermediate": 3072}
    model = cls(config)
    for dim, changed in CUTS.items():
        sizes = full | {key: value or layers // 2 for key, value in changed.items()}
        reduced = model if dim == "none" else reduce_model(model, {dim: HALVES[dim]}, [], seed=0)
        assert sizes_of(reduced) == Sizes(**sizes)
        expected = parameter_count(family, **sizes, vocabulary=vocabulary, positions=positions)
        assert count(reduced) == expected
        flops = flops_of(reduced).forward(128)
        assert flops == pytest.approx(flop_count(**sizes, tokens=128), rel=1e-9)
        print(f"{family:<11} {dim:<7} {expected:>12,} parameters {flops / 1e9:>6.2f} GFLOPs at 128 tokens")
        if (family, dim) == ("bert", "none"):
            assert expected == 109_483_778


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_legal_size_runs_trains_saves_and_reloads(tmp_path_factory, data):
    family = data.draw(st.sampled_from(FAMILIES))
    model = small(
        family,
        layers=data.draw(st.integers(1, 4)),
        heads=data.draw(st.integers(1, 5)),
        head_size=data.draw(st.integers(1, 6)) * 2,
        intermediate=data.draw(st.integers(8, 40)) * 8,
    )
    dim = data.draw(st.sampled_from(["heads", "hidden", "layers", "intermediate"]))
    strategy, criterion = data.draw(
        st.sampled_from(
            {
                "heads": [("prune", "gradient"), ("prune", "magnitude"), ("regroup", "first")],
                "hidden": [("project", "activation"), ("slice", "activation"), ("slice", "magnitude")],
                "layers": [("alternate", None), ("ends", None), ("influence", None)],
                "intermediate": [("prune", "activation"), ("prune", "fisher"), ("prune", "magnitude")],
            }[dim]
        )
    )
    size = data.draw(st.sampled_from(allowed_sizes(sizes_of(model), dim, strategy)))
    correct = data.draw(st.sampled_from(["none", "least_squares"]))
    uneven = dim == "intermediate" or (dim, strategy) == ("heads", "prune")
    spread = data.draw(st.sampled_from(["uniform", "global"])) if uneven else "uniform"
    batch = random_batch()
    reduction = cut(strategy, criterion, size=size, correct=correct, spread=spread)
    reduced = reduce_model(model, {dim: reduction}, [batch], seed=0)
    sizes = sizes_of(reduced)
    assert getattr(sizes, dim) == size
    types = getattr(model.config, "type_vocab_size", 0)
    by_layer = {"heads": list(sizes.heads_by_layer), "intermediate": list(sizes.intermediate_by_layer)}
    formula = {"layers": sizes.layers, "head_size": sizes.head_size, "hidden": sizes.hidden, **by_layer}
    assert count(reduced) == parameter_count(family, **formula, vocabulary=50, positions=30, token_types=types)
    assert flops_of(reduced).forward(12) == pytest.approx(flop_count(**formula, tokens=12), rel=1e-9)

    reduced.train()
    optimizer = torch.optim.AdamW(reduced.parameters(), lr=1e-3)
    reduced(**batch).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in reduced.parameters() if p.requires_grad)
    optimizer.step()

    reduced.eval()
    folder = tmp_path_factory.mktemp("model")
    reduced.save_pretrained(folder)
    again = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, reduced(**batch).logits)


MINILM = Sizes(layers=6, heads=12, head_size=32, hidden=384, intermediate=1536)


@pytest.mark.parametrize(
    ("dim", "strategy", "size", "words"),
    [
        ("hidden", "slice", 200, ["size=200", "multiple of 12", "192 and 204"]),
        ("hidden", "slice", 5, ["size=5", "12"]),
        ("heads", "regroup", 5, ["size=5", "divide", "4 and 6"]),
        ("heads", "prune", 13, ["size=13", "only 12"]),
        ("layers", "alternate", 7, ["size=7", "only 6"]),
    ],
)
def test_an_impossible_size_names_the_nearest_possible_ones(dim, strategy, size, words):
    with pytest.raises(UserError) as error:
        target_size(MINILM, dim, cut(strategy, size=size))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("dim", "strategy", "keep", "size"),
    [
        ("hidden", "slice", 0.5, 192),
        ("hidden", "slice", 0.3, 120),
        ("heads", "prune", 0.3, 4),
        ("heads", "regroup", 0.6, 8),
        ("layers", "alternate", 0.01, 1),
    ],
)
def test_keep_takes_the_nearest_possible_size(dim, strategy, keep, size):
    assert target_size(MINILM, dim, cut(strategy, keep=keep)) == size


def test_several_dimensions_at_once():
    model, batch = small("bert", layers=6, heads=12, head_size=4, intermediate=192), random_batch()
    three = {
        "layers": cut("alternate"),
        "heads": cut("prune", "magnitude", correct="least_squares"),
        "hidden": cut("slice", "activation", correct="least_squares"),
    }
    reduced = reduce_model(model, three, [batch], seed=0)
    assert sizes_of(reduced) == Sizes(layers=3, heads=6, head_size=2, hidden=24, intermediate=96)
    assert torch.isfinite(reduced(**batch).loss)
    four = three | {"intermediate": cut("prune", "activation", correct="least_squares")}
    reduced = reduce_model(model, four, [batch], seed=0)
    assert sizes_of(reduced) == Sizes(layers=3, heads=6, head_size=2, hidden=24, intermediate=48)
    assert torch.isfinite(reduced(**batch).loss)
