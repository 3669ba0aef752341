import weakref

import numpy as np
import pytest
import torch
from networks import DEVICE, small, small_texts, small_tokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from encoder_reduction.errors import UserError, explain
from encoder_reduction.plan import presets
from encoder_reduction.plan.precision import resolve_precision
from encoder_reduction.plan.sections import Distillation
from encoder_reduction.profiling.memory import start_peak_again
from encoder_reduction.reductions.layers import drop_layers
from encoder_reduction.training import fine_tuning
from encoder_reduction.training.batches import ShuffledBatches
from encoder_reduction.training.distillation import Teacher, hidden_loss
from encoder_reduction.training.fine_tuning import FineTuner
from encoder_reduction.training.pieces import Pieces, Record
from encoder_reduction.training.recorder import NonFiniteLossError
from encoder_reduction.training.trainer import PlanTrainer

SPLITS = {split: small_texts(48, seed) for seed, split in enumerate(("train", "validation", "test"))}


@pytest.fixture
def pieces(tmp_path):
    return Pieces(tmp_path / "checkpoints")


def network():
    return small("bert", layers=2, heads=2, head_size=8, intermediate=32, spread=0.2)


def tuner(model=None, seed=1, log=lambda values, step: None, **changed):
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"learning_rate": 0.01, **changed})
    return FineTuner(model or network(), small_tokenizer(), settings, seed, log, False)


def fine_tune(splits, seed, pieces, **changed):
    points = []
    chosen = tuner(None, seed, lambda values, step: points.append((step, values)), **{"epochs": 2.0} | changed)
    training = chosen.train(splits["train"], splits["validation"], pieces)
    ids = [str(index) for index in range(len(splits["test"]))]
    return training, chosen.evaluate(splits["test"], ids), points


def test_the_same_seed_gives_the_same_model_bit_for_bit(tmp_path):
    first, again = (fine_tune(SPLITS, 5, Pieces(tmp_path / name)) for name in ("first", "again"))
    assert first[1].predictions.equals(again[1].predictions)
    assert first[2] == again[2]
    other = fine_tune(SPLITS, 6, Pieces(tmp_path / "other"))
    assert not first[1].predictions.equals(other[1].predictions)


@pytest.mark.parametrize(("seed", "best"), [(1, 2), (7, 3), (4, 4)])
def test_the_kept_weights_are_those_of_the_best_validation_epoch(pieces, seed, best):
    """On disk are those of the best before the last, and nothing else."""
    points = []
    chosen = tuner(seed=seed, log=lambda values, step: points.append(values), epochs=4.0)
    training = chosen.train(SPLITS["train"], SPLITS["validation"], pieces)
    accuracies = [values["epoch_validation_accuracy"] for values in points if "epoch_validation_accuracy" in values]
    assert training.validation_accuracy == max(accuracies)
    assert training.best_epoch == 1 + np.argmax(accuracies) == best
    kept = chosen.evaluate(SPLITS["validation"], [str(index) for index in range(48)])
    assert kept.accuracy == max(accuracies)
    assert training.steps == 4 * 3
    assert [path.name for path in pieces.folder.iterdir()] == [f"best-{3 * (1 + np.argmax(accuracies[:-1]))}.pt"]
    losses = [values for values in points if "train_loss" in values]
    assert [set(values) for values in losses] == [{"train_loss", "learning_rate"}] * 12


def test_without_epochs_the_weights_stay_and_validation_is_scored(pieces):
    chosen = tuner(epochs=0.0)
    chosen.model.to(DEVICE)
    before = {name: tensor.clone() for name, tensor in chosen.model.state_dict().items()}
    training = chosen.train(SPLITS["train"], SPLITS["validation"], pieces)
    assert all(torch.equal(before[name], tensor) for name, tensor in chosen.model.state_dict().items())
    scored = chosen.evaluate(SPLITS["validation"], [str(index) for index in range(48)])
    assert training.validation_accuracy == scored.accuracy
    assert (training.steps, training.seconds, training.best_epoch, training.examples) == (0, 0, 0, 0)


def test_a_student_whose_loss_is_that_of_hidden_states_comes_nearer_to_its_teacher(pieces):
    """Of a teacher of four layers 0 and 2 stay; nothing but the teacher is in the loss."""
    teacher = (
        small("bert", layers=4, heads=2, head_size=8, intermediate=32, spread=0.2).requires_grad_(False).to(DEVICE)
    )
    kept = [0, 2]
    student = drop_layers(teacher, kept).requires_grad_(True)
    settings = presets.load("packaged")[0].fine_tuning.model_copy(update={"learning_rate": 0.003, "epochs": 6.0})
    teaching = Distillation(distill="hidden", temperature=2, distill_weight=1)
    beside = Teacher(teacher, kept, None)
    chosen = FineTuner(student, small_tokenizer(), settings, 1, lambda values, step: None, False, teaching, beside)
    tokens = torch.tensor([row[:5] for row in SPLITS["validation"]["input_ids"]])
    batch = {"input_ids": tokens.to(DEVICE), "attention_mask": torch.ones_like(tokens).to(DEVICE)}

    def error():
        with torch.no_grad():
            states = [model.eval()(**batch, output_hidden_states=True).hidden_states for model in (student, teacher)]
        return hidden_loss(states[0][1:], beside.targets(states[1]), batch["attention_mask"]).item()

    before = error()
    chosen.train(SPLITS["train"], SPLITS["validation"], pieces)
    assert error() < 0.7 * before
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


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


