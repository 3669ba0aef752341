"""What a process says of the Slurm job that it is part of."""

import os
from pathlib import Path

PARENT = "ENCODER_REDUCTION_PARENT"
_LOG = "ENCODER_REDUCTION_LOG"
_STATE = "ENCODER_REDUCTION_STATE"


def job() -> str | None:
    """The job's id as ``squeue`` shows it (``123``, ``123_4`` in an array); ``None`` outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def tags() -> dict[str, str]:
    """Job, node and log of the job that this process belongs to, and its study; nothing outside of Slurm."""
    number = job()
    if number is None:
        return {}
    study = {"mlflow.parentRunId": os.environ[PARENT]} if os.environ.get(PARENT) else {}
    node, log = os.environ.get("SLURMD_NODENAME", ""), os.environ.get(_LOG, "")
    return {"slurm_job_id": number, "slurm_node": node, "slurm_log": log, **study}


def note_run(run_id: str) -> None:
    """Tell the job's script which MLflow run it is carrying out, so that it goes on with the same one."""
    _note("run", run_id)


def note_end(how: str) -> None:
    """Tell the job's script that this process ends in order: ``finished``, ``failed`` or ``stopped``."""
    _note("end", how)


def _note(what: str, value: str) -> None:
    if base := os.environ.get(_STATE):
        Path(f"{base}.{what}").write_text(value)
