import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.profiling import energy, machine, memory
from encoder_reduction.profiling.machine import Watch
from encoder_reduction.runs.figures import Stopwatch
from encoder_reduction.runs.run import begin, execute, train
from encoder_reduction.tracking import fingerprints, opening, store
from encoder_reduction.tracking.run_folder import has_checkpoints
from encoder_reduction.training.pieces import Pieces, Record
from encoder_reduction.training.recorder import NonFiniteLossError

CPU = torch.device("cpu")


class Diverging:
    """A fine-tuner whose loss becomes nan, after a good epoch or before any."""

    model, tokenizer = "model", "tokenizer"

    def __init__(self, recovered):
        self.recovered = recovered

    def train(self, train, validation, pieces):
        error = NonFiniteLossError("The training loss became nan.")
        error.recovered = self.recovered
        raise error


class Recorder:
    """Notes what a run is told to keep."""

    def __init__(self, folder):
        self.kept, self.tags = [], {}
        self.folder = type("Folder", (), {"checkpoints": folder})

    def model(self, model, tokenizer):
        self.kept.append((model, tokenizer))

    def tag(self, tags):
        self.tags |= tags

    def send_points(self):
        pass


@pytest.mark.parametrize("recovered", [True, False])
def test_a_diverged_run_keeps_its_last_good_model_if_it_has_one(recovered, tmp_path):
    run, splits = Recorder(tmp_path), {"train": None, "validation": None}
    with pytest.raises(NonFiniteLossError):
        train(Diverging(recovered), splits, run, CPU, Stopwatch(), Watch(None))
    assert run.kept == ([("model", "tokenizer")] if recovered else [])
    assert ("kept_model" in run.tags) == recovered


def test_memory_and_energy_add_up_over_the_pieces_of_a_run():
    first = memory.PeakMemory("gpu", start=1.0, peak=5.0, reserved=6.0, device=7.0, device_source="NVML")
    second = memory.PeakMemory("gpu", start=1.5, peak=3.0, reserved=8.0, device=None, device_source="GPUtil")
    whole = memory.of_pieces([memory.PeakMemory(**first.readings()), second])
    assert (whole.peak, whole.above_start, whole.reserved, whole.device) == (5.0, 4.0, 8.0, 7.0)
    parts = [energy.EnergyUsed("RAPL", 10.0), energy.EnergyUsed("RAPL", 2.5)]
    assert energy.of_pieces(parts).joules == 12.5
    assert energy.of_pieces([energy.EnergyUsed(None), parts[0]]).joules is None


def test_a_refused_run_keeps_what_it_may_go_on_from(experiment_id, monkeypatch, tmp_path):
    """Other parameters are refused; the checkpoint stays for the right ones."""
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path))
    preset, _ = presets.load("packaged")
    with suppress(KeyboardInterrupt), opening.open_run(experiment_id=experiment_id) as run:
        begin(run, preset.plan("baseline", "bert"), None)
        (run.folder.checkpoints / "checkpoint-7").mkdir(parents=True)
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"cannot go on: it was begun with other parameters"):
        execute(preset.plan("baseline", "bert", overrides={"epochs": 2}), run_id=run.run_id)
    assert has_checkpoints(run.run_id)
    assert store.tags_of(run.run_id)["error"].startswith("Run ")
    assert store.unfinished_run(experiment_id, fingerprints.of_plan(preset.plan("baseline", "bert"))) == run.run_id


class Interrupted(BaseException):
    """The process is killed."""


class InPieces:
    """A fine-tuner that is killed after its first checkpoint, and goes on from it in the next process."""

    def train(self, train, validation, pieces):
        if pieces.latest() is None:
            (pieces.folder / "checkpoint-1").mkdir(parents=True)
            pieces.save(Record(), 1)
            raise Interrupted
        return SimpleNamespace(earlier_pieces=pieces.record().pieces, micro_batch_size=16, attention_kernels="flash")


def test_an_interrupted_run_counts_the_time_and_the_machine_of_all_its_pieces(tmp_path):
    splits, ended = {"train": None, "validation": None}, []
    for _ in range(2):
        run, started, stopwatch = Recorder(tmp_path), time.perf_counter(), Stopwatch()
        with machine.watched(CPU) as watch:
            try:
                train(InPieces(), splits, run, CPU, stopwatch, watch)
            except Interrupted:
                ended.append(stopwatch.running())
            else:
                spent = time.perf_counter() - started
                last = stopwatch.seconds()["fine_tuning_seconds"]
    (first,) = watch.earlier
    assert run.tags["pieces"] == 2
    assert first.seconds > 0
    (piece,) = Pieces(tmp_path).record().pieces
    assert 0 < piece["seconds"] <= ended[0]
    assert 0 < last - piece["seconds"] < spent
    assert watch.as_dict()["earlier_pieces"] == [piece["machine"]]
