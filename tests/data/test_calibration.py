import pytest
import torch
from networks import small, small_texts, small_tokenizer

from encoder_reduction.data import calibration
from encoder_reduction.plan import presets
from encoder_reduction.runs.run import reduce

TOKENISED, TOKENIZER = small_texts(400, seed=0), small_tokenizer()


def texts(batches):
    return {tuple(ids.tolist()) for batch in batches for ids in batch["input_ids"]}


def test_calibration_draws_the_asked_number_of_training_texts_by_seed():
    def drawn(seed):
        return calibration.batches(TOKENISED, TOKENIZER, 50, seed, torch.device("cpu"))

    assert sum(len(batch["labels"]) for batch in drawn(1)) == 50
    assert texts(drawn(1)) == texts(drawn(1))
    assert texts(drawn(1)) != texts(drawn(2))
    lengths = [batch["attention_mask"].sum(dim=1).max().item() for batch in drawn(1)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(("overrides", "expected"), [({"seed": 5}, (96, 5)), ({"seed": 5, "calibration_seed": 9,
                          "calibration_examples": 40}, (40, 9))])  # fmt: skip
def test_size_and_seed_of_the_calibration_are_parameters(monkeypatch, overrides, expected):
    seen = []
    real = calibration.batches

    def noting(data, tokenizer, examples, seed, device):
        seen.append((examples, seed))
        return real(data, tokenizer, 8, seed, device)

    monkeypatch.setattr(calibration, "batches", noting)
    model = small("bert", layers=1, heads=4, head_size=4, intermediate=16)
    plan = presets.load("packaged")[0].plan("reduce", "bert", "hidden", {**overrides, "correct": "none"})
    reduce(plan, model, TOKENIZER, TOKENISED)
    assert seen == [expected]