def test_predictions_keep_the_order_of_the_split():
    model, test = network(), SPLITS["test"]
    ids = [str(index) for index in range(len(test))]
    result = tuner(model, precision="fp32").evaluate(test, ids).predictions
    assert result["id"].tolist() == ids
    assert result["label"].tolist() == test["labels"][:]
    one = torch.tensor([test[7]["input_ids"]], device=model.device)
    with torch.no_grad():
        expected = model.eval()(input_ids=one).logits.softmax(-1)[0, 1].item()
    assert result["score"].sub(expected).abs().lt(1e-5).tolist() == [index == 7 for index in range(len(test))]


def test_validation_sees_texts_of_a_length_together(monkeypatch, pieces):
    validation, step, seen = small_texts(130, seed=1), PlanTrainer.prediction_step, []

    def note(self, model, inputs, *arguments, **more):
        seen.append(tuple(inputs["input_ids"].shape))
        return step(self, model, inputs, *arguments, **more)

    monkeypatch.setattr(PlanTrainer, "prediction_step", note)
    tuner(epochs=1.0).train(SPLITS["train"], validation, pieces)
    lengths = sorted(validation["length"])
    assert seen == [(64, lengths[63]), (64, lengths[127]), (2, lengths[129])]


def test_a_loss_that_is_not_finite_stops_the_run(pieces):
    broken = network()
    with torch.no_grad():
        broken.classifier.weight.fill_(np.inf)
    with pytest.raises(NonFiniteLossError, match=r"training loss became nan at step 1; lower learning_rate") as error:
        tuner(broken).train(SPLITS["train"], SPLITS["validation"], pieces)
    assert not error.value.recovered


def without_dropout():
    """Its steps do not depend on how a batch is divided."""
    model = network()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_out_of_memory_computes_the_same_batches_in_more_passes(monkeypatch, caplog, tmp_path):
    tuners = [tuner(without_dropout(), precision="fp32", learning_rate=1e-3) for _ in range(2)]
    before = tuners[0].logits(SPLITS["test"])
    undisturbed = tuners[0].train(SPLITS["train"], SPLITS["validation"], Pieces(tmp_path / "undisturbed"))
    step, failed = PlanTrainer.training_step, []

    def with_room_for_five(self, model, inputs, *arguments, **more):
        if len(inputs["labels"]) > 5 and self.state.global_step:
            failed.append(weakref.ref(self))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, *arguments, **more)

    def nothing_left():
        start_peak_again()
        assert not [trainer for trainer in failed if trainer()], "what failed is still in memory"

    monkeypatch.setattr(fine_tuning, "_memory_may_run_out", lambda: True)
    monkeypatch.setattr(PlanTrainer, "training_step", with_room_for_five)
    monkeypatch.setattr(fine_tuning, "start_peak_again", nothing_left)
    trained = tuners[1].train(SPLITS["train"], SPLITS["validation"], Pieces(tmp_path / "in_passes"))
    assert len(failed) == 2
    assert (undisturbed.micro_batch_size, trained.micro_batch_size) == (16, 4)
    assert (trained.steps, trained.examples) == (undisturbed.steps, undisturbed.examples)
    logits = [each.logits(SPLITS["test"]) for each in tuners]
    assert abs(logits[0] - before).max() > 1e-2
    assert logits[1] == pytest.approx(logits[0], abs=1e-4)
    assert "with 4 examples at once instead of 16, 4 passes a step" in caplog.text


def test_one_example_that_does_not_fit_is_one_sentence(monkeypatch, pieces):
    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fine_tuning, "_memory_may_run_out", lambda: True)
    monkeypatch.setattr(PlanTrainer, "training_step", no_room)
    with pytest.raises(torch.OutOfMemoryError) as error:
        tuner().train(SPLITS["train"], SPLITS["validation"], pieces)
    assert explain(error.value).startswith("The GPU ran out of memory")


def test_a_run_that_diverges_keeps_the_best_epoch_before(monkeypatch, pieces):
    chosen, compute = tuner(epochs=2.0), PlanTrainer.compute_loss

    def diverging(self, model, *arguments, **more):
        loss = compute(self, model, *arguments, **more)
        return loss * float("nan") if self.model.training and self.state.global_step >= 3 else loss

    monkeypatch.setattr(PlanTrainer, "compute_loss", diverging)
    with pytest.raises(NonFiniteLossError) as error:
        chosen.train(SPLITS["train"], SPLITS["validation"], pieces)
    assert error.value.recovered
    assert np.isfinite(chosen.logits(SPLITS["test"])).all()


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
