"""What benchmarks of whole runs share: a store of their own, in which an interrupted one continues."""

import os
from pathlib import Path

import mlflow

from encoder_reduction.plan.sections import RunPlan
from encoder_reduction.runs.run import execute
from encoder_reduction.runs.sources import find_source
from encoder_reduction.tracking import fingerprints, store


def experiment_in(folder: Path, name: str) -> str:
    """The id of an experiment in a store in a folder, which is this process's from then on."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    mlflow.set_tracking_uri(f"sqlite:///{Path.cwd()}/store.db")
    return mlflow.set_experiment(name).experiment_id


def run(plan: RunPlan, experiment: str) -> str:
    """The finished run of a plan, carried out where it is missing."""
    source = find_source(experiment, plan)
    found = store.finished_runs(experiment, fingerprint=fingerprints.of_plan(plan, source))
    return execute(plan, source, progress=False).run_id if found.empty else found.iloc[0]["run_id"]
