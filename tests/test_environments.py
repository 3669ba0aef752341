"""The files that environments are made from agree with each other, and the way into one that is there already."""

import hashlib
import os
import re
import sys
from pathlib import Path

import mlflow
import pytest

from conftest import ROOT
from encoder_reduction.tracking import opening

CUSTOMERS = "mlflow run . -e reduce -P model=roberta -P dim=hidden"


def test_conda_makes_another_environment_for_other_pins():
    """MLflow reuses the one of the same conda.yaml, whatever the file of pins that it refers to has become."""
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()[:16]
    assert f"# {digest}\n" in (ROOT / "conda.yaml").read_text(), f"put {digest} into conda.yaml"


@pytest.fixture
def without_conda(command, tmp_path):
    """Runs a line of `mlflow run .` from another directory, where no conda is found, on a store of its own."""
    folders = [str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)]
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "conda").exists())
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db", "PATH": path, "CONDA_EXE": ""}
    return lambda line, *more: command(*line.replace(" . ", f" {ROOT} ").split(), *more, cwd=tmp_path, env=env)


@pytest.mark.slow
def test_without_conda_a_run_needs_the_flag_that_the_readme_adds(without_conda, small_preset, tmp_path, monkeypatch):
    (line,) = re.findall(r"^mlflow run .*-e reduce.*dim=hidden$", (ROOT / "README.md").read_text(), re.M)
    assert line.replace(" --env-manager local", "") == CUSTOMERS
    refused = without_conda(CUSTOMERS)
    assert refused.returncode == 1
    assert "Could not find Conda executable" in refused.stderr
    taken = without_conda(line, "-P", f"preset={small_preset('small')}")
    assert taken.returncode == 0, taken.stderr

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    client = mlflow.MlflowClient()
    assert [run.info.status for run in client.search_runs(["0"])] == ["FINISHED", "RUNNING"]
    monkeypatch.setattr(opening, "_BEGINNING_SECONDS", 0)  # An hour later, that is.
    opening.settle()
    assert [run.info.status for run in client.search_runs(["0"])] == ["FINISHED", "FAILED"]
