"""What training drops: as the plan says, in every family and in what is cut of it, and which kernel then computes."""

import pytest
import torch
from networks import random_batch, small
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForSequenceClassification

from conftest import FAMILIES
from encoder_reduction.models.architectures import sizes_of, with_sizes
from encoder_reduction.models.dropout import dropout_of, set_dropout
from encoder_reduction.plan import presets

SETTINGS = presets.load("packaged")[0].fine_tuning
FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def network(family):
    return small(family, layers=2, heads=4, head_size=8, intermediate=64)


def with_dropout(model, attention=None, hidden=None):
    set_dropout(model, SETTINGS.model_copy(update={"attention_dropout": attention, "hidden_dropout": hidden}))
    return model


def shares(model):
    """By the module's name."""
    return {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}


def of_attention(names):
    return {name for name in names if name.endswith(("attention.self.dropout", "attention.dropout"))}


def of_head(names):
    return {name for name in names if name in ("dropout", "classifier.dropout")}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_given_stays(family):
    model = network(family)
    config, before = model.config.to_dict(), shares(model)
    assert with_dropout(model).config.to_dict() == config
    assert shares(model) == before
    assert dropout_of(model) == {"attention_dropout": 0.1, "hidden_dropout": 0.1}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_kind_of_dropout_is_set_everywhere_and_nothing_else(family):
    model = network(family)
    before = shares(model)
    with_dropout(model, attention=0.3)
    after = shares(model)
    assert len(of_attention(after)) == 2
    assert {name for name in after if after[name] == 0.3} == of_attention(after)
    with_dropout(model, hidden=0.4)
    changed = {name for name, share in shares(model).items() if share == 0.4}
    assert changed == set(after) - of_attention(after) - of_head(after)
    assert {shares(model)[name] for name in of_head(after)} == {before[name] for name in of_head(after)}
    assert dropout_of(model) == {"attention_dropout": 0.3, "hidden_dropout": 0.4}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_has_it_when_it_is_read_back(family, tmp_path):
    model = with_dropout(network(family), attention=0.0, hidden=0.3)
    model.save_pretrained(tmp_path)
    read = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert shares(read) == shares(model)
    assert dropout_of(read) == {"attention_dropout": 0.0, "hidden_dropout": 0.3}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changed", [{"heads": 3}, {"layers": 1}, {"hidden": 16, "head_size": 4}, {"intermediate": 16}])
def test_what_is_cut_drops_as_much(family, changed):
    whole = with_dropout(network(family), attention=0.0, hidden=0.3)
    cut = with_sizes(whole, sizes_of(whole).resized(**changed))
    assert dropout_of(cut) == dropout_of(whole)
    assert shares(cut) == {name: share for name, share in shares(whole).items() if name in shares(cut)}


def kernels(model):
    """Names of what torch computes in one step of training under autocast, on texts of two lengths."""
    model.train()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**random_batch()).loss
        loss.backward()
    return {event.key for event in profiled.key_averages()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", [(4, 4), (3, 3), (2, 1)])
def test_attention_without_dropout_is_computed_in_one_piece(family, heads):
    """Forward and backward, in the whole network, with a head pruned, and with other heads in each layer."""
    model = with_sizes(network(family), sizes_of(network(family)).resized(heads_by_layer=heads))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    dropping = kernels(with_dropout(model, attention=0.1))
    assert FUSED not in dropping
    assert "aten::bernoulli_" in dropping
    assert {FUSED, f"{FUSED}_backward"} <= kernels(with_dropout(model, attention=0.0, hidden=0.1))
