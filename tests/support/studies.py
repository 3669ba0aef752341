"""One store that `mlflow run` of this checkout has filled, shared by the integration tests."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass

import mlflow
import pytest
from filelock import FileLock

from conftest import ROOT, environment

EXPERIMENT = "test-experiment"


class Project:
    """One store in a directory of its own, filled by `mlflow run` of this checkout."""

    def __init__(self, folder, command, preset):
        self.folder, self.command, self.preset = folder, command, preset
        # One thread, so that runs side by side and in Slurm's jobs compute the same.
        self.env = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/store.db", "OMP_NUM_THREADS": "1"}

    def run(self, entry, *parameters, preset=None):
        values = [f"preset={preset or self.preset}", *parameters]
        words = [word for value in values for word in ("-P", value)]
        return self.command(
            "mlflow", "run", ROOT, "-e", entry, "--env-manager", "local", "--experiment-name", EXPERIMENT, *words,
            cwd=self.folder, env=self.env,
        )  # fmt: skip

    def runs(self, **tags):
        client = mlflow.MlflowClient(self.env["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        clauses = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        return list(client.search_runs([experiment], clauses))


@pytest.fixture(scope="session")
def project(tmp_path_factory, command, small_preset):
    """Shared by all processes of one test session: what one has made, the others look at."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "elsewhere"
    folder.mkdir(exist_ok=True)
    return Project(folder, command, small_preset("small", models=("bert",)))


def once(file, make):
    """What the first process that asks makes; the others wait for it."""
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_bytes(pickle.dumps(make()))
        return pickle.loads(file.read_bytes())


@pytest.fixture(scope="session")
def reduced(project):
    """One reduce run, as the README has it, with a number typed in another spelling than Python prints."""

    def reduce():
        result = project.run("reduce", "model=bert", "dim=heads", "learning_rate=2e-5")
        assert result.returncode == 0, result.stderr
        (run,) = project.runs(stage="reduce")
        return run.info.run_id

    run_id = once(project.folder / "reduced", reduce)
    return mlflow.MlflowClient(project.env["MLFLOW_TRACKING_URI"]).get_run(run_id)


@dataclass
class Studied:
    """A study of one model: interrupted after its first run, then continued with two runs side by side."""

    interrupted: list[str]
    continued: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def studied(project, reduced):
    return once(project.folder / "studied", lambda: study(project))


def study(project):
    words = [sys.executable, str(ROOT / "entry_points" / "study.py"), f"--preset={project.preset}"]
    env = environment(**project.env, MLFLOW_EXPERIMENT_NAME=EXPERIMENT)
    with subprocess.Popen(words, cwd=project.folder, env=env, stderr=subprocess.PIPE, text=True) as study:
        for line in study.stderr:
            if line.startswith("[ 2/9]"):
                study.send_signal(signal.SIGTERM)
                break
        study.stderr.read()
    assert study.returncode == 128 + signal.SIGTERM
    assert len([run for run in project.runs(stage="baseline") if run.info.status == "FINISHED"]) == 1
    assert not [run for run in project.runs() if run.info.status == "RUNNING"]
    interrupted = [run.info.status for run in project.runs(stage="study")]
    continued = project.run("study", "jobs=2")
    assert continued.returncode == 0, continued.stderr
    return Studied(interrupted, continued)
