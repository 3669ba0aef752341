"""A whole study of one model whose reductions are also cut from its trained baseline, and to a budget."""

import re
import sys

import mlflow
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


def test_a_study_recovers_its_reductions_and_adapts_the_better_ones(command, small_preset, tmp_path):
    budgets = {"budgets": ["flops:0.5"], "budget_dims": ["heads", "hidden", "layers"]}
    preset = small_preset("recovering", models=("bert",), recovery=True, equal_budgets=budgets)
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db", "MLFLOW_EXPERIMENT_NAME": "recovering"}
    words = [sys.executable, str(ROOT / "entry_points" / "study.py"), f"--preset={preset}"]
    study = command(*words, cwd=tmp_path, env=env)
    assert study.returncode == 0, study.stderr
    assert len(re.findall(r"^\[ ?\d+/15\] .*accuracy", study.stderr, flags=re.M)) == 4 + 3 + 2 + 4
    assert "heads  flops:0.5 seed 42  cannot be: budget=flops:0.5 is out of reach of dim=heads: even" in study.stderr
    shown = study.stdout.partition("## Recovered")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| minilm-bert", shown, flags=re.M)) == 4
    assert "Every reduction of the plan was recovered." in shown

    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("recovering").experiment_id
    runs = client.search_runs([experiment], "tags.seed = '42'")
    (baseline,) = [run for run in runs if run.data.tags["stage"] == "baseline"]
    recovered = [run for run in runs if run.data.tags["start"] == "baseline" and run.data.tags["stage"] == "reduce"]
    assert len(recovered) == 3 + 3
    check_budget(study.stdout, [run for run in recovered if "budget" in run.data.tags])
    assert {run.data.tags["source_run"] for run in recovered} == {baseline.info.run_id}
    best = {}
    for run in runs:
        if run.data.tags["stage"] == "reduce" and "budget" not in run.data.tags:
            best.setdefault(run.data.tags["dim"], []).append(run)
    for run in runs:
        if run.data.tags["stage"] == "transfer" and run.data.tags["dim"] != "none":
            rivals = best[run.data.tags["dim"]]
            source = next(each for each in rivals if each.info.run_id == run.data.tags["source_run"])
            reached = [each.data.metrics["validation_accuracy"] for each in rivals]
            assert source.data.metrics["validation_accuracy"] == max(reached)
            assert run.data.tags["start"] == source.data.tags["start"]

    again = command(*words, cwd=tmp_path, env=env)
    assert again.stderr.count("finished already, skipped") == 14
    assert again.stderr.count("cannot be:") == 1
    status = [sys.executable, str(ROOT / "entry_points" / "status.py"), f"--preset={preset}"]
    assert command(*status, cwd=tmp_path, env=env).stdout.startswith("14 done, 1 out of reach\n")


def check_budget(report, runs):
    """What is reported of a budget is what its runs have logged."""
    assert report.startswith(
        "## Which dimension matters most, for quality and for cost?\n\n**To need half of the FLOPs, "
    )
    shown = re.findall(r"^\| flops:0.5 \| minilm-bert \| (\w+) +\| ([^|]+?) +\|", report, flags=re.M)
    sizes = {run.data.tags["dim"]: run.data.params for run in runs}
    least = next(float(run.data.tags["out_of_reach"]) for run in runs if run.data.tags["dim"] == "heads")
    assert shown == [
        ("heads", f"out of reach: {least:.0%} of the flops at the least"),
        ("hidden", f"hidden {sizes['hidden']['hidden_size']}"),
        ("layers", "layers 3"),
    ]
    assert {run.info.status for run in runs if run.data.tags["dim"] == "heads"} == {"FAILED"}
