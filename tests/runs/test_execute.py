"""One whole run in bfloat16, which any CPU can compute, on texts that say which split they are of.

Every part of it is given what it should be, and what is timed, what is scored and what is served are one model.
"""

import json
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from networks import small, small_tokenizer
from safetensors import safe_open
from tagged import WORDS, checkpoint, corpus

from encoder_reduction.data import calibration
from encoder_reduction.data.corpora import SPLITS
from encoder_reduction.models import checkpoints
from encoder_reduction.plan import presets
from encoder_reduction.profiling import inference
from encoder_reduction.profiling.inference import Profiler
from encoder_reduction.profiling.memory import PeakMemory, peak_memory
from encoder_reduction.runs import figures, run
from encoder_reduction.runs.apart import Apart
from encoder_reduction.tracking.logged_models import latest_model
from encoder_reduction.tracking.served_model import SentimentClassifier
from encoder_reduction.tracking.store import PREDICTIONS_FILE, VALIDATION_FILE
from encoder_reduction.training.fine_tuning import FineTuner

pytestmark = pytest.mark.slow

VALUES = {
    "precision": "bf16", "max_length": 8, "batch_size": 8, "calibration_examples": 8, "test_texts": 8,
    "min_repetitions": 2, "time_budget": 0.05, "fixed_lengths": "8",
}  # fmt: skip


def splits_of(input_ids):
    """Which splits token ids are of."""
    words = {WORDS[token - 4] for row in input_ids for token in row if token >= 4}
    return words & set(SPLITS)


class Seen:
    """What each part of a run was given, and what was measured meanwhile."""

    def __init__(self):
        self.calibrated, self.trained, self.selected, self.scored, self.timed = (set() for _ in range(5))
        self.events, self.measuring_memory, self.memory_while_timed = [], False, []
        self.timed_model = self.trained_model = None

    @contextmanager
    def memory_of_training(self, device):
        """Seven GB where the block trains, nothing where it does not."""
        before = len(self.events)
        with peak_memory(device) as memory:
            yield memory
        memory.peak = 7.0 if "trained" in self.events[before:] else 0.0

    @contextmanager
    def memory_of_inference(self, device):
        """Five GB."""
        self.measuring_memory = True
        with peak_memory(device) as memory:
            yield memory
        self.measuring_memory, memory.peak = False, 5.0

    def asked_apart(self, _, folder, precision, workload, beside):
        self.apart = (sorted(file.name for file in folder.iterdir()), precision, workload.name)

    def memory_apart(self, _):
        """Five GB too, three of them before the network was loaded."""
        return None if torch.cuda.is_available() else PeakMemory("apart", start=3.0, peak=5.0)

    def watch(self, patch):
        drawn, train, logits = calibration.batches, FineTuner.train, FineTuner.logits
        texts, measure, measured = Profiler.texts, inference.measure, figures.inference

        def batches(data, *rest):
            self.calibrated |= splits_of(data["input_ids"])
            return drawn(data, *rest)

        def training(tuner, data, validation, *rest):
            self.events.append("trained")
            self.trained |= splits_of(data["input_ids"])
            self.selected |= splits_of(validation["input_ids"])
            self.trained_model = weakref.ref(tuner.model)
            return train(tuner, data, validation, *rest)

        def scoring(tuner, data):
            self.scored |= splits_of(data["input_ids"])
            return logits(tuner, data)

        def profiled(profiler, *rest):
            self.timed_model, self.trained_model = profiler.model, self.trained_model()
            return measured(profiler, *rest)

        def workload(profiler, data, size):
            self.timed |= splits_of(data["input_ids"])
            return texts(profiler, data, size)

        def timing(*arguments, **more):
            self.memory_while_timed.append(self.measuring_memory)
            return measure(*arguments, **more)

        patch.setattr(calibration, "batches", batches)
        patch.setattr(FineTuner, "train", training)
        patch.setattr(FineTuner, "logits", scoring)
        patch.setattr(figures, "inference", profiled)
        patch.setattr(Profiler, "texts", workload)
        patch.setattr(inference, "measure", timing)
        patch.setattr(run, "peak_memory", self.memory_of_training)
        patch.setattr(inference, "peak_memory", self.memory_of_inference)
        patch.setattr(Apart, "ask", lambda *arguments: self.asked_apart(*arguments))
        patch.setattr(Apart, "answer", lambda *arguments: self.memory_apart(*arguments))


@dataclass
class Whole:
    """A finished run of pruned heads.

    Attributes:
        seen: what its parts were given.
        run: MLflow's.
        folder: where its artifacts lie.
        texts: of the test split.
    """

    seen: Seen
    run: Any
    folder: Path
    texts: list[str]

    @property
    def huggingface(self) -> Path:
        (config,) = (self.folder / "model").glob("artifacts/*/config.json")
        return config.parent

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / PREDICTIONS_FILE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, seen, before = tmp_path_factory.mktemp("whole"), Seen(), mlflow.get_tracking_uri()
    inputs = {"checkpoint": checkpoint(folder / "checkpoint"), "corpus": corpus(folder / "texts")}
    plan = presets.load("packaged")[0].plan("reduce", "bert", "heads", VALUES).model_copy(update=inputs)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
    mlflow.set_experiment(experiment_id="0")  # which every store has
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("ENCODER_REDUCTION_CACHE", str(folder / "cache"))
            seen.watch(patch)
            outcome = run.execute(plan, progress=False)
        for name in (PREDICTIONS_FILE, VALIDATION_FILE):
            mlflow.artifacts.download_artifacts(f"runs:/{outcome.run_id}/{name}", dst_path=str(folder))
        uri = f"models:/{latest_model(outcome.run_id).model_id}"
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "model"))
        texts = pd.read_csv(folder / "texts" / "test.csv")["text"].tolist()
        yield Whole(seen, mlflow.get_run(outcome.run_id), folder, texts)
    finally:
        mlflow.set_tracking_uri(before)


