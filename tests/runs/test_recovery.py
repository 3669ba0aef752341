"""Whole runs that cut what is trained: the baseline, a checkpoint with its head; taught, or not trained at all."""

import json

import mlflow
import pandas as pd
import pytest
from networks import small, small_tokenizer
from tagged import WORDS, checkpoint, corpus
from test_execute import VALUES

from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import sizes_of
from encoder_reduction.models.checkpoints import load_folder
from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Checkpoint
from encoder_reduction.runs import run
from encoder_reduction.tracking import store

pytestmark = pytest.mark.slow


class Recoveries:
    """Runs on one small checkpoint and corpus in one store; the baseline is trained already."""

    def __init__(self, folder):
        preset, _ = presets.load("packaged")
        long = preset.fine_tuning.model_copy(update={"epochs": 3.0, "learning_rate": 0.01})
        self.preset = preset.model_copy(update={"fine_tuning": long})
        self.inputs = {"checkpoint": checkpoint(folder / "checkpoint"), "corpus": corpus(folder / "texts")}
        self.baseline = self.run("baseline", None, {})

    def plan(self, stage, dim, values, **inputs):
        given = {name: value for name, value in VALUES.items() if dim or name != "calibration_examples"}
        plan = self.preset.plan(stage, "bert", dim, {**given, "precision": "fp32", **values})
        inputs = self.inputs | inputs
        sources = [source.model_copy(update=inputs) for source in plan.builds_on]
        return plan.model_copy(update={**inputs, "builds_on": tuple(sources)})

    def run(self, stage, dim, values, **inputs):
        outcome = run.execute(self.plan(stage, dim, values, **inputs), progress=False)
        return mlflow.get_run(outcome.run_id)

    def reduced(self, values, dim="heads", **inputs):
        return self.run("reduce", dim, values, **inputs)


@pytest.fixture(scope="module")
def recoveries(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("recoveries"), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
    mlflow.set_experiment(experiment_id="0")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("ENCODER_REDUCTION_CACHE", str(folder / "cache"))
            yield Recoveries(folder)
    finally:
        mlflow.set_tracking_uri(before)


def predictions(found):
    return store.predictions_of([found.info.run_id])[found.info.run_id]


def test_a_cut_that_keeps_everything_and_trains_nothing_is_the_baseline(recoveries):
    found = recoveries.reduced({"start": "baseline", "keep": 1.0, "epochs": 0, "correct": "none"})
    baseline = recoveries.baseline
    pd.testing.assert_frame_equal(predictions(found), predictions(baseline), rtol=1e-5)
    metrics = found.data.metrics
    assert baseline.data.metrics["accuracy"] > 0.6
    for split in ("", "validation_"):
        assert metrics[f"{split}accuracy_before_training"] == metrics[f"{split}accuracy"]
        assert metrics[f"{split}accuracy"] == baseline.data.metrics[f"{split}accuracy"]
    assert metrics["training_seconds"] == 0
    assert metrics["total_training_seconds"] == baseline.data.metrics["training_seconds"]
    assert "training_memory_gb" not in metrics
    assert found.data.tags["source_run"] == baseline.info.run_id
    assert (found.data.tags["start"], found.data.tags["distill"]) == ("baseline", "none")


@pytest.mark.parametrize("dim", ["heads+intermediate", "hidden", "layers"])
def test_what_is_cut_of_the_baseline_learns_from_its_hidden_states(recoveries, dim):
    found = recoveries.reduced({"start": "baseline", "distill": "hidden"}, dim)
    metrics = found.data.metrics
    own, before = metrics["training_seconds"], recoveries.baseline.data.metrics["training_seconds"]
    assert metrics["total_training_seconds"] == pytest.approx(own + before)
    assert {"accuracy_before_training", "validation_accuracy_before_training", "teaching_seconds"} <= set(metrics)
    assert found.data.params["distill"] == found.data.tags["distill"] == "hidden"


def test_a_pretrained_cut_taught_by_the_baseline_counts_the_training_of_the_baseline(recoveries):
    found = recoveries.reduced({"distill": "logits"}, "layers").data
    assert "accuracy_before_training" not in found.metrics
    assert found.metrics["total_training_seconds"] == pytest.approx(
        found.metrics["training_seconds"] + recoveries.baseline.data.metrics["training_seconds"]
    )


def test_a_checkpoint_that_is_trained_already_is_cut_with_its_head(recoveries, tmp_path):
    with store.downloaded_model(recoveries.baseline.info.run_id) as folder:
        model, tokenizer = load_folder(folder)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    trained = Checkpoint(name="trained", source=str(tmp_path))
    whole = {"start": "checkpoint", "keep": 1.0, "epochs": 0, "correct": "none"}
    found = recoveries.reduced(whole, checkpoint=trained)
    pd.testing.assert_frame_equal(predictions(found), predictions(recoveries.baseline), rtol=1e-5)
    taught = recoveries.reduced({"start": "checkpoint", "distill": "logits"}, checkpoint=trained)
    assert "source_run" not in taught.data.tags
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    with pytest.raises(UserError, match="calls its classes LABEL_0, LABEL_1; start=checkpoint needs two"):
        recoveries.reduced(whole, checkpoint=trained)


def test_layers_of_their_own_sizes_are_logged_and_come_back(recoveries):
    values = {"start": "baseline", "spread": "global", "criterion": "fisher", "keep": 0.4, "epochs": 0}
    found = recoveries.reduced(values, "heads+intermediate")
    with store.downloaded_model(found.info.run_id) as folder:
        sizes = sizes_of(load_folder(folder)[0])
    assert len(set(sizes.intermediate_by_layer)) == 2
    assert found.data.params["intermediate_size_by_layer"] == ",".join(map(str, sizes.intermediate_by_layer))
    assert found.data.params["num_attention_heads"] == str(sizes.heads)


def test_a_start_without_a_baseline_names_the_command_that_makes_it(recoveries):
    with pytest.raises(UserError, match=r"No finished baseline run of model=bert .* seed=9 .* first: mlflow run"):
        recoveries.reduced({"start": "baseline", "seed": 9})


def test_a_teacher_of_other_tokens_or_other_dimensions_is_one_sentence(recoveries, tmp_path):
    small_tokenizer(*reversed(WORDS)).save_pretrained(tmp_path / "words")
    small("bert", 2, 4, 4, 32).save_pretrained(tmp_path / "words")
    other = recoveries.run("baseline", None, {"seed": 3}, checkpoint=Checkpoint(name="a", source=f"{tmp_path}/words"))
    with pytest.raises(UserError, match=f"teacher={other.info.run_id} reads texts in other tokens"):
        recoveries.reduced({"distill": "logits", "teacher": other.info.run_id})
    small_tokenizer(*WORDS).save_pretrained(tmp_path / "deep")
    small("bert", 3, 4, 4, 32).save_pretrained(tmp_path / "deep")
    deep = recoveries.run("baseline", None, {"seed": 3}, checkpoint=Checkpoint(name="b", source=f"{tmp_path}/deep"))
    with pytest.raises(UserError, match=f"teacher={deep.info.run_id} has 3 layers of hidden size 16, what was cut 2"):
        recoveries.reduced({"distill": "hidden", "teacher": deep.info.run_id})
    assert recoveries.reduced({"distill": "logits", "teacher": deep.info.run_id}).info.status == "FINISHED"
    with pytest.raises(UserError, match="Run nobody is not in"):
        recoveries.reduced({"distill": "logits", "teacher": "nobody"})
