"""A paired measurement in several runtimes, of real networks in a real store; and what compare makes of it."""

import importlib

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner
from stores import finished, with_model

from conftest import ROOT
from encoder_reduction import comparison
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.plan.complaints import updated
from encoder_reduction.plan.runtimes import Runtimes
from encoder_reduction.plan.study import Study
from encoder_reduction.profiling.machine import device_name
from encoder_reduction.runs import paired
from encoder_reduction.tracking import fingerprints, opening, store

RUNTIMES = ("torch", "onnxruntime", "onnxruntime-int8")
SMALL = {"precision": "bf16", "test_texts": 16, "min_repetitions": 2, "time_budget": 0.05, "fixed_lengths": "16",
         "max_test_examples": 60}  # fmt: skip


@pytest.fixture
def models(experiment_id, packaged):
    """A baseline and a reduction that are finished, each with a small network."""
    ids = []
    for dim in ("none", "layers"):
        run_id = finished(dim=dim, tags={"device": device_name()}, params={"resolved_precision": "bf16"})
        with_model(run_id, packaged["bert"][1])
        ids.append(run_id)
    return ids


def measured(run_ids, *runtimes):
    plan = presets.load("packaged")[0].plan("baseline", "bert", overrides=SMALL)
    return paired.execute(plan, run_ids, *runtimes)


def artifact(run_id, file):
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{file}"))


@pytest.mark.slow
def test_each_run_takes_its_turns_in_each_runtime_and_is_scored_there(models):
    outcome = measured(models, RUNTIMES)
    keys = [(run_id, runtime) for run_id in models for runtime in RUNTIMES]
    ratios = artifact(outcome.run_id, store.RATIOS_FILE)
    for _, own in ratios.groupby(["workload", "batch_size"]):
        assert list(zip(own["run_id"], own["runtime"], strict=True)) == keys
        assert own["precision"].tolist() == 2 * ["bf16", "fp32", "int8"]
        assert own["rounds"].nunique() == 1  # the same rounds
    reference = ratios["run_id"].eq(models[0]) & ratios["runtime"].eq("torch")
    assert ratios.loc[reference, "speed_ratio"].eq(1).all()
    assert not ratios.loc[~reference, "speed_ratio"].eq(1).any()

    scored = artifact(outcome.run_id, store.RUNTIMES_FILE)
    assert list(zip(scored["run_id"], scored["runtime"], strict=True)) == keys
    texts = ratios[ratios["workload"].eq("texts") & ratios["batch_size"].eq(16)]
    assert scored["speed_ratio"].tolist() == texts["speed_ratio"].tolist()
    singles = ratios[ratios["workload"].eq("texts") & ratios["batch_size"].eq(1)]
    assert scored["single_high"].tolist() == singles["high"].tolist()
    by_runtime = scored.groupby("runtime")["megabytes"].max()
    assert by_runtime["onnxruntime-int8"] < 0.4 * by_runtime["onnxruntime"]
    assert by_runtime["torch"] == pytest.approx(by_runtime["onnxruntime"], rel=0.1)
    for row in scored.itertuples():
        table = artifact(outcome.run_id, store.runtime_predictions_file(row.run_id, row.runtime))
        assert list(table) == ["id", "label", "prediction", "score", "tokens"]
        assert (len(table), row.examples) == (60, 60)
        assert row.accuracy == pytest.approx((table["label"] == table["prediction"]).mean())
    scores = [artifact(outcome.run_id, store.runtime_predictions_file(models[0], each))["score"] for each in RUNTIMES]
    assert 0 < (scores[0] - scores[1]).abs().max() < 0.01  # bfloat16 beside float32
    assert 0 < (scores[2] - scores[1]).abs().max() < 0.05

    run = mlflow.get_run(outcome.run_id)
    assert run.data.params["runtimes"] == ",".join(RUNTIMES)
    found = {key for key in run.data.metrics if key.startswith("speed_ratio/") and key.endswith("texts/batch_16")}
    assert len(found) == 5


@pytest.mark.slow
def test_pytorch_alone_is_measured_as_it_was(models, monkeypatch):
    """Without the optional libraries, under the same fingerprint; no other file, no other parameter."""
    monkeypatch.setattr("encoder_reduction.runs.contenders.export", None)
    outcome = measured(models)
    assert outcome.runtimes.empty
    assert set(outcome.ratios["runtime"]) == {"torch"}
    run = mlflow.get_run(outcome.run_id)
    assert "runtimes" not in run.data.params
    plan = presets.load("packaged")[0].plan("baseline", "bert", overrides=SMALL)
    assert run.data.tags["fingerprint"] == fingerprints.of_plan(plan, ",".join(models))
    files = {each.path for each in mlflow.MlflowClient().list_artifacts(outcome.run_id)}
    assert files == {"machine.json", "speed_ratios.csv"}


@pytest.mark.slow
def test_compare_says_where_it_runs(models):
    """From the measurement to the report."""
    measured(models, RUNTIMES)
    with opening.open_run() as run:
        report = comparison.compare(Study(presets.load("packaged")[0]), run)
    section = report.partition("## Where it runs\n\n")[2].partition("\n\n## ")[0]
    assert section.startswith("**minilm-bert, beside its baseline in PyTorch (bf16): quantised to int8 it is ")
    assert section.count("| onnxruntime-int8 |") == 2


def test_runtimes_are_said_in_any_order_and_pytorch_is_always_among_them():
    assert updated(Runtimes(), {"runtimes": "onnxruntime-int8,torch"}).runtimes == ("torch", "onnxruntime-int8")
    assert updated(Runtimes(), {"runtimes": "onnxruntime,onnxruntime"}).runtimes == ("torch", "onnxruntime")
    assert Runtimes().runtimes == ("torch",)


def test_an_unknown_runtime_is_one_sentence_with_those_that_there_are():
    with pytest.raises(UserError, match=r"=tensorrt is not allowed: .*'torch', 'onnxruntime' or 'onnxruntime-int8'\.$"):
        updated(Runtimes(), {"runtimes": "torch,tensorrt"})


@pytest.mark.parametrize(("given", "asked"), [([], ("torch",)), (["--runtimes=onnxruntime"], ("torch", "onnxruntime"))])
def test_the_command_hands_the_runtimes_on(given, asked, monkeypatch):
    seen = []

    def execute(plan, run_ids, runtimes):
        seen.append((run_ids, runtimes))
        return paired.Outcome("", pd.DataFrame({"runtime": runtimes}), pd.DataFrame())

    monkeypatch.syspath_prepend(ROOT / "entry_points")
    monkeypatch.setattr(paired, "execute", execute)
    command = importlib.import_module("profile_runs").main
    result = CliRunner().invoke(command, ["--model=bert", "--preset=packaged", "--runs=one,two", *given])
    assert result.exit_code == 0, result.output
    assert seen == [(["one", "two"], asked)]
