"""Whole runs that a budget decides on: what they are cut to, what they say of it, and how they go on."""

import mlflow
import pandas as pd
import pytest
from test_recovery import recoveries  # noqa: F401

from encoder_reduction.errors import UserError
from encoder_reduction.models.architectures import sizes_of
from encoder_reduction.models.checkpoints import load_folder
from encoder_reduction.runs import run
from encoder_reduction.runs.judging import Judge
from encoder_reduction.tracking import fingerprints, store

pytestmark = pytest.mark.slow

FLOPS = {"start": "baseline", "budget": "flops:0.6", "search_candidates": 4, "search_examples": 8}


def table(found, name):
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{found.info.run_id}/{name}"))


def test_a_search_meets_the_budget_and_says_what_it_came_to(recoveries):  # noqa: F811
    found = recoveries.reduced(FLOPS, "heads+intermediate")
    metrics, params, tags = found.data.metrics, found.data.params, found.data.tags
    assert 0.5 < metrics["flops_share"] <= 0.6 * 1.06
    assert tags["budget_met"] == f"yes: {metrics['flops_share']:.3f} of flops:0.6"
    assert tags["config"] == "heads+intermediate-flops-0.6"
    assert params["budget"] == "flops:0.6"
    assert not {"keep", "size", "heads.keep", "heads.size"} & set(params)
    baseline = recoveries.baseline.data.metrics
    assert metrics["whole_accuracy"] == baseline["accuracy"]
    assert metrics["parameters_share"] == metrics["parameters"] / baseline["parameters"]
    assert metrics["flops_share"] == pytest.approx(metrics["flops_128"] / baseline["flops_128"])
    assert metrics["latency_share"] == pytest.approx(1 / metrics["speed_ratio"])
    assert metrics["speed_ratio_low"] <= metrics["speed_ratio"] <= metrics["speed_ratio_high"]
    pd.testing.assert_frame_equal(
        table(found, "whole_predictions.csv"), table(recoveries.baseline, "test_predictions.csv")
    )

    tried = table(found, "search.csv")
    (taken,) = tried[tried["verdict"].str.startswith("taken")].to_dict("records")
    with store.downloaded_model(found.info.run_id) as folder:
        sizes = sizes_of(load_folder(folder)[0])
    assert (taken["heads"], taken["intermediate"]) == (sizes.heads, sizes.intermediate)
    assert 2 <= len(tried) <= 4


def test_from_pretrained_weights_it_is_the_same_share_of_each(recoveries):  # noqa: F811
    found = recoveries.reduced({"budget": "flops:0.6"}, "heads+intermediate")
    assert found.data.params["num_attention_heads"] == "2"
    assert abs(int(found.data.params["intermediate_size"]) - 16) <= 4
    assert "whole_accuracy" not in found.data.metrics
    assert len(table(found, "search.csv")) == 1


def test_a_budget_of_time_has_its_table(recoveries):  # noqa: F811
    given = {"start": "baseline", "budget": "latency:0.9", "budget_tolerance": 0.5, "epochs": 0, "budget_tokens": 6}
    found = recoveries.reduced({**given, "budget_batch_size": 2}, "layers")
    assert found.data.params["num_hidden_layers"] == "1"
    assert len(table(found, "latency_table.csv")) == 36
    assert 0 < found.data.metrics["latency_table_error"] <= found.data.metrics["latency_table_worst_error"]
    for budget in ("latency:0.9", "flops:0.9"):
        with pytest.raises(UserError, match="budget_tokens=31 is not allowed for a network that has positions for 30"):
            recoveries.reduced({**given, "budget": budget, "budget_tokens": 31}, "layers")


def test_parameters_below_what_the_embeddings_have_are_refused(recoveries):  # noqa: F811
    with pytest.raises(UserError, match=r"budget=parameters:0\.1 is less than the embeddings alone have \(0\.\d\d of"):
        recoveries.reduced({"budget": "parameters:0.1"}, "layers")
    narrow = recoveries.reduced({"budget": "parameters:0.4"}, "hidden")
    assert narrow.data.metrics["parameters_share"] <= 0.4 * 1.06


def test_an_interrupted_search_goes_on_in_the_same_run(recoveries, monkeypatch):  # noqa: F811
    values = {**FLOPS, "budget": "flops:0.7"}
    plan, scored, score = recoveries.plan("reduce", "heads+intermediate", values), [], Judge.score

    def stopped(judge, model):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(sizes_of(model))
        return score(judge, model)

    monkeypatch.setattr(Judge, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.execute(plan, progress=False)
    again = []
    monkeypatch.setattr(Judge, "score", lambda judge, model: again.append(sizes_of(model)) or score(judge, model))
    fingerprint = fingerprints.of_plan(plan, recoveries.baseline.info.run_id)
    interrupted = store.unfinished_run("0", fingerprint)
    outcome = run.execute(plan, run_id=interrupted, progress=False)
    assert outcome.run_id == interrupted
    ways = table(mlflow.get_run(interrupted), "search.csv")
    assert len(ways) == 4
    # Each way once when it is refitted and once when it is recovered, in both processes together.
    assert len(scored) + len(again) == len(ways) + ways["loss_recovered"].notna().sum()
    assert store.unfinished_run("0", fingerprint) is None