def test_a_run_calibrates_and_trains_on_train_selects_on_validation_and_reports_test(whole):
    seen = whole.seen
    assert seen.calibrated == {"train"}
    assert seen.trained == {"train"}
    assert seen.selected == {"validation"}
    assert seen.scored == {"validation", "test"}
    assert seen.timed == {"test"}
    assert whole.predictions["id"].tolist() == [f"test-{index}" for index in range(16)]
    right = whole.predictions["prediction"] == whole.predictions["label"]
    assert whole.run.data.metrics["accuracy"] == right.mean()
    checked = pd.read_csv(whole.folder / VALIDATION_FILE)
    assert set(checked["id"].str.partition("-")[0]) == {"validation"}
    assert right.mean() != (checked["prediction"] == checked["label"]).mean()  # so that the two are told apart


def test_a_run_says_the_memory_of_each_phase_under_its_name(whole):
    assert whole.run.data.metrics["training_memory_gb"] == 7.0
    assert whole.run.data.metrics["inference_memory_gb"] == 5.0
    if not torch.cuda.is_available():
        assert whole.run.data.metrics["inference_memory_of_network_gb"] == 2.0
        parts = ("parameters_gb", "gradients_gb", "optimizer_gb", "activations_gb")
        needed = sum(whole.run.data.metrics[part] for part in parts)
        assert whole.run.data.metrics["training_memory_of_network_gb"] == pytest.approx(needed)
    files, *how = whole.seen.apart
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert how == [whole.run.data.params["inference_precision"], "texts"]
    assert whole.run.data.tags["memory_kind"] == ("gpu" if torch.cuda.is_available() else "resident")


def test_no_autocast_of_training_is_left_on_what_is_timed(whole):
    timed = whole.seen.timed_model
    assert "forward" not in vars(timed)
    assert not hasattr(timed, "_original_forward")
    assert {parameter.dtype for parameter in timed.parameters()} == {torch.bfloat16}
    assert not timed.training


def test_the_trained_model_is_no_part_of_inference_memory(whole):
    assert whole.seen.trained_model is None


def test_what_is_timed_is_what_was_logged(whole):
    timed = whole.seen.timed_model
    logged, _ = checkpoints.load_folder(whole.huggingface)
    logged.to(torch.bfloat16)
    assert type(timed) is type(logged)
    found = timed.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in logged.state_dict().items())
    layers = timed.bert.encoder.layer
    assert {layer.attention.self.config._attn_implementation for layer in layers} == {"sdpa"}


def test_memory_and_latency_are_measured_apart(whole):
    assert len(whole.seen.memory_while_timed) >= 4
    assert not any(whole.seen.memory_while_timed)


def test_what_was_scored_is_what_is_served(whole):
    """Cut at eight tokens, as the run did; one batch of both."""
    scored = whole.predictions
    assert scored["tokens"].max() == 8
    assert scored["score"].nunique() > 2
    said = mlflow.pyfunc.load_model(str(whole.folder / "model")).predict(whole.texts)
    assert [each["label"] for each in said] == scored["prediction"].map({0: "negative", 1: "positive"}).tolist()
    expected = scored["score"].where(scored["prediction"].eq(1), 1 - scored["score"])
    assert [each["score"] for each in said] == pytest.approx(expected.tolist(), abs=1e-6)
    assert whole.run.data.metrics["accuracy"] == (scored["prediction"] == scored["label"]).mean()


def test_the_folder_states_its_precision_and_keeps_whole_weights(whole):
    config = json.loads((whole.huggingface / "config.json").read_text())
    assert (config["inference_dtype"], config["dtype"]) == ("bfloat16", "float32")
    assert json.loads((whole.huggingface / "tokenizer_config.json").read_text())["model_max_length"] == 8
    with safe_open(whole.huggingface / "model.safetensors", "pt") as weights:
        name = next(iter(weights.keys()))
        assert weights.get_tensor(name).dtype == torch.float32
    assert whole.run.data.params["inference_precision"] == "bf16"
    assert whole.run.data.tags["micro_batch_size"] == "8"


def test_a_run_says_what_was_dropped_where_its_plan_leaves_it_to_the_checkpoint(whole):
    params = whole.run.data.params
    assert (params["attention_dropout"], params["hidden_dropout"]) == ("0.1", "0.1")
    assert params["left_to_checkpoint"] == "attention_dropout,hidden_dropout"


@pytest.mark.parametrize(
    ("stated", "gpu", "served"),
    [("bfloat16", False, "bfloat16"), ("float16", False, "float32"), ("float16", True, "float16"),
     ("float32", True, "float32"), (None, False, "float32")],
)  # fmt: skip
def test_a_model_is_served_in_its_stated_precision_where_the_device_has_it(tmp_path, monkeypatch, stated, gpu, served):
    model, tokenizer = small("bert", layers=1, heads=2, head_size=4, intermediate=8), small_tokenizer(*WORDS)
    if stated:
        model.config.inference_dtype = stated
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    to, asked = type(model).to, []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(type(model), "to", lambda self, device, dtype: asked.append((device, dtype)) or to(self, dtype))
    SentimentClassifier().load_context(SimpleNamespace(artifacts={"huggingface": str(tmp_path)}))
    assert asked == [("cuda" if gpu else "cpu", getattr(torch, served))]
