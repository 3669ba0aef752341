"""One whole run in bfloat16, which any CPU can compute: what is timed, what is scored and what is served are one."""

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
from safetensors import safe_open

from encoder_reduction.data import corpora
from encoder_reduction.models import checkpoints
from encoder_reduction.plan import presets
from encoder_reduction.profiling import inference
from encoder_reduction.runs import figures, run
from encoder_reduction.tracking.served_model import SentimentClassifier
from encoder_reduction.tracking.store import PREDICTIONS_FILE

pytestmark = pytest.mark.slow

SMALL = {
    "precision": "bf16", "max_length": 12, "max_train_examples": 32, "max_validation_examples": 32,
    "max_test_examples": 32, "calibration_examples": 16, "test_texts": 16, "min_repetitions": 2, "time_budget": 0.1,
    "fixed_lengths": "8",
}  # fmt: skip


@dataclass
class Whole:
    """A finished run of pruned heads.

    Attributes:
        run: MLflow's.
        folder: where its artifacts lie.
        timed: the model that latency was measured on.
        trained: the model that was trained, if it was still in memory then.
        sampled: for each latency, whether memory was being measured meanwhile.
        texts: of the test split.
    """

    run: Any
    folder: Path
    timed: Any
    trained: Any
    sampled: list[bool]
    texts: list[str]

    @property
    def huggingface(self) -> Path:
        (config,) = (self.folder / "model").glob("artifacts/*/config.json")
        return config.parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("whole"), mlflow.get_tracking_uri()
    plan = presets.load("packaged")[0].plan("reduce", "bert", "heads", SMALL)
    timed, trained, sampled, within = [], [], [], []
    peak_memory, measure, measured, train = inference.peak_memory, inference.measure, figures.inference, run.train

    @contextmanager
    def watching(device):
        within.append(True)
        with peak_memory(device) as memory:
            yield memory
        within.pop()

    def timing(*arguments, **more):
        sampled.append(bool(within))
        return measure(*arguments, **more)

    def profiled(profiler, *arguments):
        timed.append(profiler.model)
        trained.append(trained.pop()())
        return measured(profiler, *arguments)

    def training(tuner, *arguments):
        trained.append(weakref.ref(tuner.model))
        return train(tuner, *arguments)

    mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(inference, "peak_memory", watching)
            patch.setattr(inference, "measure", timing)
            patch.setattr(figures, "inference", profiled)
            patch.setattr(run, "train", training)
            outcome = run.execute(plan, progress=False)
        for name in ("model", PREDICTIONS_FILE):
            mlflow.artifacts.download_artifacts(f"runs:/{outcome.run_id}/{name}", dst_path=str(folder))
        texts = corpora.draw_splits(plan)["test"]["text"]
        yield Whole(mlflow.get_run(outcome.run_id), folder, timed[0], trained[0], sampled, list(texts))
    finally:
        mlflow.set_tracking_uri(before)


def test_no_autocast_of_training_is_left_on_what_is_timed(whole):
    assert "forward" not in vars(whole.timed)
    assert not hasattr(whole.timed, "_original_forward")
    assert {parameter.dtype for parameter in whole.timed.parameters()} == {torch.bfloat16}
    assert not whole.timed.training


def test_the_trained_model_is_no_part_of_inference_memory(whole):
    assert whole.trained is None


def test_what_is_timed_is_what_was_logged(whole):
    logged, _ = checkpoints.load_folder(whole.huggingface)
    logged.to(torch.bfloat16)
    assert type(whole.timed) is type(logged)
    found = whole.timed.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in logged.state_dict().items())
    layers = whole.timed.bert.encoder.layer
    assert {layer.attention.self.config._attn_implementation for layer in layers} == {"sdpa"}


def test_memory_and_latency_are_measured_apart(whole):
    assert len(whole.sampled) >= 4
    assert not any(whole.sampled)


def test_what_was_scored_is_what_is_served(whole):
    """Cut at twelve tokens, as the run did; one batch of both."""
    scored = pd.read_csv(whole.folder / PREDICTIONS_FILE)
    assert scored["tokens"].max() == 12
    said = mlflow.pyfunc.load_model(str(whole.folder / "model")).predict(whole.texts)
    assert [each["label"] for each in said] == scored["prediction"].map({0: "negative", 1: "positive"}).tolist()
    expected = scored["score"].where(scored["prediction"].eq(1), 1 - scored["score"])
    assert [each["score"] for each in said] == pytest.approx(expected.tolist(), abs=1e-6)
    assert whole.run.data.metrics["accuracy"] == (scored["prediction"] == scored["label"]).mean()


def test_the_folder_states_its_precision_and_keeps_whole_weights(whole):
    config = json.loads((whole.huggingface / "config.json").read_text())
    assert (config["inference_dtype"], config["inference_max_length"], config["dtype"]) == ("bfloat16", 12, "float32")
    with safe_open(whole.huggingface / "model.safetensors", "pt") as weights:
        name = next(iter(weights.keys()))
        assert weights.get_tensor(name).dtype == torch.float32
    assert whole.run.data.params["inference_precision"] == "bf16"
    assert whole.run.data.tags["micro_batch_size"] == "16"


@pytest.mark.parametrize(
    ("stated", "gpu", "served"),
    [("bfloat16", False, "bfloat16"), ("float16", False, "float32"), ("float16", True, "float16"),
     ("float32", True, "float32"), (None, False, "float32")],
)  # fmt: skip
def test_a_model_is_served_in_its_stated_precision_where_the_device_has_it(
    packaged, tmp_path, monkeypatch, stated, gpu, served
):
    model, tokenizer = packaged["bert"]
    monkeypatch.setattr(model.config, "inference_dtype", stated, raising=False)
    if stated is None:
        monkeypatch.delattr(model.config, "inference_dtype")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    to, asked = type(model).to, []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(type(model), "to", lambda self, device, dtype: asked.append((device, dtype)) or to(self, dtype))
    SentimentClassifier().load_context(SimpleNamespace(artifacts={"huggingface": str(tmp_path)}))
    assert asked == [("cuda" if gpu else "cpu", getattr(torch, served))]
