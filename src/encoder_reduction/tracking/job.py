"""The Slurm job that a process is part of, and the queue."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

PARENT = "ENCODER_REDUCTION_PARENT"
_LOG = "ENCODER_REDUCTION_LOG"
_STATE = "ENCODER_REDUCTION_STATE"


@dataclass(frozen=True)
class Queued:
    """A job that has not ended.

    Attributes:
        state: Slurm's word for it, such as ``PENDING``.
        reason: why it does not run yet.
    """

    state: str
    reason: str


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


def queue() -> dict[str, Queued]:
    """This user's jobs that have not ended, by id; none where there is no Slurm.

    Raises:
        UserError: the controller does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r"]
    listed = subprocess.run(words, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(
            f"Slurm's queue cannot be read, so what is under way is not known ({' '.join(listed.stderr.split())}):"
            " start the same command again once 'squeue' answers."
        )
    rows = [line.split("|", 2) for line in listed.stdout.splitlines()]
    return {number: Queued(state, reason) for number, state, reason in rows}


def _note(what: str, value: str) -> None:
    if base := os.environ.get(_STATE):
        Path(f"{base}.{what}").write_text(value)
