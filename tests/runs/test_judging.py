"""A judge scores what it cuts, and leaves the network that it cuts as it was."""

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from networks import DEVICE, small, small_texts, words

from encoder_reduction.plan import presets
from encoder_reduction.runs.judging import Judge, Scores


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path / "cache"))
    given = {
        "budget": "flops:0.5",
        "start": "baseline",
        "distill": "logits",
        "calibration_examples": 8,
        "max_length": 12,
    }
    plan = presets.load("packaged")[0].plan("reduce", "bert", "heads+intermediate", given | {"precision": "bf16"})
    plan = plan.model_copy(update={"fine_tuning": plan.fine_tuning.model_copy(update={"batch_size": 4})})
    tokenised = {split: small_texts(16, seed) for seed, split in enumerate(("train", "validation", "test"))}
    data = DatasetDict({split: texts(each) for split, each in tokenised.items()})
    whole = small("bert", layers=2, heads=4, head_size=4, intermediate=32, spread=0.2).to(DEVICE)
    return Judge(plan, None, whole, words(), data, tokenised)


def texts(tokenised):
    """What they may have been before they were tokens."""
    written = [" ".join(map(str, row)) for row in tokenised["input_ids"]]
    numbers = list(map(str, range(len(written))))
    return Dataset.from_dict({"id": numbers, "text": written, "label": tokenised["labels"]})


def sizes(judge, **sizes):
    return {dim: judge.plan.reductions[dim].model_copy(update={"size": size}) for dim, size in sizes.items()}


def test_the_whole_network_is_no_distance_from_itself(judge):
    scores = judge.score(judge.whole)
    assert scores.divergence == pytest.approx(0, abs=1e-9)
    logits = torch.tensor(judge._logits(judge.whole))
    labels = torch.tensor(judge.tokenised["validation"]["labels"])
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores.accuracy == (logits.argmax(-1) == labels).float().mean().item()


def test_a_divergence_is_that_of_torch(judge):
    cut = judge.cut(sizes(judge, heads=1, intermediate=2)).model
    wanted, predicted = (torch.tensor(judge._logits(each)).log_softmax(-1) for each in (judge.whole, cut))
    expected = torch.nn.functional.kl_div(predicted, wanted, reduction="batchmean", log_target=True)
    assert judge.score(cut).divergence == pytest.approx(expected.item(), rel=1e-4)
    assert judge.score(cut).divergence > 0


def test_it_leaves_the_network_as_it_was(judge, tmp_path):
    """A teacher is frozen, and the Trainer leaves its autocast: the next cut would see another network."""
    whole, asked = judge.whole, sizes(judge, heads=2)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    ids = judge._batches[0]["input_ids"]
    computed = whole(ids).logits
    judge.score(whole)
    judge.recover(asked, 8, tmp_path / "recovery")
    assert all(parameter.requires_grad for parameter in whole.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in whole.state_dict().items())
    assert whole.bert.encoder.layer[0].output.dense.weight.dtype == torch.float32
    assert torch.equal(whole(ids).logits, computed)


def test_what_is_recovered_is_not_what_is_cut_next(judge, tmp_path):
    asked = sizes(judge, heads=2)
    first = {name: tensor.clone() for name, tensor in judge.cut(asked).model.state_dict().items()}
    trained = judge.recover(asked, 8, tmp_path / "recovery")
    again = judge.cut(asked).model
    assert all(torch.equal(first[name], tensor) for name, tensor in again.state_dict().items())
    assert trained.losses != judge.score(again).losses


def test_one_loses_to_another_by_more_than_the_error():
    base = np.linspace(0, 1, 9)
    jitter = np.array([1, -1, 1, -1, 0, 1, -1, 1, -1]) * 0.3
    low, same, high = (Scores(0.0, 0.5, tuple(base + shift)) for shift in (0.0, jitter + 0.05, jitter + 0.2))
    assert high.loses_to(low)
    assert not same.loses_to(low)
    assert not low.loses_to(high)
    assert not low.loses_to(low)


def test_what_is_no_number_is_as_far_as_can_be(judge):
    broken = judge.cut(sizes(judge, heads=2)).model
    with torch.no_grad():
        broken.classifier.weight.fill_(torch.nan)
    assert judge.score(broken).divergence == np.inf
