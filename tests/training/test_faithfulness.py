"""Whether training is what the plan says: its arithmetic, its schedule, its batches, and what counts as its time."""

import copy
import gc

import pytest
import torch
from transformers import TrainingArguments

from encoder_reduction.data import corpora
from encoder_reduction.data.tokenisation import tokenise
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.profiling.inference import for_inference
from encoder_reduction.training import fine_tuning, recorder
from encoder_reduction.training.batches import more_passes
from encoder_reduction.training.fine_tuning import FineTuner, _Trainer
from encoder_reduction.training.pieces import VARIABLE, Pieces
from encoder_reduction.training.recorder import Recorder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenised(packaged, movies):
    _, tokenizer = packaged["bert"]
    return {split: tokenise(corpora.draw(movies[split], 24, seed=0), tokenizer, 64) for split in corpora.SPLITS}


def tuner(packaged, log=lambda values, step: None, **changed):
    model, tokenizer = packaged["bert"]
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"epochs": 2.0, "batch_size": 8, **changed})
    return FineTuner(copy.deepcopy(model), tokenizer, settings, 1, log, False)


class Clock:
    """Stands still unless something is said to take time."""

    def __init__(self):
        self.now = 0.0

    def slow(self, function, seconds):
        """The function, which now takes so long."""

        def slowed(*arguments, **more):
            self.now += seconds
            return function(*arguments, **more)

        return slowed


@pytest.fixture(scope="module")
def trained(packaged, tokenised, tmp_path_factory):
    """With a checkpoint a step; a step takes 1 s, a batch of evaluation 100 s, a checkpoint 10,000 s."""
    clock, rates, decays = Clock(), [], set()

    def look(self, *arguments, optimizer, **more):
        rates.append(optimizer.param_groups[0]["lr"])
        decays.update(group["weight_decay"] for group in optimizer.param_groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        patch.setattr(recorder, "_LOGGED_POINTS", 1)  # so that time runs on from step to step
        patch.setattr(recorder, "_now", lambda: clock.now)
        patch.setattr(_Trainer, "training_step", clock.slow(_Trainer.training_step, 1.0))
        patch.setattr(_Trainer, "prediction_step", clock.slow(_Trainer.prediction_step, 100.0))
        patch.setattr(Pieces, "save", clock.slow(Pieces.save, 10_000.0))
        patch.setattr(Recorder, "on_optimizer_step", look)
        chosen = tuner(packaged, warmup_ratio=0.5, learning_rate=3e-5, weight_decay=0.02)
        pieces = Pieces(tmp_path_factory.mktemp("trained") / "checkpoints")
        training = chosen.train(tokenised["train"], tokenised["validation"], pieces)
    assert clock.now == 6 * 1 + 2 * 100 + 6 * 10_000
    return training, rates, decays


def test_evaluation_and_checkpoints_are_no_training_time(trained):
    assert trained[0].seconds == 6.0


def test_examples_and_tokens_are_counted_without_padding(trained, tokenised):
    assert trained[0].examples == 2 * 24
    assert trained[0].tokens == 2 * sum(tokenised["train"]["length"])
    padded = sum(shape.examples * shape.padded for shape in trained[0].shapes)
    assert trained[0].padding == pytest.approx(1 - trained[0].tokens / padded)
    assert trained[0].padding > 0


def test_the_learning_rate_warms_up_and_falls_linearly(trained):
    """Half of six steps warm up: nothing, a third, two thirds of the peak, then down from it."""
    assert trained[1] == pytest.approx([3e-5 * share for share in (0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3)])


def test_weights_decay_and_biases_do_not(trained):
    assert trained[2] == {0.02, 0.0}


class Asked(Exception):  # noqa: N818
    """The Trainer's arguments were made."""


@pytest.fixture
def arguments(monkeypatch):
    """What the Trainer is asked for; nothing is trained."""
    found = {}

    def note(**given):
        found.update(given)
        raise Asked

    monkeypatch.setattr(fine_tuning, "TrainingArguments", note)
    return found


@pytest.mark.parametrize(
    ("gpu", "precision", "fp16", "bf16"),
    [
        (True, "auto", True, False),
        (True, "fp16", True, False),
        (True, "bf16", False, True),
        (True, "fp32", False, False),
        (False, "bf16", False, True),
        (False, "fp32", False, False),
    ],
)
def test_the_arithmetic_is_the_plans(packaged, tokenised, tmp_path, monkeypatch, arguments, gpu, precision, fp16, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(Asked):
        tuner(packaged, precision=precision).train(tokenised["train"], tokenised["validation"], Pieces(tmp_path / "a"))
    assert (arguments["fp16"], arguments["bf16"], arguments["use_cpu"]) == (fp16, bf16, not gpu)


def test_converted_weights_are_computed_with_as_they_are(packaged, tokenised, arguments):
    chosen = tuner(packaged, precision="bf16")
    for_inference(chosen.model, "bf16")
    with pytest.raises(Asked):
        chosen.logits(tokenised["test"])
    assert (arguments["fp16"], arguments["bf16"]) == (False, False)


def test_several_gpus_do_not_multiply_the_batch(packaged, tokenised, tmp_path, monkeypatch):
    """Where a process has started CUDA before it could take one."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    with pytest.raises(UserError, match="A step would take 32 examples on 4 GPUs instead of batch_size=8 on one"):
        tuner(packaged).train(tokenised["train"], tokenised["validation"], Pieces(tmp_path / "a"))


@pytest.mark.parametrize(("batch_size", "at_once"), [(6, [6, 3, 2, 1]), (24, [24, 12, 8, 6, 4, 3, 2, 1]), (7, [7, 1])])
def test_passes_divide_a_batch_evenly(batch_size, at_once):
    passes, found = 1, [batch_size]
    while passes < batch_size:
        passes = more_passes(batch_size, passes)
        found.append(batch_size / passes)
    assert found == at_once


def test_out_of_memory_never_changes_how_many_examples_a_step_takes(packaged, tokenised, monkeypatch, tmp_path):
    step, tried, stepped = _Trainer.training_step, [], []

    def with_room_for_two(self, model, inputs, *arguments, **more):
        tried.append(len(inputs["labels"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, *arguments, **more)

    monkeypatch.setattr(_Trainer, "training_step", with_room_for_two)
    monkeypatch.setattr(Recorder, "on_optimizer_step", lambda self, *_, optimizer, **__: stepped.append(len(tried)))
    trained = tuner(packaged, batch_size=6).train(
        tokenised["train"], tokenised["validation"], Pieces(tmp_path / "checkpoints")
    )
    assert tried == [6, 3] + [2] * 24
    assert (trained.micro_batch_size, trained.steps, trained.examples) == (2, 8, 48)
    assert stepped == [2 + 3 * count for count in range(1, 9)]


def test_training_keeps_no_second_copy_of_the_weights_in_memory(packaged, tokenised, monkeypatch, tmp_path):
    chosen = tuner(packaged)
    step, found = _Trainer.training_step, []

    def storages():
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}

    before = storages()

    def look(*arguments, **more):
        if not found:
            found.append(sum(size for address, size in storages().items() if address not in before))
        return step(*arguments, **more)

    monkeypatch.setattr(_Trainer, "training_step", look)
    chosen.train(tokenised["train"], tokenised["validation"], Pieces(tmp_path / "checkpoints"))
    assert found[0] < 0.01 * sum(parameter.nbytes for parameter in chosen.model.parameters())
