"""What a CPU trains with is what torch would compute: the same attention, and dropout of the same kind."""

import pytest
import torch
from networks import DEVICE, random_batch, small, small_texts, small_tokenizer
from torch import nn
from torch.profiler import ProfilerActivity, profile

from conftest import FAMILIES
from encoder_reduction.models.architectures import sizes_of, with_sizes
from encoder_reduction.models.dropout import set_dropout
from encoder_reduction.plan import presets
from encoder_reduction.training import cpu
from encoder_reduction.training.cpu import drop, fast_on_a_cpu
from encoder_reduction.training.fine_tuning import FineTuner
from encoder_reduction.training.pieces import Pieces

pytestmark = pytest.mark.skipif(DEVICE.type == "cuda", reason="is of CPUs")

SETTINGS = presets.load("packaged")[0].fine_tuning
FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
HEADS = [(4, 4), (3, 3), (2, 1)]


def network(family, heads=(4, 4), attention=0.0, hidden=0.0):
    whole = small(family, layers=2, heads=4, head_size=8, intermediate=64)
    model = with_sizes(whole, sizes_of(whole).resized(heads_by_layer=heads))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    settings = SETTINGS.model_copy(update={"attention_dropout": attention, "hidden_dropout": hidden})
    set_dropout(model, settings)
    return model.train()


def gradients(model):
    model.zero_grad()
    torch.manual_seed(0)  # of the head's dropout
    loss = model(**random_batch()).loss
    loss.backward()
    return loss, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", HEADS)
def test_written_out_attention_is_the_fused_one(family, heads):
    """Loss and every gradient, with padding, in the whole network and with heads pruned."""
    model = network(family, heads)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    loss, expected = gradients(model)
    with fast_on_a_cpu(model):
        again, found = gradients(model)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-7)


def test_a_share_is_dropped_and_the_rest_scaled_up():
    torch.manual_seed(3)
    values = torch.ones(1000, 333, requires_grad=True)
    for share in (0.1, 0.5, 0.9):
        kept = drop(values, share)
        assert (kept == 0).float().mean().item() == pytest.approx(share, abs=0.003)
        assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)], rel=1e-3)
        assert kept.mean().item() == pytest.approx(1.0, abs=0.01)
        (slope,) = torch.autograd.grad(kept.sum(), values)
        assert torch.equal(slope, kept)
    # Neighbours, which share a drawn number, are dropped independently of each other.
    pairs = (drop(values, 0.5) == 0).view(-1)[:332_000].view(-1, 4).double()
    assert torch.corrcoef(pairs.T).fill_diagonal_(0).abs().max() < 0.02


def test_the_seed_decides_what_is_dropped():
    values = torch.ones(40, 7)
    torch.manual_seed(3)
    first, second = drop(values, 0.3), drop(values, 0.3)
    torch.manual_seed(3)
    assert torch.equal(drop(values, 0.3), first)
    assert not torch.equal(first, second)
    assert drop(values.bfloat16(), 0.3).dtype == torch.bfloat16


def test_everything_that_drops_does_so_in_the_block_and_is_as_before_after_it():
    model = network("bert", attention=0.2, hidden=0.1)
    with fast_on_a_cpu(model):
        first, second = (model(**random_batch()).logits for _ in range(2))
        assert not torch.equal(first, second)
        model.eval()
        assert torch.equal(*(model(**random_batch()).logits for _ in range(2)))
    assert not any("forward" in vars(module) for module in model.modules())
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {"sdpa"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("fused_from", "attention", "heads", "fused"),
    [(5, 0.0, (4, 4), True), (5, 0.0, (2, 1), True), (30, 0.0, (3, 3), False), (5, 0.1, (3, 3), False)],
)
def test_long_texts_without_dropout_are_trained_by_the_fused_kernel(
    tmp_path, monkeypatch, family, heads, fused_from, attention, fused
):
    """Backward, which evaluation does not compute."""
    monkeypatch.setattr(cpu, "FUSED_FROM", fused_from)
    texts = small_texts(16, seed=0)
    tuner = FineTuner(network(family, heads, attention, 0.1), small_tokenizer(), SETTINGS, 1, lambda *_: None, False)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        tuner.train(texts, texts, Pieces(tmp_path / "pieces"))
    computed = {event.key for event in profiled.key_averages()}
    assert (f"{FUSED}_backward" in computed) == fused
    assert "aten::bernoulli_" not in computed
