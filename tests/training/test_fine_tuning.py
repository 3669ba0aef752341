import copy
import os
import signal
import weakref

import numpy as np
import pytest
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from encoder_reduction.data import corpora
from encoder_reduction.data.tokenisation import tokenise
from encoder_reduction.errors import STOP, UserError, explain, leave_in_order_when_stopped
from encoder_reduction.plan import presets
from encoder_reduction.plan.precision import resolve_precision
from encoder_reduction.profiling.memory import start_peak_again
from encoder_reduction.training import fine_tuning
from encoder_reduction.training.batches import ShuffledBatches
from encoder_reduction.training.fine_tuning import FineTuner, _Trainer
from encoder_reduction.training.pieces import VARIABLE, Pieces, Record
from encoder_reduction.training.recorder import NonFiniteLossError


@pytest.fixture(scope="module")
def tokenised(packaged, movies):
    _, tokenizer = packaged["bert"]
    return {split: tokenise(corpora.draw(movies[split], 48, seed=0), tokenizer, 64) for split in corpora.SPLITS}


@pytest.fixture
def pieces(tmp_path):
    return Pieces(tmp_path / "checkpoints")


def fine_tune(packaged, tokenised, seed, pieces, **changed):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"epochs": 2.0, **changed})
    points = []
    tuner = FineTuner(
        copy.deepcopy(model), tokenizer, settings, seed, lambda values, step: points.append((step, values)), False
    )
    training = tuner.train(tokenised["train"], tokenised["validation"], pieces)
    ids = [str(index) for index in range(len(tokenised["test"]))]
    return training, tuner.evaluate(tokenised["test"], ids), points


def test_the_same_seed_gives_the_same_model_bit_for_bit(packaged, tokenised, tmp_path):
    first, again = (fine_tune(packaged, tokenised, 5, Pieces(tmp_path / name)) for name in ("first", "again"))
    assert first[1].predictions.equals(again[1].predictions)
    assert first[2] == again[2]
    other = fine_tune(packaged, tokenised, 6, Pieces(tmp_path / "other"))
    assert not first[1].predictions.equals(other[1].predictions)


def test_the_kept_weights_are_those_of_the_best_validation_epoch(packaged, tokenised, pieces):
    training, _, points = fine_tune(packaged, tokenised, 5, pieces)
    accuracies = [values["epoch_validation_accuracy"] for _, values in points if "epoch_validation_accuracy" in values]
    assert len(accuracies) == 2
    assert training.validation_accuracy == max(accuracies)
    assert training.steps == 6
    losses = [values for _, values in points if "train_loss" in values]
    assert [set(values) for values in losses] == [{"train_loss", "learning_rate"}] * 6


class Killed(BaseException):
    """The end of a process that nobody announced."""


@pytest.fixture(scope="module")
def short(tokenised):
    """Two steps an epoch of eight texts each."""
    return tokenised | {"train": tokenised["train"].select(range(16))}


@pytest.fixture(scope="module")
def undisturbed(packaged, short, tmp_path_factory):
    return fine_tune(packaged, short, 5, Pieces(tmp_path_factory.mktemp("undisturbed")), batch_size=8)


@pytest.fixture
def stoppable():
    """SIGTERM as the entry points take it."""
    before = signal.getsignal(signal.SIGTERM)
    leave_in_order_when_stopped()
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    STOP.requested = False


def in_pieces(packaged, tokenised, folder, at_step, interrupt):
    """The run of `undisturbed`, interrupted after a step's point was logged, then taken up by another process."""
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"epochs": 2.0, "batch_size": 8})
    points = {}

    def log(values, step):
        points.setdefault((step, *values), values)
        if step == at_step and "train_loss" in values:
            interrupt()

    tuner = FineTuner(copy.deepcopy(model), tokenizer, settings, 5, log, False)
    with pytest.raises((SystemExit, Killed)):
        tuner.train(tokenised["train"], tokenised["validation"], Pieces(folder, lambda: "first piece"))
    STOP.requested = False
    training, evaluation, rest = fine_tune(packaged, tokenised, 5, Pieces(folder), batch_size=8)
    for step, values in rest:
        points.setdefault((step, *values), values)
    return training, evaluation, [(key[0], values) for key, values in points.items()]


@pytest.mark.parametrize("at_step", range(1, 5))
def test_a_stopped_run_goes_on_exactly(packaged, short, undisturbed, stoppable, tmp_path, at_step):
    """Within the first epoch, at its end, within the second, and after the last step: loss curves agree bit for bit."""
    training, evaluation, points = in_pieces(packaged, short, tmp_path, at_step, stoppable)
    assert points == undisturbed[2]
    assert evaluation.predictions.equals(undisturbed[1].predictions)
    assert training.shapes == undisturbed[0].shapes
    assert training.state == undisturbed[0].state
    assert training.best_epoch == undisturbed[0].best_epoch
    assert training.earlier_pieces == ["first piece"]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(packaged, short, undisturbed, tmp_path, monkeypatch):
    """A checkpoint a step; the last one was being written when the process was killed."""
    monkeypatch.setenv(VARIABLE, "0")

    def kill():
        for part in sorted(tmp_path.glob("checkpoint-*/encoder_reduction.pt"))[-1:]:
            part.unlink()
        raise Killed

    training, evaluation, points = in_pieces(packaged, short, tmp_path, 3, kill)
    assert points == undisturbed[2]
    assert evaluation.predictions.equals(undisturbed[1].predictions)
    assert training.shapes == undisturbed[0].shapes
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1] == "checkpoint-4"


