"""Training that is interrupted, by order or without a word, and what it keeps on disk."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_fine_tuning import SPLITS, fine_tune, tuner
from torch import nn

from encoder_reduction.errors import STOP, leave_in_order_when_stopped
from encoder_reduction.training import pieces
from encoder_reduction.training.pieces import VARIABLE, Pieces, Record
from encoder_reduction.training.trainer import PlanTrainer


class Killed(BaseException):
    """The end of a process that nobody announced."""


# Three epochs of two steps of eight texts; the second is the best, and the third as accurate.
SHORT = SPLITS | {"train": SPLITS["train"].select(range(16))}
SETTINGS = {"epochs": 3.0, "batch_size": 8}
SEED = 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = fine_tune(SHORT, SEED, Pieces(folder), **SETTINGS)
    assert result[0].best_epoch == 2
    assert names(folder) == ["best-4.pt"]
    return result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def stoppable():
    """SIGTERM as the entry points take it."""
    before = signal.getsignal(signal.SIGTERM)
    leave_in_order_when_stopped()
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    STOP.requested = False


def in_pieces(folder, mend, at_step=None, interrupt=None):
    """The run of `undisturbed`, interrupted (after a step's point is logged), then taken up by another process."""
    points = {}

    def log(values, step):
        points.setdefault((step, *values), values)
        if step == at_step and "train_loss" in values:
            interrupt()

    with pytest.raises((SystemExit, Killed)):
        tuner(None, SEED, log, **SETTINGS).train(
            SHORT["train"], SHORT["validation"], Pieces(folder, lambda: "first piece")
        )
    mend()
    training, evaluation, rest = fine_tune(SHORT, SEED, Pieces(folder), **SETTINGS)
    for step, values in rest:
        points.setdefault((step, *values), values)
    return training, evaluation, [(key[0], values) for key, values in points.items()]


def assert_same(result, undisturbed):
    """Bit for bit, the loss curve included."""
    (training, evaluation, points), (expected, expected_evaluation, expected_points) = result, undisturbed
    assert points == expected_points
    assert evaluation.predictions.equals(expected_evaluation.predictions)
    assert (training.shapes, training.state) == (expected.shapes, expected.state)
    assert (training.best_epoch, training.validation_f1) == (expected.best_epoch, expected.validation_f1)


@pytest.mark.parametrize("at_step", [1, 2, 4, 5, 6])
def test_a_stopped_run_goes_on_exactly(undisturbed, stoppable, tmp_path, at_step):
    """Within the first epoch, at its end, at the end of the best one, within the last, and after the last step."""
    result = in_pieces(tmp_path, lambda: setattr(STOP, "requested", False), at_step, stoppable)
    assert_same(result, undisturbed)
    assert result[0].earlier_pieces == ["first piece"]


# With a checkpoint a step: of steps 1 and 2, between them the first epoch's weights, and so on.
WRITTEN = ["step 1", "best 2", "step 2", "step 3", "best 4", "step 4", "step 5", "step 6"]


@pytest.mark.parametrize("cut_off", ["step 1", "best 2", "step 2", "best 4", "step 4", "step 6"])
def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(undisturbed, tmp_path, monkeypatch, cut_off):
    """It was writing when it was killed."""
    monkeypatch.setenv(VARIABLE, "0")
    written, save = [], torch.save

    def save_half(content, path):
        if isinstance(path, Path):  # unlike what the Trainer saves
            written.append(path)
            if len(written) == 1 + WRITTEN.index(cut_off):
                path.write_bytes(b"half of it")
                raise Killed
        save(content, path)

    monkeypatch.setattr(torch, "save", save_half)
    assert_same(in_pieces(tmp_path, lambda: monkeypatch.setattr(torch, "save", save)), undisturbed)
    assert names(tmp_path) == ["best-4.pt", "checkpoint-6"]


def test_a_checkpoint_is_written_after_ten_minutes_wherever_training_is(tmp_path, monkeypatch):
    """A step of 250 s: within the second epoch, and after the last step, since minutes of measuring follow."""
    now, step, save, saved = [0.0], PlanTrainer.training_step, Pieces.save, []

    def slow(*arguments, **more):
        now[0] += 250
        return step(*arguments, **more)

    def note(self, record, step):
        saved.append(step)
        save(self, record, step)

    monkeypatch.setattr(pieces, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(PlanTrainer, "training_step", slow)
    monkeypatch.setattr(Pieces, "save", note)
    fine_tune(SHORT, SEED, Pieces(tmp_path), **SETTINGS)
    assert saved == [3, 6]


def weighing(value):
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, value)
    return model


def test_training_goes_on_with_the_best_weights_that_its_checkpoint_knows(tmp_path):
    """On a GPU an epoch that is computed again may come out otherwise."""
    first, record, found = Pieces(tmp_path), Record(), weighing(0)
    assert not first.load_best(record, found)
    first.save_best(record, 2, weighing(2))
    (tmp_path / "checkpoint-3").mkdir()
    first.save(record, 3)
    first.save_best(record, 4, weighing(4))
    first.save_best(record, 6, weighing(6))
    assert names(tmp_path) == ["best-2.pt", "best-6.pt", "checkpoint-3"]
    second = Pieces(tmp_path)
    record = second.record()
    assert second.load_best(record, found)
    assert torch.equal(found.weight, weighing(2).weight)
    second.save_best(record, 4, weighing(5))
    (tmp_path / "checkpoint-5").mkdir()
    second.save(record, 5)
    assert names(tmp_path) == ["best-4.pt", "checkpoint-5"]
    assert Pieces(tmp_path).load_best(second.record(), found)
    assert torch.equal(found.weight, weighing(5).weight)


def test_the_checkpoints_of_an_earlier_version_are_no_longer_gone_on_from(tmp_path):
    """Which kept the best weights in another place."""
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "encoder_reduction.pt").write_bytes(b"a record")
    assert Pieces(tmp_path).record() == Record()
    assert names(tmp_path) == []
