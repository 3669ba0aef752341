"""A whole study of one model whose reductions are also cut from its trained baseline."""

import re
import sys

import mlflow
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


def test_a_study_recovers_its_reductions_and_adapts_the_better_ones(command, small_preset, tmp_path):
    preset = small_preset("recovering", models=("bert",), recovery=True)
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db", "MLFLOW_EXPERIMENT_NAME": "recovering"}
    words = [sys.executable, str(ROOT / "entry_points" / "study.py"), f"--preset={preset}"]
    study = command(*words, cwd=tmp_path, env=env)
    assert study.returncode == 0, study.stderr
    assert len(re.findall(r"^\[ ?\d+/12\] .*accuracy", study.stderr, flags=re.M)) == 4 + 3 + 4
    shown = study.stdout.partition("## Recovered")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| minilm-bert", shown, flags=re.M)) == 3
    assert "Every reduction of the plan was recovered." in shown

    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("recovering").experiment_id
    runs = client.search_runs([experiment], "tags.seed = '42'")
    (baseline,) = [run for run in runs if run.data.tags["stage"] == "baseline"]
    recovered = [run for run in runs if run.data.tags["start"] == "baseline" and run.data.tags["stage"] == "reduce"]
    assert {run.data.tags["source_run"] for run in recovered} == {baseline.info.run_id}
    best = {}
    for run in runs:
        if run.data.tags["stage"] == "reduce":
            best.setdefault(run.data.tags["dim"], []).append(run)
    for run in runs:
        if run.data.tags["stage"] == "transfer" and run.data.tags["dim"] != "none":
            rivals = best[run.data.tags["dim"]]
            source = next(each for each in rivals if each.info.run_id == run.data.tags["source_run"])
            reached = [each.data.metrics["validation_accuracy"] for each in rivals]
            assert source.data.metrics["validation_accuracy"] == max(reached)
            assert run.data.tags["start"] == source.data.tags["start"]

    again = command(*words, cwd=tmp_path, env=env)
    assert again.stderr.count("finished already, skipped") == 12
