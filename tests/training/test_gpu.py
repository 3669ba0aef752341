"""What a GPU trains with, as far as it shows without one: nothing is read, passes that are replayed change nothing."""

import pytest
import torch
from networks import DEVICE, random_batch, small, small_tokenizer
from test_fine_tuning import SPLITS, fine_tune
from torch import nn

from conftest import FAMILIES
from encoder_reduction.training import gpu, trainer
from encoder_reduction.training.attention import Kernels
from encoder_reduction.training.batches import Padding
from encoder_reduction.training.gpu import Recording, Replayed, fast_on_a_gpu
from encoder_reduction.training.pieces import Pieces


def network(family="bert"):
    return small(family, layers=2, heads=2, head_size=8, intermediate=32)


def recorded(inputs, passes, pool):
    """As a CUDA graph: nothing is computed but by replaying, and then from the same inputs into the same places."""
    loss = torch.zeros(())
    return Recording(inputs, loss, lambda: loss.copy_(passes(inputs)))


def trained(through, steps=40):
    """Losses and gradients of steps of one or two passes each, over batches of three sizes."""
    torch.manual_seed(0)
    linear, unused = nn.Linear(4, 1), nn.Linear(2, 2)
    parameters = [*linear.parameters(), *unused.parameters()]
    optimizer, found = torch.optim.AdamW(parameters, lr=0.1), []

    def passes(batch, share=1.0):
        loss = (linear(batch["x"]) - batch["y"]).square().mean() * share
        loss.backward()
        return loss.detach()

    through = through(parameters)
    for step in range(steps):
        # Of seven examples there are none before passes over five are replayed.
        sizes = (5,) if step % 3 == 0 else (3, 5) if step < 20 else (7, 5)
        for size in sizes:
            share, batch = 1 / len(sizes), {"x": torch.randn(size, 4), "y": torch.randn(size, 1)}
            found.append(through(batch, lambda batch, share=share: passes(batch, share), share))
        found += [parameter.grad.clone() for parameter in linear.parameters()]
        assert unused.weight.grad is None
        optimizer.step()
        optimizer.zero_grad()
    return found, through


def directly(parameters):
    return lambda inputs, passes, constants: passes(inputs)


def test_replayed_passes_add_the_gradients_that_direct_ones_do():
    """Of steps of several passes too, some of them direct still; a parameter without gradients stays without."""
    expected, _ = trained(directly)
    found, replayed = trained(lambda parameters: Replayed(parameters, recorded))
    assert len(replayed._recordings) == 4  # of three sizes, one of them in steps of one pass and of two
    for own, other in zip(found, expected, strict=True):
        assert torch.equal(own, other)


def test_training_is_the_same_with_passes_that_are_replayed(monkeypatch, tmp_path):
    """The Trainer's optimizer, clipping and schedule find the gradients where they look for them."""
    direct = fine_tune(SPLITS, 5, Pieces(tmp_path / "direct"))
    through = []

    def replayed(model):
        through.append(Replayed(model.parameters(), recorded))
        return through[-1]

    monkeypatch.setattr(trainer, "replayed", replayed)
    monkeypatch.setattr(gpu, "WORTH_RECORDING", 1)
    again = fine_tune(SPLITS, 5, Pieces(tmp_path / "replayed"))
    assert through[0]._recordings
    assert again[1].predictions.equals(direct[1].predictions)
    assert again[2] == direct[2]


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
def test_what_cannot_be_recorded_is_computed_directly_and_said_once(caplog, kind):
    """Where memory runs out as well: what is recorded needs more than what is launched. One recording was made."""
    made = []

    def refused(inputs, passes, pool):
        if made:
            raise kind("operation not permitted\nwhen stream is capturing")
        made.append(recorded(inputs, passes, pool))
        return made[0]

    expected, _ = trained(directly)
    found, _ = trained(lambda parameters: Replayed(parameters, refused))
    assert all(torch.equal(own, other) for own, other in zip(found, expected, strict=True))
    (said,) = caplog.messages
    assert "CUDA graphs (operation not permitted when stream is capturing)" in said


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_reads_nothing_from_the_device(family):
    """A tensor without data, on the meta device, cannot be read; transformers by itself reads the mask."""
    model = network(family).to("meta").train()
    batch = {name: each.to("meta") for name, each in random_batch().items()}
    with pytest.raises(RuntimeError, match="meta"):
        model(**batch)
    with fast_on_a_gpu(model):
        model(**batch).loss.backward()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_computes_what_it_does_by_itself(family):
    model, batch = network(family).to(DEVICE).eval(), {name: each.to(DEVICE) for name, each in random_batch().items()}
    batch["attention_mask"][1, 3:] = 0
    expected = model(**batch).logits
    with fast_on_a_gpu(model):
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("longest", "padded"), [(1, 32), (32, 32), (33, 64), (90, 96), (97, 100)])
def test_batches_are_padded_to_few_lengths_none_beyond_the_longest_text_allowed(longest, padded):
    rows = [{"input_ids": [5] * count, "length": count, "labels": 1} for count in (1, longest)]
    batch = Padding(small_tokenizer(), max_length=100, multiple=gpu.MULTIPLE)(rows)
    assert batch["input_ids"].shape == (2, padded)
    assert batch["attention_mask"].sum(1).tolist() == [1, longest]
    assert "length" not in batch


def attention_kernels(forward):
    with Kernels() as kernels:
        forward()
    return kernels.of_attention


def test_the_kernel_is_named_that_attention_really_takes():
    """A CPU's fused kernel drops nothing, which a network in training mode does."""
    model, batch = network().to("cpu"), random_batch()
    model.config.attention_probs_dropout_prob = 0.1
    assert attention_kernels(lambda: model.eval()(**batch)) == "flash"
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    assert attention_kernels(lambda: model.train()(**batch)) == "written out"


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_a_graph_computes_what_its_kernels_do():
    """Dropout included: the random numbers are the same."""
    losses = []
    for worth in (10**9, 1):
        torch.manual_seed(0)
        model, batch = network().to(DEVICE).train(), {name: each.to(DEVICE) for name, each in random_batch().items()}
        replayed, optimizer = Replayed(model.parameters()), torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)

        def passes(batch, model=model):
            loss = model(**batch).loss
            loss.backward()
            return loss.detach()

        with pytest.MonkeyPatch.context() as patched, fast_on_a_gpu(model):
            patched.setattr(gpu, "WORTH_RECORDING", worth)
            for _ in range(8):
                losses.append(replayed(batch, passes).item())
                optimizer.step()
                optimizer.zero_grad()
    assert losses[:8] == pytest.approx(losses[8:], rel=1e-3)
    assert len(set(losses[:8])) == 8