def test_every_example_is_seen_once_in_batches_of_similar_length():
    lengths = np.random.default_rng(0).integers(5, 60, 210).tolist()
    grouped = LengthGroupedSampler(16, lengths=lengths, generator=torch.Generator().manual_seed(1))
    order = list(ShuffledBatches(grouped, Record()))
    assert sorted(order) == list(range(210))
    batches = [[lengths[index] for index in order[start : start + 16]] for start in range(0, 208, 16)]
    spread = np.mean([max(batch) - min(batch) for batch in batches])
    assert spread < 25
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest, reverse=True)


def test_predictions_keep_the_order_of_the_split(packaged, tokenised):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"precision": "fp32"})
    tuner = FineTuner(model, tokenizer, settings, 1, lambda values, step: None, False)
    ids = [str(index) for index in range(len(tokenised["test"]))]
    result = tuner.evaluate(tokenised["test"], ids).predictions
    assert result["id"].tolist() == ids
    assert result["label"].tolist() == tokenised["test"]["labels"][:]
    one = torch.tensor([tokenised["test"][7]["input_ids"]])
    with torch.no_grad():
        expected = model.eval()(input_ids=one).logits.softmax(-1)[0, 1].item()
    assert result["score"][7] == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(packaged, tokenised, pieces):
    model, tokenizer = packaged["bert"]
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.classifier.weight.fill_(np.inf)
    settings = presets.load("packaged")[0].fine_tuning
    tuner = FineTuner(broken, tokenizer, settings, 1, lambda values, step: None, False)
    with pytest.raises(UserError, match=r"training loss became nan at step 1; lower learning_rate"):
        tuner.train(tokenised["train"], tokenised["validation"], pieces)


def without_dropout(model):
    """A copy whose steps do not depend on how a batch is divided."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return copied


def test_out_of_memory_computes_the_same_batches_in_more_passes(packaged, tokenised, monkeypatch, caplog, tmp_path):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning
    tuners = [
        FineTuner(without_dropout(model), tokenizer, settings, 1, lambda values, step: None, False) for _ in range(2)
    ]
    undisturbed = tuners[0].train(tokenised["train"], tokenised["validation"], Pieces(tmp_path / "undisturbed"))
    step, failed = _Trainer.training_step, []

    def with_room_for_five(self, model, inputs, *arguments, **more):
        if len(inputs["labels"]) > 5:
            failed.append(weakref.ref(self))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, *arguments, **more)

    def nothing_left():
        start_peak_again()
        assert not [trainer for trainer in failed if trainer()], "what failed is still in memory"

    monkeypatch.setattr(_Trainer, "training_step", with_room_for_five)
    monkeypatch.setattr(fine_tuning, "start_peak_again", nothing_left)
    trained = tuners[1].train(tokenised["train"], tokenised["validation"], Pieces(tmp_path / "in_passes"))
    assert len(failed) == 2
    assert (undisturbed.micro_batch_size, trained.micro_batch_size) == (16, 4)
    assert (trained.steps, trained.examples) == (undisturbed.steps, undisturbed.examples)
    logits = [tuner.logits(tokenised["test"]) for tuner in tuners]
    assert logits[1] == pytest.approx(logits[0], abs=2e-3)
    assert "with 4 examples at once instead of 16, 4 passes a step" in caplog.text


def test_one_example_that_does_not_fit_is_one_sentence(packaged, tokenised, monkeypatch, pieces):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning
    tuner = FineTuner(copy.deepcopy(model), tokenizer, settings, 1, lambda values, step: None, False)

    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(_Trainer, "training_step", no_room)
    with pytest.raises(torch.OutOfMemoryError) as error:
        tuner.train(tokenised["train"], tokenised["validation"], pieces)
    assert explain(error.value).startswith("The GPU ran out of memory")


def test_a_run_that_diverges_keeps_the_best_epoch_before(packaged, tokenised, monkeypatch, pieces):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"epochs": 2.0})
    tuner = FineTuner(copy.deepcopy(model), tokenizer, settings, 1, lambda values, step: None, False)
    compute = _Trainer.compute_loss

    def diverging(self, model, *arguments, **more):
        loss = compute(self, model, *arguments, **more)
        return loss * float("nan") if self.model.training and self.state.global_step >= 3 else loss

    monkeypatch.setattr(_Trainer, "compute_loss", diverging)
    with pytest.raises(NonFiniteLossError) as error:
        tuner.train(tokenised["train"], tokenised["validation"], pieces)
    assert error.value.recovered
    assert np.isfinite(tuner.logits(tokenised["test"])).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="precision=fp16 needs a CUDA GPU"):
        resolve_precision("fp16")
    assert resolve_precision("auto") in ("fp32", "bf16")


def test_a_full_disk_is_one_sentence():
    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "w") as full:
        full.write("x" * 100_000)
    assert explain(error.value).startswith("The disk is full")
    assert explain(ValueError("a bug")) is None
