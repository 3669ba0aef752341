"""What the Trainer is told, and what counts as training time."""

from types import SimpleNamespace

import pytest
import torch
from networks import small

from encoder_reduction.plan import presets
from encoder_reduction.training import fine_tuning, recorder
from encoder_reduction.training.fine_tuning import FineTuner, Training
from encoder_reduction.training.pieces import Pieces, Record
from encoder_reduction.training.recorder import Recorder


class Told(Exception):  # noqa: N818
    """The arguments are known; nothing needs to be trained."""


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What TrainingArguments is given for a plan's settings."""

    def arguments_for(precision="fp32", **settings):
        def spy(**arguments):
            raise Told(arguments)

        monkeypatch.setattr(fine_tuning, "TrainingArguments", spy)
        monkeypatch.setattr(fine_tuning, "resolve_precision", lambda wanted: precision)
        settings = presets.load("packaged")[0].fine_tuning.model_copy(update=settings)
        model = small("bert", layers=1, heads=1, head_size=4, intermediate=4)
        tuner = FineTuner(model, None, settings, 7, lambda values, step: None, False)
        with pytest.raises(Told) as error:
            tuner.train(range(100), range(10), Pieces(tmp_path / "checkpoints"))
        return SimpleNamespace(**error.value.args[0])

    return arguments_for


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_the_trainer_computes_in_the_precision_that_was_resolved(told, precision):
    arguments = told(precision)
    assert (arguments.fp16, arguments.bf16) == (precision == "fp16", precision == "bf16")


def test_the_trainer_has_the_plans_schedule_and_decay(told):
    arguments = told(epochs=3.0, batch_size=8, learning_rate=3e-5, warmup_ratio=0.1, weight_decay=0.02)
    assert arguments.learning_rate == 3e-5
    assert arguments.weight_decay == 0.02
    assert arguments.warmup_steps == round(0.1 * 3 * 13)  # thirteen batches of eight at most make a hundred
    assert arguments.lr_scheduler_type == "linear"
    assert arguments.num_train_epochs == 3.0
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 8
    assert arguments.seed == 7
    assert arguments.load_best_model_at_end
    assert arguments.metric_for_best_model == "accuracy"


def test_evaluation_is_no_training_time(monkeypatch, tmp_path):
    clock = iter([0.0, 5.0, 100.0, 103.0])
    monkeypatch.setattr(recorder, "_now", lambda: next(clock))
    record = Record()
    watching = Recorder(record, Pieces(tmp_path), lambda values, step: None, 10, lambda: False)
    for _ in range(2):
        watching.on_epoch_begin()
        watching.on_epoch_end()
    assert record.seconds == 5 + 3


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


def test_padding_is_the_share_of_what_was_computed_for_nothing():
    shapes = [fine_tuning.Shape(4, 10, 30), fine_tuning.Shape(2, 5, 9)]
    state = fine_tuning.TrainingState(1.0, 1.0, 2.0, 0.5)
    training = Training(
        seconds=2.0, steps=2, shapes=shapes, state=state, micro_batch_size=4, best_epoch=1.0, validation_accuracy=0.8,
        validation_f1=0.7, earlier_pieces=[],
    )  # fmt: skip
    assert (training.examples, training.tokens) == (6, 39)
    assert training.padding == pytest.approx(11 / 50)
