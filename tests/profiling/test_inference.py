import copy
import time

import pytest
import torch
from networks import small, small_texts, small_tokenizer

from encoder_reduction.plan import presets
from encoder_reduction.profiling.inference import Profiler, flops_of, for_inference, latency_table
from encoder_reduction.reductions.heads import prune_heads


@pytest.fixture(scope="module")
def plan():
    overrides = {"test_texts": 20, "time_budget": 0.5, "fixed_lengths": "16", "batch_size": 8, "max_length": 28}
    return presets.load("packaged")[0].plan("baseline", "roberta", overrides=overrides)


@pytest.fixture(scope="module")
def profiler(plan):
    return Profiler(for_inference(network(), "auto"), small_tokenizer(), plan.fine_tuning, plan.profiling)


@pytest.fixture(scope="module")
def tokenised():
    return small_texts(50, seed=0)


def network():
    return small("roberta", layers=2, heads=12, head_size=4, intermediate=96, spread=0.2)


def test_workloads_are_the_first_texts_and_each_fixed_length(profiler, tokenised):
    workloads = {(workload.name, workload.batch_size): workload for workload in profiler.workloads(tokenised)}
    assert list(workloads) == [("texts", 8), ("texts", 1), ("16", 8), ("16", 1)]
    texts = workloads["texts", 8]
    assert [shape.examples for shape in texts.shapes] == [8, 8, 4]
    assert texts.examples == 20
    assert sum(shape.tokens for shape in texts.shapes) == sum(tokenised["length"][:20])
    assert texts.batches[0]["input_ids"][0].tolist()[: tokenised["length"][0]] == tokenised["input_ids"][0]
    (batch,) = workloads["16", 8].batches
    assert batch["input_ids"].shape == (8, 16)
    assert batch["attention_mask"].all()
    assert not batch["input_ids"].eq(profiler.tokenizer.pad_token_id).any()


@pytest.mark.parametrize(("precision", "dtype", "tolerance"), [("fp32", "float32", 1e-4), ("bf16", "bfloat16", 0.05)])
def test_a_model_for_inference_has_its_weights_converted_once(profiler, precision, dtype, tolerance):
    model, ready = network(), for_inference(network().train(), precision)
    assert {str(parameter.dtype) for parameter in ready.parameters()} == {f"torch.{dtype}"}
    (batch,) = profiler.fixed(16, 8).batches
    with torch.inference_mode():
        expected, found = model(**batch).logits, ready(**batch).logits
    assert found.float() == pytest.approx(expected, abs=tolerance)


@pytest.mark.alone
def test_a_model_that_waits_is_measured_with_its_wait(profiler):
    delay = 0.100
    workload = profiler.fixed(16, 1)

    def wait(module, inputs):
        end = time.perf_counter() + delay
        while time.perf_counter() < end:
            pass

    handle = profiler.model.register_forward_pre_hook(wait)
    try:
        waiting = profiler.latency(workload).ms_per_example
    finally:
        handle.remove()
    assert waiting - profiler.latency(workload).ms_per_example == pytest.approx(1000 * delay, rel=0.05)


def test_the_table_of_latencies_has_a_row_a_workload(profiler, tokenised):
    workloads = [profiler.texts(tokenised, 8), profiler.fixed(16, 8)]
    table = latency_table((workload, profiler.latency(workload)) for workload in workloads)
    assert table["workload"].tolist() == ["texts", "16"]
    assert table["padded_tokens"].tolist()[1] == table["tokens"].tolist()[1] == 8 * 16
    assert (table["padded_tokens"] >= table["tokens"]).all()
    assert (table["interval_low"] <= table["ms_per_example"]).all()
    assert table["examples_per_second"].tolist() == pytest.approx((1000 / table["ms_per_example"]).tolist())


@pytest.mark.alone
def test_tokenising_and_predicting_take_the_same_texts(profiler, movies):
    texts = movies["test"]["text"]
    tokenisation, everything = profiler.tokenisation(texts), profiler.end_to_end(texts)
    assert tokenisation.examples == everything.examples == 20
    assert 0 < tokenisation.ms_per_example < everything.ms_per_example


def attention_of(model):
    """What its layers compute attention with."""
    layers = model.roberta.encoder.layer
    return {layer.attention.self.config._attn_implementation for layer in layers}


@pytest.mark.parametrize("pruned", [False, True])
def test_profiling_leaves_the_model_as_it_was(plan, tokenised, pruned):
    model = network()
    if pruned:
        kept = torch.arange(6).expand(model.config.num_hidden_layers, 6)
        model = prune_heads(model, kept)
    model = for_inference(model, "fp32")
    config, state, attention = copy.deepcopy(model.config), copy.deepcopy(model.state_dict()), attention_of(model)
    assert attention == {"sdpa"}
    profiler = Profiler(model, small_tokenizer(), plan.fine_tuning, plan.profiling)
    texts = profiler.texts(tokenised, 8)
    assert profiler.memory(texts).peak > 0
    assert flops_of(model).forward(16) > 0
    assert attention_of(model) == attention
    assert model.config._attn_implementation == config._attn_implementation
    assert model.config.to_dict() == config.to_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert "forward" not in vars(model)
