"""Whether training is what the plan says: its arithmetic, its schedule, its batches, and what counts as its time."""

import gc

import pytest
import torch
from networks import DEVICE, small, small_texts, small_tokenizer
from transformers import TrainingArguments

from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.profiling.compute import Shape
from encoder_reduction.profiling.inference import for_inference
from encoder_reduction.profiling.memory import TrainingState
from encoder_reduction.training import fine_tuning, recorder
from encoder_reduction.training.batches import more_passes
from encoder_reduction.training.fine_tuning import FineTuner, Training
from encoder_reduction.training.pieces import VARIABLE, Pieces, Record
from encoder_reduction.training.recorder import Recorder
from encoder_reduction.training.trainer import PlanTrainer

TRAIN, VALIDATION = small_texts(24, seed=0), small_texts(24, seed=1)


def tuner(head_size=4, **changed):
    model = small("bert", layers=2, heads=2, head_size=head_size, intermediate=4 * head_size)
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"epochs": 2.0, "batch_size": 8, **changed})
    return FineTuner(model, small_tokenizer(), settings, 1, lambda values, step: None, False)


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
def trained(tmp_path_factory):
    """With a checkpoint a step; a step takes 1 s, a batch of evaluation 100 s, a checkpoint 10,000 s."""
    clock, rates, decays = Clock(), [], set()

    def look(self, *arguments, optimizer, **more):
        rates.append(optimizer.param_groups[0]["lr"])
        decays.update(group["weight_decay"] for group in optimizer.param_groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        patch.setattr(recorder, "_LOGGED_POINTS", 1)  # so that time runs on from step to step
        patch.setattr(recorder, "_now", lambda: clock.now)
        patch.setattr(PlanTrainer, "training_step", clock.slow(PlanTrainer.training_step, 1.0))
        patch.setattr(PlanTrainer, "prediction_step", clock.slow(PlanTrainer.prediction_step, 100.0))
        patch.setattr(Pieces, "save", clock.slow(Pieces.save, 10_000.0))
        patch.setattr(Recorder, "on_optimizer_step", look)
        chosen = tuner(warmup_ratio=0.5, learning_rate=3e-5, weight_decay=0.02)
        pieces = Pieces(tmp_path_factory.mktemp("trained") / "checkpoints")
        training = chosen.train(TRAIN, VALIDATION, pieces)
    assert clock.now == 6 * 1 + 2 * 100 + 6 * 10_000
    return training, rates, decays


def test_evaluation_and_checkpoints_are_no_training_time(trained):
    assert trained[0].seconds == 6.0


def test_examples_and_tokens_are_counted_without_padding(trained):
    assert trained[0].examples == 2 * 24
    assert trained[0].tokens == 2 * sum(TRAIN["length"])


def test_padding_is_the_share_of_what_was_computed_for_nothing():
    shapes, state = [Shape(4, 10, 30), Shape(2, 5, 9)], TrainingState(1.0, 1.0, 2.0, 0.5)
    training = Training(
        seconds=2.0, steps=2, shapes=shapes, state=state, attention_kernels=None, micro_batch_size=4, best_epoch=1.0,
        validation_accuracy=0.8, validation_f1=0.7, earlier_pieces=[],
    )  # fmt: skip
    assert training.padding == pytest.approx(11 / 50)


def test_a_point_of_the_curve_is_the_mean_of_the_steps_since_the_last():
    record = Record()
    for loss in (1.0, 2.0, 6.0):
        record.note_loss(torch.tensor(loss))
        record.loss_steps += 1
    assert record.take_loss() == 3.0
    record.note_loss(torch.tensor(5.0))
    record.loss_steps += 1
    assert record.take_loss() == 5.0


def test_of_several_passes_a_step_the_losses_are_shares_of_one():
    record = Record(passes=2)
    for share in (0.5, 0.75):
        record.note_loss(torch.tensor(share))
    record.loss_steps += 1
    assert record.take_loss() == 1.25


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
def test_the_arithmetic_is_the_plans(tmp_path, monkeypatch, arguments, gpu, precision, fp16, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(Asked):
        tuner(precision=precision).train(TRAIN, VALIDATION, Pieces(tmp_path / "a"))
    assert (arguments["fp16"], arguments["bf16"], arguments["use_cpu"]) == (fp16, bf16, not gpu)


def test_an_incomplete_batch_is_a_step_of_the_schedule(tmp_path, arguments):
    with pytest.raises(Asked):
        tuner(epochs=3.0, warmup_ratio=0.1).train(range(100), VALIDATION, Pieces(tmp_path / "a"))
    assert arguments["warmup_steps"] == round(0.1 * 3 * 13)  # thirteen batches of eight at most make a hundred


@pytest.mark.parametrize("converted", [False, True])
def test_logits_are_those_of_the_plans_arithmetic(converted):
    """Of float32 weights under autocast, as in training; of converted ones as they are."""
    chosen = tuner(precision="bf16")
    model = chosen.model.to(DEVICE)
    if converted:
        for_inference(model, "bf16")
    one = VALIDATION.select([3])
    row = torch.tensor(one["input_ids"][:], device=DEVICE)
    with torch.no_grad(), torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=not converted):
        expected = model.eval()(row).logits.float().cpu().numpy()
    assert chosen.logits(one) == pytest.approx(expected, abs=0)
    with torch.no_grad():
        in_float32 = model.float()(row).logits.cpu().numpy()
    assert expected != pytest.approx(in_float32, abs=0)


def test_several_gpus_do_not_multiply_the_batch(tmp_path, monkeypatch):
    """Where a process has started CUDA before it could take one."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    with pytest.raises(UserError, match="A step would take 32 examples on 4 GPUs instead of batch_size=8 on one"):
        tuner().train(TRAIN, VALIDATION, Pieces(tmp_path / "a"))


@pytest.mark.parametrize(("batch_size", "at_once"), [(6, [6, 3, 2, 1]), (24, [24, 12, 8, 6, 4, 3, 2, 1]), (7, [7, 1])])
def test_passes_divide_a_batch_evenly(batch_size, at_once):
    passes, found = 1, [batch_size]
    while passes < batch_size:
        passes = more_passes(batch_size, passes)
        found.append(batch_size / passes)
    assert found == at_once


def test_out_of_memory_never_changes_how_many_examples_a_step_takes(monkeypatch, tmp_path):
    step, tried, stepped = PlanTrainer.training_step, [], []

    def with_room_for_two(self, model, inputs, *arguments, **more):
        tried.append(len(inputs["labels"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, *arguments, **more)

    monkeypatch.setattr(fine_tuning, "_memory_may_run_out", lambda: True)
    monkeypatch.setattr(PlanTrainer, "training_step", with_room_for_two)
    monkeypatch.setattr(Recorder, "on_optimizer_step", lambda self, *_, optimizer, **__: stepped.append(len(tried)))
    trained = tuner(batch_size=6).train(TRAIN, VALIDATION, Pieces(tmp_path / "checkpoints"))
    assert tried == [6, 3] + [2] * 24
    assert (trained.micro_batch_size, trained.steps, trained.examples) == (2, 8, 48)
    assert stepped == [2 + 3 * count for count in range(1, 9)]


def test_training_keeps_no_second_copy_of_the_weights_where_its_memory_is_measured(monkeypatch, tmp_path):
    chosen = tuner(head_size=128)
    chosen.model.to(DEVICE)
    step, found = PlanTrainer.training_step, []

    def storages():
        # Only these have a storage: other tests leave tensors that pretend to.
        tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
        tensors = [each for each in tensors if each.device.type == DEVICE.type]
        return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}

    before = storages()

    def look(*arguments, **more):
        if not found:
            found.append(sum(size for address, size in storages().items() if address not in before))
        return step(*arguments, **more)

    monkeypatch.setattr(PlanTrainer, "training_step", look)
    chosen.train(TRAIN, VALIDATION, Pieces(tmp_path / "checkpoints"))
    assert found[0] < 0.01 * sum(parameter.nbytes for parameter in chosen.model.parameters())
