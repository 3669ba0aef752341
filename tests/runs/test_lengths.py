"""Lengths against the positions of a network, and what they cost, before anything is trained."""

import pytest
import torch
from datasets import Dataset
from networks import DEVICE, small

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import family_of
from encoder_reduction.models.dropout import set_dropout
from encoder_reduction.plan import presets
from encoder_reduction.runs.lengths import check_max_length, say_cost_of_attention_dropout, that_fit


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", [0, 1])
def test_as_many_tokens_as_there_are_positions_can_be_read_and_not_one_more(family, padding):
    """RoBERTa counts from its padding; the network itself is asked."""
    model = small(family, 1, 2, 4, 16)
    config = model.config
    config.pad_token_id = padding
    model = type(model)(config).eval()
    allowed = family_of(model).positions(config)
    assert allowed == (30 - 1 - padding if family == "roberta" else 30)
    assert model(input_ids=torch.full((1, allowed), 7)).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, allowed + 1), 7))
    plan = presets.load("packaged")[0].plan("baseline", family, overrides={"max_length": allowed})
    check_max_length(plan, model)
    plan = presets.load("packaged")[0].plan("baseline", family, overrides={"max_length": allowed + 1})
    with pytest.raises(UserError, match=rf"^max_length={allowed + 1} is not .* give max_length={allowed} or less\.$"):
        check_max_length(plan, model)


def test_fixed_lengths_that_do_not_fit_are_named_and_left_out(caplog):
    model = small("bert", 1, 2, 4, 16)
    profiling = presets.load("packaged")[0].profiling.model_copy(update={"fixed_lengths": (8, 30, 31, 128)})
    assert that_fit(profiling, model).fixed_lengths == (8, 30)
    assert caplog.messages == ["The network has positions for 30 tokens; not measured at: 31,128 tokens."]


def lengths(*tokens):
    return Dataset.from_dict({"length": tokens})


@pytest.mark.skipif(DEVICE.type == "cuda", reason="is of CPUs")
def test_what_attention_dropout_costs_on_long_texts_is_said_in_one_line(caplog):
    model = small("bert", 1, 2, 4, 16)
    say_cost_of_attention_dropout(model, lengths(20, 128))
    assert not caplog.messages
    say_cost_of_attention_dropout(model, lengths(20, 129, 500))
    (line,) = caplog.messages
    assert line.startswith("2 of 3 training texts have more than 128 tokens, of which attention dropout (0.1) drops")
    assert line.endswith("-P attention_dropout=0 leaves it out.")
    set_dropout(model, presets.load("packaged")[0].fine_tuning.model_copy(update={"attention_dropout": 0.0}))
    say_cost_of_attention_dropout(model, lengths(129))
    say_cost_of_attention_dropout(small("bert", 1, 2, 4, 16).to("meta"), lengths(129))
    assert len(caplog.messages) == 1
