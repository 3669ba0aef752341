"""Runs written for a test, so that every figure of them is known."""

import functools
from typing import get_args

import mlflow
import pandas as pd
import pytest
from transformers import BertConfig, BertForSequenceClassification

from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Stage
from encoder_reduction.tracking import opening
from encoder_reduction.tracking.store import PREDICTIONS_FILE

FULL = {"heads": 12, "hidden": 384, "layers": 6}


@pytest.fixture(scope="session")
def session_store(tmp_path_factory):
    """The folder of one store, since making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def experiment_id(session_store, request, monkeypatch):
    """An empty experiment for each test, in one store, which is this process's meanwhile; its id."""
    before, name = mlflow.get_tracking_uri(), f"{request.module.__name__}-{request.node.name}"
    mlflow.set_tracking_uri(f"sqlite:///{session_store}/store.db")
    mlflow.create_experiment(name, artifact_location=str(session_store / name))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    yield mlflow.set_experiment(name).experiment_id
    mlflow.set_experiment(experiment_id="0")  # which every store has
    mlflow.set_tracking_uri(before)


@functools.cache
def planned_params(stage, dim):
    """What a run that does as the packaged preset says logs of its plan."""
    if stage not in get_args(Stage):
        return {}
    plan = presets.load("packaged")[0].plan(stage, "bert", None if dim == "none" else dim)
    reductions = plan.reductions.values() if len(plan.reductions) == 1 and stage == "reduce" else ()
    sections = [plan.fine_tuning, *reductions]
    return {key: value for each in sections for key, value in each.model_dump().items() if value is not None}


def searching():
    """How the packaged study searches."""
    return presets.load("packaged")[0].equal_budgets.searching


def finished(
    model="bert",
    dim="none",
    stage=None,
    config=None,
    seed=42,
    params=None,
    tags=None,
    budget=None,
    sizes=None,
    **metrics,
):
    """A finished run with these figures; what is not given is the baseline's. With a budget it is a recovery."""
    if budget:
        tags = {"budget": budget, "start": "baseline", "distill": "hidden"} | (tags or {})
        config = f"{dim}-{budget.replace(':', '-')}"
    figures = {
        "parameters": 100.0, "accuracy": 0.8, "f1": 0.8, "validation_accuracy": 0.8, "inference_ms": 10.0,
        "training_memory_gb": 2.0, "inference_memory_gb": 1.0, "training_seconds": 100.0, "flops_per_example": 1e9,
        "inference_ms_std": 0.1,
    } | metrics  # fmt: skip
    config = config or ("baseline" if dim == "none" else f"{dim}-6")
    stage = stage or ("baseline" if dim == "none" else "reduce")
    sizes = FULL | (sizes or ({dim: int(config.rpartition("-")[2])} if dim in FULL and not budget else {}))
    begins = [(tags or {}).get(tag) for tag in ("start", "distill", "budget")]
    identity = {
        "stage": stage, "model": model, "checkpoint": f"minilm-{model}",
        "corpus": "product-reviews" if stage == "transfer" else "movie-snippets", "libraries": "torch 1",
        "dim": dim, "config": config, "preset": "packaged", "seed": seed, "device": "some CPU",
        "memory_kind": "resident", "machine": "quiet", "distill": "none", "start": "pretrained",
        "plan_fingerprint": "-".join(map(str, (stage, model, dim, config, params, *begins))),
    } | (tags or {})  # fmt: skip
    with mlflow.start_run() as run:
        mlflow.set_tags(identity)
        mlflow.log_params(
            {"num_attention_heads": sizes["heads"], "hidden_size": sizes["hidden"]}
            | {"num_hidden_layers": sizes["layers"], "intermediate_size": sizes.get("intermediate", 1536)}
            | planned_params(stage, dim) | ({"budget": budget} | searching() if budget else {}) | (params or {})
        )  # fmt: skip
        mlflow.log_metrics(figures)
    return run.info.run_id


def with_model(run_id, tokenizer):
    """Log a model of one small layer."""
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=tokenizer.vocab_size, **shape))
    with opening.open_run(run_id=run_id) as run:
        run.model(model, tokenizer)


def out_of_reach(dim, budget, least, model="bert"):
    """A run that has found its budget out of reach."""
    run_id = finished(model, dim, budget=budget, tags={"out_of_reach": str(least), "error": f"{dim} cannot"})
    mlflow.MlflowClient().set_terminated(run_id, "FAILED")
    return run_id


def with_predictions(run_id, right, tokens=10, file=PREDICTIONS_FILE):
    """Store predictions, of test by default, that are right where ``right`` says so."""
    table = pd.DataFrame({"id": range(len(right)), "label": 1, "prediction": right.astype(int), "tokens": tokens})
    mlflow.MlflowClient().log_text(run_id, table.to_csv(index=False), file)
    return run_id
