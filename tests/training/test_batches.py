"""Batches that are counted in tokens: what is in them, in which order, and training with them."""

import numpy as np
import pytest
import torch
from networks import small_tokenizer
from test_fine_tuning import SPLITS, fine_tune, tuner
from test_pieces import Killed

from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.training.batches import Padding, TokenBatches
from encoder_reduction.training.pieces import VARIABLE, Pieces, Record

LENGTHS = np.clip(np.exp(np.random.default_rng(0).normal(5.4, 0.6, 3000)).astype(int), 10, 500).tolist()


@pytest.mark.parametrize("multiple", [1, 32])
def test_every_text_is_in_one_batch_that_is_no_larger_than_asked_for(multiple):
    torch.manual_seed(0)
    padding = Padding(small_tokenizer(), 500, multiple)
    batches = TokenBatches(LENGTHS, 4096, padding, 0, Record())
    first, second = list(batches), list(batches)
    assert sorted(index for batch in first for index in batch) == list(range(len(LENGTHS)))
    padded = [len(batch) * padding.padded(max(LENGTHS[index] for index in batch)) for batch in first]
    assert max(padded) <= 4096
    assert np.median(padded) > 0.9 * 4096
    if multiple == 1:
        assert 1 - sum(LENGTHS) / sum(padded) < 0.05  # padding
    assert len(batches) == len(first) == len(second)
    assert first != second  # another order of
    assert sorted(first) == sorted(second)  # the same batches
    assert sorted(first) != sorted(TokenBatches(LENGTHS, 4096, padding, 1, Record()))


def test_training_takes_them_bit_for_bit_again_after_an_interruption_too(tmp_path, monkeypatch):
    settings, seed, lengths = {"batch_tokens": 60, "max_length": 28, "epochs": 2.0}, 5, SPLITS["train"]["length"]
    training, evaluation, _ = fine_tune(SPLITS, seed, Pieces(tmp_path / "first"), **settings)
    assert (
        training.steps
        == len(training.shapes)
        == 2 * len(TokenBatches(lengths, 60, Padding(small_tokenizer(), 28), seed, Record()))
    )
    assert max(shape.examples * shape.padded for shape in training.shapes) <= 60
    assert len({shape.examples for shape in training.shapes}) > 1
    assert training.micro_batch_size is None

    def killed(values, step):
        if step == training.steps - 3:
            raise Killed

    monkeypatch.setenv(VARIABLE, "0")  # a checkpoint after each step
    with pytest.raises(Killed):
        tuner(None, seed, killed, **settings).train(SPLITS["train"], SPLITS["validation"], Pieces(tmp_path / "again"))
    again, after, _ = fine_tune(SPLITS, seed, Pieces(tmp_path / "again"), **settings)
    assert len(again.earlier_pieces) == 1
    assert after.predictions.equals(evaluation.predictions)
    assert again.shapes == training.shapes


def test_a_batch_without_room_for_the_longest_text_is_refused():
    with pytest.raises(UserError, match="batch_tokens=100 has no room for a text of max_length=128 tokens: give"):
        presets.load("packaged")[0].plan("baseline", "bert", overrides={"batch_tokens": 100})
